//! Permits of nodes: how many attempts of a node execute at once in all runs, on all instances.
//!
//! The store counts the permits of each key. A node that gets none waits in line, and so may its run; the store wakes the
//! run when it gives the node its permit. The checkpoint that records the end of the attempt gives the permit back. A node
//! that is not to wait is skipped instead.

use std::sync::Arc;

use async_trait::async_trait;
use gathering_domain::{Digest, FailureKind, NodeId, PipelineId};
use tokio_util::task::TaskTracker;

use crate::children::retry_while_unavailable;
use crate::journal::NodeFailure;
use crate::store::{Claim, StoreError};

/// Whose runs share the permits of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PermitScope {
    /// Those of a pipeline, whatever their version.
    Pipeline(PipelineId),
    /// Those of this graph: what a `map` does with each item.
    Graph(Digest),
}

/// What a node asks for before an attempt executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePermit {
    /// The claim of the run.
    pub claim: Claim,
    /// The node.
    pub node: NodeId,
    /// Whose runs it shares the permits with.
    pub scope: PermitScope,
    /// Which of them are counted together.
    pub key: String,
    /// How many permits there are: those that ask last say it.
    pub limit: u32,
    /// Whether it stands in line where there is none.
    pub waits: bool,
}

/// The store of permits. A node of a run has at most one, until a checkpoint gives it back or the run ends.
#[async_trait]
pub trait NodePermits: Send + Sync + 'static {
    /// Asks for the permit; answers whether the node has it. A node without it that waits stands in line from then on, and
    /// its run is woken when it gets the permit. One that does not wait leaves nothing behind, and gets no permit while
    /// others wait for one. Repeats: safe.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], or [`StoreError::ClaimLost`].
    async fn ask(&self, permit: &NodePermit) -> Result<bool, StoreError>;
}

/// What the attempts of one drive ask for.
#[derive(Clone)]
pub(crate) struct Asking {
    store: Arc<dyn NodePermits>,
    /// The questions under way. The release of the run waits for them: one that is answered later would leave a permit to a
    /// run that is gone.
    under_way: TaskTracker,
}

impl Asking {
    pub(crate) fn of(store: Arc<dyn NodePermits>) -> Self {
        Self { store, under_way: TaskTracker::new() }
    }

    /// Whether the node has its permit. Waits while the store is away.
    ///
    /// Cancellation: safe; a question under way is still asked.
    pub(crate) async fn ask(&self, permit: &NodePermit) -> Result<bool, NodeFailure> {
        let once = || async {
            let (store, permit) = (Arc::clone(&self.store), permit.clone());
            let asked = self.under_way.spawn(async move { store.ask(&permit).await });
            asked.await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.into())))
        };
        retry_while_unavailable(once).await.map_err(|error| {
            NodeFailure::retryable(
                FailureKind::Store,
                format!("cannot ask for the permit of the node: {error}"),
            )
        })
    }

    /// Waits for the questions under way.
    pub(crate) async fn settle(&self) {
        self.under_way.close();
        self.under_way.wait().await;
    }
}
