//! Calls within a budget: each reserves its worst case first and settles afterwards, or is not made.
//!
//! Owns when a call reserves and settles, and when its reservation stays because it may have taken place.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use gathering_agents::Usage;
use gathering_dag_engine::{
    ActFailed, Attempt, BudgetLedger, Call, EffectClass, Effects, Grant, NodeFailure, Outcome, PollOutcome,
    Wait, retry_while_unavailable,
};
use gathering_domain::{Amounts, MAX_AMOUNT, ProjectId, Resource, RunId, WaitingFor};
use serde_json::Value;
use tokio::sync::OnceCell;

/// The shortest wait for a budget's reset: the clocks of this host and of the database may differ.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// The cost of a model call with this usage.
pub(crate) fn cost_of_model_call(usage: Usage) -> Amounts {
    let tokens = i64::try_from(usage.total()).unwrap_or(i64::MAX).min(MAX_AMOUNT);
    Amounts::from([(Resource::Tokens, tokens), (Resource::ModelCalls, 1)])
}

/// The cost of a tool call.
pub(crate) fn cost_of_tool_call() -> Amounts {
    Amounts::from([(Resource::ToolCalls, 1)])
}

/// Reserves and settles for the calls of one attempt.
pub(crate) struct CallBudget<'a> {
    budgets: Option<&'a dyn BudgetLedger>,
    effects: &'a Effects,
    project: ProjectId,
    run: RunId,
    /// The start of every key: the node and its number of failed attempts. A failed attempt may have made calls that never
    /// returned: their reservations stay, and a repeat of such a call reserves anew.
    prefix: String,
    /// The keys that held a reservation when the attempt first asked.
    open: OnceCell<BTreeSet<String>>,
    makes_calls: bool,
    /// Whether the attempt came to a call that it did not make.
    has_more: AtomicBool,
}

/// Why an attempt stops at a call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallStop {
    /// The call failed.
    #[error(transparent)]
    Failed(#[from] NodeFailure),
    /// The budget does not grant the call, what the call started has not ended, or the attempt makes no calls.
    #[error("a call waits")]
    Waits(Wait),
}

impl CallStop {
    /// The call waits for its budget, until the next reset if it has one.
    const fn of_budget(until: Option<DateTime<Utc>>) -> Self {
        CallStop::Waits(Wait { on: WaitingFor::BudgetExceeded, until })
    }

    /// The result of an attempt that stopped here.
    pub(crate) fn into_outcome(self) -> Result<Outcome, NodeFailure> {
        match self {
            CallStop::Failed(failure) => Err(failure),
            CallStop::Waits(wait) => Ok(Outcome::Wait(wait)),
        }
    }
}

impl<'a> CallBudget<'a> {
    /// The budget of this attempt's calls in `budgets`; without them nothing bounds the calls.
    pub(crate) fn of(budgets: Option<&'a dyn BudgetLedger>, attempt: &'a Attempt) -> Self {
        Self {
            budgets,
            effects: &attempt.effects,
            project: attempt.project,
            run: attempt.run,
            prefix: format!("{}/{}", attempt.node, attempt.failures),
            open: OnceCell::new(),
            makes_calls: true,
            has_more: AtomicBool::new(false),
        }
    }

    /// The same budget for a poll: it stops at the first call that has no result yet, after it has tried to reserve for it.
    pub(crate) fn without_calls(self) -> Self {
        Self { makes_calls: false, ..self }
    }

    /// The result of a poll that stopped like this.
    pub(crate) fn poll(&self, stopped: Option<CallStop>) -> Result<PollOutcome, NodeFailure> {
        match stopped {
            _ if self.has_more.load(Ordering::Relaxed) => Ok(PollOutcome::Resume),
            None => Ok(PollOutcome::Resume),
            Some(CallStop::Waits(_)) => Ok(PollOutcome::Pending),
            Some(CallStop::Failed(failure)) => Err(failure),
        }
    }

