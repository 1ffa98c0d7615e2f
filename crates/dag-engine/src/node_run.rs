//! The state of one node of a run: a fold over its records in the journal.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use chrono::{DateTime, Utc};
use gathering_domain::{EffectClass, FailureKind, NodeId, RunId, WaitingFor};
use serde_json::Value;

use crate::effects::RecordedEffect;
use crate::journal::{EffectEnd, JournalEntry, JournalEvent, NodeFailure};

/// The state of a node in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Not every edge to it is resolved, or it waits for room.
    #[default]
    Pending,
    /// An attempt executes.
    Running,
    /// The last attempt failed; the next one begins after the back-off.
    Retrying,
    /// It waits for something and holds nothing.
    Waiting,
    /// It has an output.
    Succeeded,
    /// It failed and is not retried.
    Failed,
    /// No edge to it was taken, or it found no permit.
    Skipped,
    /// The run ended before it did.
    Cancelled,
    /// Its last attempt took too long.
    TimedOut,
}

impl NodeState {
    /// Its name in expressions and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            NodeState::Pending => "pending",
            NodeState::Running => "running",
            NodeState::Retrying => "retrying",
            NodeState::Waiting => "waiting",
            NodeState::Succeeded => "succeeded",
            NodeState::Failed => "failed",
            NodeState::Skipped => "skipped",
            NodeState::Cancelled => "cancelled",
            NodeState::TimedOut => "timed_out",
        }
    }

    /// Whether the edges out of the node can be resolved: nothing more will happen to it.
    pub const fn is_resolved(self) -> bool {
        matches!(
            self,
            NodeState::Succeeded
                | NodeState::Failed
                | NodeState::Skipped
                | NodeState::Cancelled
                | NodeState::TimedOut
        )
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A record that cannot follow the journal before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a node that is {state} cannot be changed by `{event}`")]
pub struct IllegalRecord {
    state: NodeState,
    event: &'static str,
}

/// What happened to one node so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeRun {
    /// Its state.
    pub state: NodeState,
    /// The last attempt that began, from 1; 0 before the first.
    pub attempt: i32,
    /// Attempts that failed; interrupted ones do not count.
    pub failures: u32,
    /// Its output, once it succeeded.
    pub output: Option<Value>,
    /// Why the last attempt failed, or the node was cancelled.
    pub failure: Option<NodeFailure>,
    /// When the next attempt begins or the wait ends at the latest.
    pub until: Option<DateTime<Utc>>,
    /// Its wait reason, while it waits.
    pub waiting_for: Option<WaitingFor>,
    /// Whether its wait is over, so that the next call of it can tell.
    pub woken: bool,
    /// When the last attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was resolved.
    pub ended_at: Option<DateTime<Utc>>,
    /// Whether its time is over when its wait ends at `until`.
    pub(crate) times_out: bool,
    /// Whether the attempt has waited for its budget and goes on.
    pub(crate) goes_on: bool,
    pub(crate) effects: BTreeMap<String, RecordedEffect>,
    /// The runs in which the node was begun before, the latest first.
    pub(crate) earlier_runs: Vec<RunId>,
}

