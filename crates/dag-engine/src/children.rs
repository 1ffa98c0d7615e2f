//! The port to runs that a node starts and, as a rule, waits for.
//!
//! A child is a run like any other: whoever is free claims it, and it survives its parent's instance. What binds it is
//! its id, derived from the node that starts it, so that starting it again after a crash starts nothing; and the end of
//! its parent, which asks for its own.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::{Digest, NodeId, PipelineId, RunId, RunState};
use serde_json::Value;

use crate::journal::NodeFailure;
use crate::node_type::Attempt;
use crate::store::{RunError, StoreError};
use crate::store_retries::StoreRetries;

/// How deep runs may start runs, those that are let go included.
pub const MAX_DEPTH: u32 = 32;

/// The node of a run that starts others, and its how many-eth round of doing so this is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Parent {
    /// The run.
    pub run: RunId,
    /// Its node.
    pub node: NodeId,
    /// How many attempts of the node failed before: each of them had children of its own.
    pub round: u32,
}

impl Parent {
    /// The parent that this attempt is to the runs that it starts.
    pub fn of(attempt: &Attempt) -> Self {
        Self { run: attempt.run, node: attempt.node.clone(), round: attempt.failures }
    }

    /// The id of one of its children: always the same, and sorted beside the parent's.
    pub fn child(&self, item: u32) -> RunId {
        self.run.derived(&format!("{}/{}/{item}", self.node, self.round))
    }
}

/// A run that is to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct NewChild {
    /// Which of its parent's children it is, from 0.
    pub item: u32,
    /// Its definition, stored before.
    pub graph: Digest,
    /// What it is started with.
    pub input: Value,
    /// The pipeline and its version, if it is a run of one.
    pub pipeline: Option<(PipelineId, i32)>,
    /// When it must have ended; its parent's deadline holds as well, unless it is let go.
    pub deadline_at: Option<DateTime<Utc>>,
}

/// What children are to their parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildKind {
    /// A run of its own, which the parent waits for: each ends with the other.
    Awaited,
    /// As [`ChildKind::Awaited`], and the child is an item of a list: its input is `{item, index, input}`.
    Item,
    /// Started and let go: the parent's end and its deadline are nothing to it.
    Detached,
}

/// How the awaited children of one parent stand.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChildSummary {
    /// How many were started. Items are started in their order.
    pub n_started: u32,
    /// How many of them have not ended.
    pub n_unfinished: u32,
    /// Of those that ended otherwise than well, the one with the lowest item; one that was cancelled only if no other
    /// failed, as it may have been cancelled because of that.
    pub unsuccessful: Option<Unsuccessful>,
}

/// A child that did not succeed.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsuccessful {
    /// Which run.
    pub run: RunId,
    /// Which of its parent's children.
    pub item: u32,
    /// How it ended.
    pub state: RunState,
    /// Why.
    pub error: Option<RunError>,
}

/// Why children were not started.
#[derive(Debug, thiserror::Error)]
pub enum StartChildrenError {
    /// The parent is as deep as runs may be.
    #[error("runs start runs at most {MAX_DEPTH} deep")]
    TooDeep,
    /// The parent is no longer driven, so nothing may be started in its name.
    #[error("the run that starts others has ended")]
    ParentEnded,
    /// The store did not take them; it is unknown whether they are started, and repeating is safe.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where the runs live that nodes start.
#[async_trait]
pub trait ChildRuns: Send + Sync + 'static {
    /// Stores a definition under its digest. Repeats: safe.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; nothing was stored.
    async fn ensure_graph(&self, digest: Digest, definition: &Value) -> Result<(), StoreError>;

    /// Accepts these runs, in the parent's project and with its priority; one that is there already stays as it is. The
    /// ids are [`Parent::child`]. All or none.
    ///
    /// # Errors
    /// [`StartChildrenError`]; unless it says otherwise nothing was started.
    async fn start(
        &self,
        parent: &Parent,
        kind: ChildKind,
        children: Vec<NewChild>,
    ) -> Result<(), StartChildrenError>;

    /// How the awaited children stand.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn summarize(&self, parent: &Parent) -> Result<ChildSummary, StoreError>;

    /// The outputs of the children that succeeded, from item `from` on, in their order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn load_outputs(
        &self,
        parent: &Parent,
        from: u32,
        limit: usize,
    ) -> Result<Vec<(u32, Value)>, StoreError>;

    /// Asks for the end of the awaited children that have not ended. Repeats: safe.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; repeat.
    async fn cancel(&self, parent: &Parent) -> Result<(), StoreError>;
}

impl Unsuccessful {
    /// What its end means to the node that waited for it.
    pub fn failure(&self) -> NodeFailure {
        let why = self.error.as_ref().map_or("no reason is recorded", |error| error.message.as_str());
        let message = format!("run {} (item {}) is {}: {why}", self.run, self.item, self.state);
        if self.state == RunState::Cancelled {
            NodeFailure::permanent("child_cancelled", message)
        } else {
            NodeFailure::retryable("child_failed", message)
        }
    }
}

impl From<StartChildrenError> for NodeFailure {
    fn from(error: StartChildrenError) -> Self {
        let kind = match &error {
            StartChildrenError::TooDeep => "too_deep",
            StartChildrenError::ParentEnded => "interrupted",
            StartChildrenError::Store(_) => "store",
        };
        NodeFailure::permanent(kind, error.to_string())
    }
}

/// The output of an awaited child that is the only one; `None` while it has not ended.
///
/// Cancellation: safe. Waits while the store is away.
///
/// # Errors
/// [`NodeFailure`] if it ended otherwise than well.
pub async fn poll_only_child(
    children: &dyn ChildRuns,
    parent: &Parent,
) -> Result<Option<Value>, NodeFailure> {
    let summary = retry_while_unavailable(|| children.summarize(parent)).await?;
    if let Some(unsuccessful) = &summary.unsuccessful {
        return Err(unsuccessful.failure());
    }
    if summary.n_started == 0 || summary.n_unfinished > 0 {
        return Ok(None);
    }
    let outputs = retry_while_unavailable(|| children.load_outputs(parent, 0, 1)).await?;
    Ok(outputs.into_iter().next().map(|(_, output)| output))
}

/// Asks for the end of the children of the attempt that failed before this one: if it was dropped, nobody has yet. A node
/// that starts runs calls it before it does. The end of the run asks for what is left then.
///
/// Cancellation: safe. Waits while the store is away.
///
/// # Errors
/// As the store has it.
pub async fn end_earlier_round(children: &dyn ChildRuns, attempt: &Attempt) -> Result<(), NodeFailure> {
    let Some(round) = attempt.failures.checked_sub(1) else { return Ok(()) };
    let earlier = Parent { round, ..Parent::of(attempt) };
    retry_while_unavailable(|| children.cancel(&earlier)).await
}

/// Asks the store until it answers: an outage is no failure of a node. Warns once after five seconds.
///
/// It ends with the attempt: when the node times out, the run's deadline passes or a drain's grace period is over, the
/// engine drops it.
///
/// Cancellation: as safe as one question.
///
/// # Errors
/// What the store holds is corrupt or missing, or the store failed five times in a row.
pub async fn retry_while_unavailable<T, Fut>(ask: impl Fn() -> Fut) -> Result<T, NodeFailure>
where
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut retries = StoreRetries::of("a node waits for it");
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let again = retries.pause(error).await;
        again.map_err(|error| NodeFailure::permanent("store", error.to_string()))?;
    }
}