    /// [`Effects::idempotency_key`] of the call `key` with this request.
    pub(crate) fn idempotency_key(&self, key: &str, request: &Value) -> String {
        self.effects.idempotency_key(key, request)
    }

    /// Whether the attempt may make calls; a poll may not.
    pub(crate) const fn makes_calls(&self) -> bool {
        self.makes_calls
    }

    /// Whether this call is done, so that [`CallBudget::once`] returns the recorded result.
    pub(crate) fn is_done(&self, key: &str, request: &Value) -> bool {
        self.effects.is_done(key, request)
    }

    /// Reserves for a call that begins before its effect is recorded. [`CallBudget::once`] finds the reservation.
    pub(crate) async fn admit(&self, key: &str, worst: &Amounts) -> Result<(), CallStop> {
        self.reserve(&format!("{}/{key}", self.prefix), worst).await.map(|_| ())
    }

    /// [`Effects::once`] for a call that costs at most `worst`; `used` reads the real cost from its result. `act` gets the
    /// bounded resources.
    pub(crate) async fn once<F, Fut>(
        &self,
        (key, class, request): (&str, EffectClass, &Value),
        worst: &Amounts,
        act: F,
        used: impl FnOnce(&Value) -> Amounts,
    ) -> Result<Value, CallStop>
    where
        F: FnOnce(Vec<Resource>) -> Fut + Send,
        Fut: Future<Output = Result<Value, ActFailed>> + Send,
    {
        let of_call = format!("{}/{key}", self.prefix);
        let is_done = self.effects.is_done(key, request);
        let reserved =
            if is_done { self.find_open(&of_call).await? } else { self.reserve(&of_call, worst).await? };
        if !self.makes_calls && !is_done {
            self.has_more.store(true, Ordering::Relaxed);
            return Err(CallStop::of_budget(None));
        }
        let never_began = AtomicBool::new(false);
        let (bounded, never) = (reserved.clone().unwrap_or_default(), &never_began);
        let act = || async move {
            let ended = act(bounded).await;
            let is_spared = ended.as_ref().is_err_and(|failed| !failed.may_have_taken_place());
            never.store(is_spared, Ordering::Relaxed);
            ended
        };
        let result = self.effects.once(key, class, request, act).await;
        match &result {
            Ok(result) if reserved.is_some() => self.settle(&of_call, &used(result)).await?,
            Err(_) if reserved.is_some() && never_began.into_inner() => {
                self.settle(&of_call, &Amounts::new()).await?;
            }
            // Nothing is reserved, or the reservation stays because the call may have used it.
            _ => {}
        }
        Ok(result?)
    }

    /// Reserves for a call: the bounded resources, or `None` if no budget bounds it.
    async fn reserve(&self, key: &str, worst: &Amounts) -> Result<Option<Vec<Resource>>, CallStop> {
        let Some(budgets) = self.budgets else { return Ok(None) };
        let call = self.call(key);
        let grant = retry_while_unavailable(|| budgets.reserve(call, worst));
        match grant.await? {
            Grant::Unbounded => Ok(None),
            Grant::Reserved(resources) => Ok(Some(resources)),
            Grant::Refused { resets_in } => {
                Err(CallStop::of_budget(resets_in.map(|wait| Utc::now() + wait.max(SHORTEST_WAIT))))
            }
        }
    }

    /// Whether a call that is done still holds a reservation, because its instance died before it settled. The bounded
    /// resources no longer matter then.
    async fn find_open(&self, key: &str) -> Result<Option<Vec<Resource>>, CallStop> {
        let Some(budgets) = self.budgets else { return Ok(None) };
        let ask = || async {
            retry_while_unavailable(|| budgets.list_open(self.run)).await.map(BTreeSet::from_iter)
        };
        let open = self.open.get_or_try_init(ask).await?;
        Ok(open.contains(key).then(Vec::new))
    }

