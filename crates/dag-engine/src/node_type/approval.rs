//! `approval {message, approvers?, timeout_seconds?}`: waits for a person's decision and holds nothing while it does.
//!
//! An approved node's output is `{approved, comment, decided_by, decided_at}`. A denied node fails as `denied`, a node without
//! a decision in time as `timed_out`.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use gathering_domain::{Email, FailureKind, WaitingFor};
use serde_json::{Value, json};

use super::{Attempt, NodeExecutor, NodeSpec, Outcome, PollOutcome, Wait};
use crate::children::retry_while_unavailable;
use crate::decisions::{Decision, Decisions};
use crate::fields::{Fields, Shape};
use crate::journal::NodeFailure;

/// The spec of `approval`.
pub struct ApprovalSpec;

/// The executor of `approval`.
pub struct Approval {
    decisions: Arc<dyn Decisions>,
}

impl Approval {
    /// An executor that finds decisions in `decisions`.
    pub fn new(decisions: Arc<dyn Decisions>) -> Self {
        Self { decisions }
    }

    async fn find(&self, attempt: &Attempt) -> Result<Option<Outcome>, NodeFailure> {
        let found =
            retry_while_unavailable(|| self.decisions.find_decision(attempt.run, &attempt.node)).await?;
        found.map(outcome).transpose()
    }
}

fn outcome(decision: Decision) -> Result<Outcome, NodeFailure> {
    if decision.approve {
        return Ok(Outcome::Done(json!({
            "approved": true,
            "comment": decision.comment,
            "decided_by": decision.decided_by,
            "decided_at": decision.decided_at,
        })));
    }
    let comment = decision.comment.map(|comment| format!(": {comment}")).unwrap_or_default();
    Err(NodeFailure::permanent(FailureKind::Denied, format!("denied by {}{comment}", decision.decided_by)))
}

impl NodeSpec for ApprovalSpec {
    fn check(&self, config: &mut Fields<'_>) {
        config.required("message", Shape::Text);
        // A decision is checked against the list when it is made, so the list must not depend on the run.
        if let Some(approvers) = config.optional("approvers", Shape::Array) {
            let words = approvers.as_array().map(Vec::as_slice).unwrap_or_default();
            let is_address = |word: &Value| {
                let word = word.as_str().filter(|word| !crate::template::is_computed(word));
                word.is_some_and(|word| word.parse::<Email>().is_ok())
            };
            if words.is_empty() || !words.iter().all(is_address) {
                config.problem("approvers", "must be a list of e-mail addresses without expressions");
            }
        }
        config.optional_seconds("timeout_seconds");
    }

    // A person who approves sees the input of the run beside the message: the approval is about both.
    fn reads_input(&self) -> bool {
        true
    }

    fn output_fields(&self, _config: &Value) -> Option<&'static [&'static str]> {
        Some(&["approved", "comment", "decided_by", "decided_at"])
    }
}

#[async_trait]
impl NodeExecutor for Approval {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        if let Some(outcome) = self.find(&attempt).await? {
            return Ok(outcome);
        }
        if attempt.woken {
            return Err(NodeFailure::permanent(FailureKind::TimedOut, "no decision was made in time"));
        }
        let limit = attempt.config["timeout_seconds"].as_f64();
        #[expect(clippy::cast_possible_truncation, reason = "validation bounds it by ten years")]
        let until = limit.map(|seconds| attempt.now + TimeDelta::milliseconds((seconds * 1000.0) as i64));
        Ok(Outcome::Wait(Wait { on: WaitingFor::Approval, until }))
    }

    async fn poll(&self, attempt: Attempt) -> Result<PollOutcome, NodeFailure> {
        Ok(self.find(&attempt).await?.into())
    }
}
