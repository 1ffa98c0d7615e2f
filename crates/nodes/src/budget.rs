//! The calls of an attempt as its budget sees them: paid before they are made, or not made.
//!
//! Owns when something is reserved, settled, or left as it is because nobody knows whether the call took place.

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

/// How long one that waits for the next period waits at least: the clocks of this host and of the database may disagree on
/// when that begins.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// What a call of a model costs that uses so many tokens.
pub(crate) fn cost_of_model_call(usage: Usage) -> Amounts {
    let tokens = i64::try_from(usage.total()).unwrap_or(i64::MAX).min(MAX_AMOUNT);
    Amounts::from([(Resource::Tokens, tokens), (Resource::ModelCalls, 1)])
}

/// What a call of a tool costs.
pub(crate) fn cost_of_tool_call() -> Amounts {
    Amounts::from([(Resource::ToolCalls, 1)])
}

/// Pays for the calls of one attempt, or of one look of it.
pub(crate) struct CallBudget<'a> {
    budgets: Option<&'a dyn BudgetLedger>,
    effects: &'a Effects,
    project: ProjectId,
    run: RunId,
    /// What the keys of its calls begin with: the node, and how many of its attempts failed. One that failed may have made
    /// calls whose answer never came; what they reserved stays, and their repeats are paid like any other.
    prefix: String,
    /// The keys that had something reserved when it was first asked.
    open: OnceCell<BTreeSet<String>>,
    is_looking: bool,
    has_more: AtomicBool,
}

/// Why an attempt does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallStop {
    /// It failed.
    #[error(transparent)]
    Failed(#[from] NodeFailure),
    /// A call cannot be paid, or was not to be made now.
    #[error("a call waits for its budget")]
    Waits {
        /// When its budget begins anew.
        until: Option<DateTime<Utc>>,
    },
}

impl CallStop {
    /// What becomes of the node.
    pub(crate) fn into_outcome(self) -> Result<Outcome, NodeFailure> {
        match self {
            CallStop::Failed(failure) => Err(failure),
            CallStop::Waits { until } => Ok(Outcome::Wait(Wait { on: WaitingFor::BudgetExceeded, until })),
        }
    }
}

impl<'a> CallBudget<'a> {
    /// Pays with `budgets`; without them everything is free.
    pub(crate) fn of(budgets: Option<&'a dyn BudgetLedger>, attempt: &'a Attempt) -> Self {
        Self {
            budgets,
            effects: &attempt.effects,
            project: attempt.project,
            run: attempt.run,
            prefix: format!("{}/{}", attempt.node, attempt.failures),
            open: OnceCell::new(),
            is_looking: false,
            has_more: AtomicBool::new(false),
        }
    }

    /// Makes no call: stops at the first that is not made yet, having tried to reserve what it costs.
    pub(crate) fn only_looking(self) -> Self {
        Self { is_looking: true, ..self }
    }

    /// What a look came to that was stopped like this.
    pub(crate) fn poll(&self, stopped: Option<CallStop>) -> Result<PollOutcome, NodeFailure> {
        match stopped {
            _ if self.has_more.load(Ordering::Relaxed) => Ok(PollOutcome::Resume),
            None => Ok(PollOutcome::Resume),
            Some(CallStop::Waits { .. }) => Ok(PollOutcome::Pending),
            Some(CallStop::Failed(failure)) => Err(failure),
        }
    }

    /// [`Effects::once`] for a call that costs `worst` at the worst, and then what `used` finds in its result. `act` is told
    /// of what there is a bound.
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
        let is_done = self.effects.is_done(key);
        let reserved =
            if is_done { self.find_open(&of_call).await? } else { self.reserve(&of_call, worst).await? };
        if self.is_looking && !is_done {
            self.has_more.store(true, Ordering::Relaxed);
            return Err(CallStop::Waits { until: None });
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
            // Nothing was reserved, or it stays: nobody knows what the call used.
            _ => {}
        }
        Ok(result?)
    }

    /// What is reserved for a call from now on; `None` if nothing bounds it.
    async fn reserve(&self, key: &str, worst: &Amounts) -> Result<Option<Vec<Resource>>, CallStop> {
        let Some(budgets) = self.budgets else { return Ok(None) };
        let call = self.call(key);
        let grant = retry_while_unavailable(|| budgets.reserve(call, worst));
        match grant.await? {
            Grant::Unbounded => Ok(None),
            Grant::Reserved(resources) => Ok(Some(resources)),
            Grant::Refused { resets_in } => {
                Err(CallStop::Waits { until: resets_in.map(|wait| Utc::now() + wait.max(SHORTEST_WAIT)) })
            }
        }
    }

    /// Whether something is still reserved for a call that is done: its instance died before it could settle it.
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
