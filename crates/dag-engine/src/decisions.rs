//! The port to what people decide about nodes that wait for them.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::{NodeId, RunId};

use crate::store::StoreError;

/// What somebody decided. The first decision about a node of a run is the only one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether the node may go on.
    pub approve: bool,
    /// What they said to it.
    pub comment: Option<String>,
    /// Who decided, as people know them.
    pub decided_by: String,
    /// When, in UTC.
    pub decided_at: DateTime<Utc>,
}

/// Where decisions are.
#[async_trait]
pub trait Decisions: Send + Sync + 'static {
    /// The decision about this node of this run, if there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn find_decision(&self, run: RunId, node: &NodeId) -> Result<Option<Decision>, StoreError>;
}