    async fn settle(&self, key: &str, used: &Amounts) -> Result<(), NodeFailure> {
        let Some(budgets) = self.budgets else { return Ok(()) };
        let call = self.call(key);
        retry_while_unavailable(|| budgets.settle(call, used)).await
    }

    const fn call<'k>(&self, key: &'k str) -> Call<'k> {
        Call { project: self.project, run: self.run, key }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use gathering_dag_engine::{JournalEvent, NodeTypes, StoreError};
    use gathering_tools::{Outbound, OutboundPolicy};
    use serde_json::json;

    use super::*;
    use crate::testing::{OneDirectory, drive, tools, without_secrets};
    use crate::{ToolNode, ToolNodeSpec};

    /// A ledger that gives every call the same answer, and records what it is asked.
    struct Ledger(Grant, Mutex<Vec<String>>);

    #[async_trait]
    impl BudgetLedger for Ledger {
        async fn reserve(&self, call: Call<'_>, worst: &Amounts) -> Result<Grant, StoreError> {
            self.1.lock().unwrap().push(format!("reserve {} {worst:?}", call.key));
            Ok(self.0.clone())
        }

        async fn settle(&self, call: Call<'_>, used: &Amounts) -> Result<(), StoreError> {
            self.1.lock().unwrap().push(format!("settle {} {used:?}", call.key));
            Ok(())
        }

        async fn list_open(&self, _run: RunId) -> Result<Vec<String>, StoreError> {
            Ok(Vec::new())
        }
    }

    /// Drives a run of one call of a tool; returns its events and the requests to the ledger.
    async fn call_a_tool(grant: Grant) -> (Vec<JournalEvent>, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let tools = tools(&Outbound::new(OutboundPolicy::public_only()).unwrap());
        let ledger = Arc::new(Ledger(grant, Mutex::default()));
        let files = Arc::new(OneDirectory::new(directory.path()));
        let tool = ToolNode::new(tools.clone(), files).with_budgets(ledger.clone());
        let types = NodeTypes::builtin().with_parts("tool", ToolNodeSpec::new(tools), without_secrets(tool));
        let config = json!({"tool": "list_files", "params": {}});
        let events = drive(types, &json!({"nodes": [{"id": "n", "type": "tool", "config": config}]})).await;
        let asked = ledger.1.lock().unwrap().clone();
        (events, asked)
    }

    #[tokio::test]
    async fn a_granted_call_is_made_and_then_settled() {
        let (events, asked) = call_a_tool(Grant::Reserved(vec![Resource::ToolCalls])).await;
        assert!(events.iter().any(|event| matches!(event, JournalEvent::EffectDone { .. })), "{events:?}");
        assert_eq!(asked, ["reserve n/0/tool {ToolCalls: 1}", "settle n/0/tool {ToolCalls: 1}"]);
    }

    #[tokio::test]
    async fn a_call_that_no_budget_bounds_is_made_and_not_settled() {
        let (events, asked) = call_a_tool(Grant::Unbounded).await;
        assert!(events.iter().any(|event| matches!(event, JournalEvent::EffectDone { .. })), "{events:?}");
        assert_eq!(asked, ["reserve n/0/tool {ToolCalls: 1}"]);
    }

    #[tokio::test]
    async fn a_refused_call_is_not_made_and_its_node_waits_for_the_budget() {
        let (events, asked) = call_a_tool(Grant::Refused { resets_in: None }).await;
        let waits = |event: &JournalEvent| {
            matches!(event, JournalEvent::Waiting { on: WaitingFor::BudgetExceeded, until: None, .. })
        };
        assert!(events.iter().any(waits), "{events:?}");
        assert!(!events.iter().any(|event| matches!(event, JournalEvent::EffectStarted(_))), "{events:?}");
        assert!(asked.iter().all(|asked| asked.starts_with("reserve n/0/tool ")), "{asked:?}");
    }
}
