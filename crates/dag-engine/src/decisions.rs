//! The port to people's decisions about nodes that wait for approval.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::{NodeId, RunId};

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