impl NodeRun {
    /// Applies one record, live and on replay alike. `attempt` and `at` are those of the record.
    ///
    /// # Errors
    /// [`IllegalRecord`] if it cannot happen in this state; nothing changed.
    pub fn apply(
        &mut self,
        event: &JournalEvent,
        attempt: i32,
        at: DateTime<Utc>,
    ) -> Result<(), IllegalRecord> {
        use NodeState::{Pending, Retrying, Running, Waiting};
        match (self.state, event) {
            // Running to Started: the previous attempt was interrupted and is repeated.
            (Pending | Retrying | Running, JournalEvent::Started) => {
                // A finished wait belonged to the attempt that failed since.
                self.woken &= self.state == Running;
                self.times_out &= self.state == Running;
                self.goes_on = false;
                self.state = Running;
                self.attempt = attempt;
                self.until = None;
                self.started_at = Some(at);
            }
            (Running, JournalEvent::Succeeded { output }) => {
                self.output = Some(output.clone());
                self.failure = None;
                self.resolve(NodeState::Succeeded, at);
            }
            (Running, JournalEvent::Failed(failure)) => {
                self.failure = Some(failure.clone());
                self.failures += 1;
                let timed_out = failure.kind == FailureKind::TimedOut;
                self.resolve(if timed_out { NodeState::TimedOut } else { NodeState::Failed }, at);
            }
            // Running: it found no permit, and was not to wait for one.
            (Pending | Running, JournalEvent::Skipped) => self.resolve(NodeState::Skipped, at),
            (Running, JournalEvent::Retrying { failure, until }) => {
                self.state = Retrying;
                self.failure = Some(failure.clone());
                self.failures += 1;
                self.until = Some(*until);
            }
            (Running, JournalEvent::Waiting { on, until, times_out }) => {
                self.state = Waiting;
                self.waiting_for = Some(*on);
                self.until = *until;
                self.times_out = *times_out;
            }
            (Waiting, JournalEvent::Woken) => {
                self.state = Running;
                self.goes_on = self.waiting_for == Some(WaitingFor::BudgetExceeded);
                if self.waiting_for == Some(WaitingFor::Concurrency) {
                    // With its permit the attempt begins; only then does its time run.
                    self.started_at = Some(at);
                } else {
                    self.woken = true;
                }
                self.waiting_for = None;
                self.until = None;
            }
            (Running | Retrying | Waiting, JournalEvent::Cancelled(failure)) => {
                self.failure = Some(failure.clone());
                self.resolve(NodeState::Cancelled, at);
            }
            (Running, JournalEvent::EffectStarted(start)) => {
                let effect = RecordedEffect::begin(start.clone(), self.effects.get(&start.key));
                self.effects.insert(start.key.clone(), effect);
            }
            (Running, JournalEvent::EffectDone { key, result }) => {
                self.end_effect(key, EffectEnd::Done { result: result.clone() });
            }
            (Running, JournalEvent::EffectFailed { key, may_have_taken_place, .. }) => {
                self.end_effect(key, EffectEnd::Failed { may_have_taken_place: *may_have_taken_place });
            }
            (Running, JournalEvent::EffectUnknown { key, .. }) => self.end_effect(key, EffectEnd::Unknown),
            (Pending, JournalEvent::Decided { .. }) => {}
            (Pending, JournalEvent::Reused(reuse)) => {
                let effects = reuse.effects.iter();
                self.effects
                    .extend(effects.map(|effect| (effect.start.key.clone(), RecordedEffect::reused(effect))));
                self.earlier_runs.clone_from(&reuse.from_runs);
            }
            (state, event) => return Err(IllegalRecord { state, event: event.kind() }),
        }
        Ok(())
    }

    /// Whether nobody knows how the node ended, in a run that has ended: it failed because of that, or an effect of it
    /// that changes something may have taken place. Then a person decides.
    pub fn has_unknown_end(&self) -> bool {
        let failed_so = self.failure.as_ref().is_some_and(|failure| {
            matches!(failure.kind, FailureKind::EffectUnknown | FailureKind::Interrupted)
        });
        let has_unknown_effect = self
            .effects
            .values()
            .any(|effect| effect.end == EffectEnd::Unknown && effect.start.class != EffectClass::Pure);
        match self.state {
            NodeState::Succeeded | NodeState::Skipped => false,
            NodeState::Failed => failed_so || has_unknown_effect,
            _ => has_unknown_effect,
        }
    }

    /// Whether the node was to run, but found no permit. Another time it may find one.
    pub fn was_skipped_at_its_limit(&self) -> bool {
        self.state == NodeState::Skipped && self.attempt > 0
    }

    fn resolve(&mut self, state: NodeState, at: DateTime<Utc>) {
        self.state = state;
        self.waiting_for = None;
        self.until = None;
        self.ended_at = Some(at);
    }

    fn end_effect(&mut self, key: &str, end: EffectEnd) {
        if let Some(effect) = self.effects.get_mut(key) {
            effect.finish(end);
        }
    }

    /// Every node that the journal names, by id.
    ///
    /// # Errors
    /// [`IllegalRecord`] if the entries are not those of one run in their order.
    pub fn fold<'a>(
        entries: impl IntoIterator<Item = &'a JournalEntry>,
    ) -> Result<HashMap<NodeId, NodeRun>, IllegalRecord> {
        let mut nodes: HashMap<NodeId, NodeRun> = HashMap::new();
        for entry in entries {
            if let Some(node) = &entry.record.node {
                nodes.entry(node.clone()).or_default().apply(
                    &entry.record.event,
                    entry.record.attempt,
                    entry.at,
                )?;
            }
        }
        Ok(nodes)
    }
}
