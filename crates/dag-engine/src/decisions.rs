//! People's decisions: about nodes that wait for approval, with the port to them, and about nodes whose end is unknown.

use std::collections::HashMap;
use std::str::FromStr;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::{NodeId, RunId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::StoreError;

/// A person's decision. The first one about a node of a run is final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether the node may go on.
    pub approve: bool,
    /// Their comment.
    pub comment: Option<String>,
    /// The name of the person who decided.
    pub decided_by: String,
    /// When, in UTC.
    pub decided_at: DateTime<Utc>,
}

/// The store of decisions.
#[async_trait]
pub trait Decisions: Send + Sync + 'static {
    /// The decision about this node of this run, if there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn find_decision(&self, run: RunId, node: &NodeId) -> Result<Option<Decision>, StoreError>;
}

/// What a person decided about a node of a run that has ended, where nobody knew how the node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecidedOutcome {
    /// It succeeded: a rerun keeps it, with the output that they gave.
    Succeeded,
    /// It is to be repeated: what may have taken place did not.
    Repeat,
    /// It failed: a rerun keeps it as failed, and its failure edges are taken.
    Failed,
}

impl DecidedOutcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Succeeded, Self::Repeat, Self::Failed];

    /// Its name in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Repeat => "repeat",
            Self::Failed => "failed",
        }
    }
}

/// A text that names no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an outcome is `succeeded`, `repeat` or `failed`")]
pub struct UnknownOutcome;

impl FromStr for DecidedOutcome {
    type Err = UnknownOutcome;

    fn from_str(text: &str) -> Result<Self, UnknownOutcome> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or(UnknownOutcome)
    }
}

/// A person's decision about a node whose end is unknown. The first one about a node of a run is final.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeDecision {
    /// What they decided.
    pub outcome: DecidedOutcome,
    /// The node's output, if it succeeded.
    pub output: Option<Value>,
    /// Why they decided so.
    pub reason: String,
    /// The name of the person who decided.
    pub decided_by: String,
    /// When, in UTC.
    pub decided_at: DateTime<Utc>,
}

/// The decisions about the nodes of one run whose end is unknown.
pub type NodeDecisions = HashMap<NodeId, NodeDecision>;
