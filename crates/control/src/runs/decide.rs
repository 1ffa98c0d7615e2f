//! Deciding approvals: who may, about which nodes, and only once.

use gathering_auth::Caller;
use gathering_domain::{NodeId, RunId, UserId};

use super::nodes::NodeRuns;
use super::{Run, RunControl};
use crate::access::right;
use crate::{Conflict, ControlError};

/// What a person decides about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decide {
    /// Whether the node may go on; else it fails as `denied`.
    pub approve: bool,
    /// What they say about it; the node hands it on. Without NUL, which not every store can keep.
    pub comment: Option<String>,
}

/// A decision that is to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDecision {
    /// Whether the node may go on.
    pub approve: bool,
    /// What the person says about it.
    pub comment: Option<String>,
    /// The person's account.
    pub decided_by: UserId,
    /// The person's e-mail, which outlives the account.
    pub decided_as: String,
}

/// What became of a decision.
#[derive(Debug, Clone, PartialEq)]
pub enum DecisionOutcome {
    /// It stands, and the run takes it up.
    Recorded(Box<Run>),
    /// Another decision was recorded before, and stands.
    DecidedBefore,
    /// The run has ended.
    RunEnded,
}

impl RunControl {
    /// Decides about a node that waits for an approval, and answers with the run as it stands then. The first decision
    /// is final.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] for a run or node that is absent, [`ControlError::Forbidden`];
    /// [`ControlError::NotApprover`]; [`Conflict::NotWaitingForApproval`], [`Conflict::AlreadyDecided`] or
    /// [`Conflict::RunEnded`]. After [`ControlError::Unavailable`] it is unknown whether the decision is recorded; a
    /// repeat is then answered with [`Conflict::AlreadyDecided`].
    pub async fn decide(
        &self,
        caller: &Caller,
        run: RunId,
        node: &NodeId,
        decide: Decide,
    ) -> Result<Run, ControlError> {
        let run = self.find::<right::Run>(caller, run).await?;
        let summary = self.graphs.summarize(run.graph).await?;
        if !summary.has(node) {
            return Err(ControlError::NotFound);
        }
        let email = self.store.find_email(caller).await?.ok_or(ControlError::Revoked)?;
        if !summary.may_decide(node, &email) {
            return Err(ControlError::NotApprover);
        }
        let is_waiting = !run.state.is_terminal()
            && NodeRuns::load(&**self.graphs.store(), run.id).await?.is_waiting_for_approval(node);
        if !is_waiting {
            return Err(Conflict::NotWaitingForApproval(node.clone()).into());
        }
        let decision = NewDecision {
            approve: decide.approve,
            comment: decide.comment,
            decided_by: caller.user,
            decided_as: email.to_string(),
        };
        match self.store.decide_node(&run, node, &decision).await? {
            DecisionOutcome::Recorded(decided) => {
                tracing::info!(run.id = %run.id, node.id = %node, "node {node} of run {} decided", run.id);
                Ok(*decided)
            }
            DecisionOutcome::DecidedBefore => Err(Conflict::AlreadyDecided(node.clone()).into()),
            DecisionOutcome::RunEnded => Err(Conflict::RunEnded.into()),
        }
    }
}
