//! Deciding how a node ended, where the run has ended and nobody knows: once, for every rerun.

use gathering_auth::Caller;
use gathering_dag_engine::DecidedOutcome;
use gathering_domain::{NodeId, RunId, UserId};
use serde_json::Value;

use super::nodes::NodeRuns;
use super::{Run, RunControl};
use crate::access::right;
use crate::{Conflict, ControlError};

/// What a person decides about a node of a run that has ended. The run stays as it ended; a rerun applies it.
#[derive(Debug, Clone, PartialEq)]
pub struct DecideOutcome {
    /// How the node counts from then on.
    pub outcome: DecidedOutcome,
    /// Its output, if it succeeded; `null` if absent. At most as deep and large as any output.
    pub output: Option<Value>,
    /// Why they decide so. Without NUL, which not every store can keep.
    pub reason: String,
}

/// A decision about a node whose end is unknown, which is to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct NewOutcome {
    /// What was decided.
    pub outcome: DecidedOutcome,
    /// The node's output, exactly if it succeeded.
    pub output: Option<Value>,
    /// Why.
    pub reason: String,
    /// The person's account.
    pub decided_by: UserId,
    /// The person's e-mail, which outlives the account.
    pub decided_as: String,
}

impl RunControl {
    /// Decides about a node whose end is unknown, of a run that has ended, and answers with that run, which is
    /// unchanged. The first decision is final.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] for a run or node that is absent, [`ControlError::Forbidden`];
    /// [`Conflict::RunNotEnded`], [`Conflict::EndKnown`], [`Conflict::JournalPruned`] or [`Conflict::AlreadyDecided`].
    /// After [`ControlError::Unavailable`] it is unknown whether the decision is recorded; a repeat is then answered with
    /// [`Conflict::AlreadyDecided`].
    pub async fn decide_outcome(
        &self,
        caller: &Caller,
        run: RunId,
        node: &NodeId,
        decide: DecideOutcome,
    ) -> Result<Run, ControlError> {
        let run = self.find::<right::Run>(caller, run).await?;
        if !self.graphs.summarize(run.graph).await?.has(node) {
            return Err(ControlError::NotFound);
        }
        if !run.state.is_terminal() {
            return Err(Conflict::RunNotEnded.into());
        }
        let mut nodes = NodeRuns::load(&**self.graphs.store(), run.id).await?;
        if nodes.is_empty() && run.started_at.is_some() {
            return Err(Conflict::JournalPruned.into());
        }
        if !nodes.take(node).is_some_and(|node| node.has_unknown_end()) {
            return Err(Conflict::EndKnown(node.clone()).into());
        }
        let email = self.store.find_email(caller).await?.ok_or(ControlError::Revoked)?;
        let DecideOutcome { outcome, output, reason } = decide;
        let has_succeeded = outcome == DecidedOutcome::Succeeded;
        let decision = NewOutcome {
            outcome,
            output: has_succeeded.then(|| output.unwrap_or_default()),
            reason,
            decided_by: caller.user,
            decided_as: email.to_string(),
        };
        let decided = self.store.decide_outcome(&run, node, &decision).await?;
        let decided = decided.ok_or_else(|| Conflict::AlreadyDecided(node.clone()))?;
        tracing::info!(run.id = %run.id, node.id = %node, "the end of node {node} of run {} decided", run.id);
        Ok(decided)
    }
}
