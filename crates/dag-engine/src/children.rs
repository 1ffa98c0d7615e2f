//! The port to child runs: a node starts them and usually waits for them.
//!
//! A child is a run like any other: any instance may claim it, and it survives its parent's instance. Two things tie it
//! to its parent. Its id derives from the node that starts it, so a repeated start after a crash starts nothing. And
//! the end of the parent cancels it, unless it is detached.
//!
//! A node that starts again, because its attempt failed or its run is rerun, starts its children again. A child takes up
//! the work of the earlier one, so that nothing that succeeded, and would be the same again, is repeated.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::{Digest, FailureKind, NodeId, PermitRequest, PipelineId, RunId, RunState};
use serde_json::Value;

use crate::journal::NodeFailure;
use crate::node_type::Attempt;
use crate::store::{RunError, StoreError};
use crate::store_retries::StoreRetries;

/// How deep runs may start runs, detached ones included.
pub const MAX_DEPTH: u32 = 32;

/// The node that starts child runs, and its attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Parent {
    /// The run.
    pub run: RunId,
    /// Its node.
    pub node: NodeId,
    /// How many attempts of the node failed before: each had its own children.
    pub round: u32,
}

impl Parent {
    /// This attempt, as the parent of the runs that it starts.
    pub fn of(attempt: &Attempt) -> Self {
        Self { run: attempt.run, node: attempt.node.clone(), round: attempt.failures }
    }

    /// Why this attempt cancels its children, as [`ClaimedRun::cancel_reason`](crate::ClaimedRun::cancel_reason) says it.
    pub fn cancel_reason(&self) -> String {
        format!("node `{}` of run {} no longer waits for it", self.node, self.run)
    }

    /// The id of one of its children: always the same, and sorted beside the parent's.
    pub fn child(&self, item: u32) -> RunId {
        self.run.derived(&format!("{}/{}/{item}", self.node, self.round))
    }
}

/// A child run to start.
#[derive(Debug, Clone, PartialEq)]
pub struct NewChild {
    /// Which of its parent's children it is, from 0.
    pub item: u32,
    /// Its definition, stored before.
    pub graph: Digest,
    /// Its input.
    pub input: Value,
    /// Its pipeline and version, if it has one.
    pub pipeline: Option<(PipelineId, i32)>,
    /// Its deadline; the parent's applies as well, unless the child is detached.
    pub deadline_at: Option<DateTime<Utc>>,
    /// What it asks for before it starts, if its pipeline limits its runs.
    pub permit: Option<PermitRequest>,
}

/// How children are tied to their parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildKind {
    /// A run that the parent waits for; it ends when its parent ends.
    Awaited,
    /// As [`ChildKind::Awaited`], and the child is an item of a list: its input is `{item, index, input}`.
    Item,
    /// Detached: the parent does not wait, and neither its end nor its deadline matters.
    Detached,
}

/// A summary of the awaited children of one parent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChildSummary {
    /// How many were started. Items are started in their order.
    pub n_started: u32,
    /// How many of them have not ended.
    pub n_unfinished: u32,
    /// How many of them ended and did not succeed.
    pub n_unsuccessful: u32,
    /// The lowest item that failed; if none failed, the lowest that was cancelled, as a failure may have caused the
    /// cancellation.
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

/// What became of one awaited child.
#[derive(Debug, Clone, PartialEq)]
pub enum ChildState {
    /// It has not ended.
    Active,
    /// It succeeded with this output.
    Succeeded(Value),
    /// It ended in another way.
    Unsuccessful(Unsuccessful),
}

/// Why children were not started.
#[derive(Debug, thiserror::Error)]
pub enum StartChildrenError {
    /// The parent is as deep as runs may be.
    #[error("runs start runs at most {MAX_DEPTH} deep")]
    TooDeep,
    /// The parent is no longer driven, so it may not start runs.
    #[error("the run that starts others has ended")]
    ParentEnded,
    /// An earlier child, whose work one of these would take up, has not ended yet: repeat soon.
    #[error("an earlier child run has not ended yet")]
    EarlierActive,
    /// The store failed; the children may or may not be started, and repeating is safe.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The store of child runs.
#[async_trait]
pub trait ChildRuns: Send + Sync + 'static {
    /// Stores a definition under its digest. Repeats: safe.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; nothing was stored.
    async fn ensure_graph(&self, digest: Digest, definition: &Value) -> Result<(), StoreError>;

    /// Accepts these runs, in the parent's project and with its priority; an existing one stays as it is. The ids are
    /// [`Parent::child`]. All or none.
    ///
    /// A child takes up the work of an earlier one ([`ClaimedRun::takes_up`]) that was claimed, is the same item of the
    /// same node, and was started in an earlier round or in one of the runs `earlier`, the latest first. One with the same
    /// graph and input is preferred, then one that succeeded. A detached child takes up nothing.
    ///
    /// [`ClaimedRun::takes_up`]: crate::ClaimedRun::takes_up
    ///
    /// # Errors
    /// [`StartChildrenError`]; unless it says otherwise nothing was started.
    async fn start(
        &self,
        parent: &Parent,
        kind: ChildKind,
        children: Vec<NewChild>,
        earlier: &[RunId],
    ) -> Result<(), StartChildrenError>;

    /// Summarizes the awaited children.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn summarize(&self, parent: &Parent) -> Result<ChildSummary, StoreError>;

    /// The awaited children that ended and did not succeed, in their order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn list_unsuccessful(&self, parent: &Parent, limit: usize)
    -> Result<Vec<Unsuccessful>, StoreError>;

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

    /// The awaited child with this item; `None` if it was not started. Nodes that start children one by one, in any order,
    /// ask this instead of a summary.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn find(&self, parent: &Parent, item: u32) -> Result<Option<ChildState>, StoreError>;

    /// Requests cancellation of the awaited children that have not ended. Repeats: safe.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; repeat.
    async fn cancel(&self, parent: &Parent) -> Result<(), StoreError>;
}

impl Unsuccessful {
    /// The failure of the node that waited for it.
    pub fn failure(&self) -> NodeFailure {
        let why = self.error.as_ref().map_or("no reason is recorded", |error| error.message.as_str());
        let message = format!("run {} (item {}) is {}: {why}", self.run, self.item, self.state);
        let details = self.error.as_ref().and_then(|error| error.details.clone()).map(Box::new);
        let failure = if self.state == RunState::Cancelled {
            NodeFailure::permanent(FailureKind::ChildCancelled, message)
        } else {
            NodeFailure::retryable(FailureKind::ChildFailed, message)
        };
        NodeFailure { details, ..failure }
    }
}

impl From<StartChildrenError> for NodeFailure {
    fn from(error: StartChildrenError) -> Self {
        let kind = match &error {
            StartChildrenError::TooDeep => FailureKind::TooDeep,
            StartChildrenError::ParentEnded | StartChildrenError::EarlierActive => FailureKind::Interrupted,
            StartChildrenError::Store(_) => FailureKind::Store,
        };
        NodeFailure::permanent(kind, error.to_string())
    }
}

/// The output of an awaited child that is the only one; `None` while it has not ended.
///
/// Cancellation: safe. Waits while the store is away.
///
/// # Errors
/// [`NodeFailure`] if it did not succeed.
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

/// Cancels the children of the attempt that failed before this one: an attempt that was dropped could not do so. A node
/// that starts runs calls this first. The end of the run cancels what is left then.
///
/// Cancellation: safe. Waits while the store is away.
///
/// # Errors
/// Those of the store.
pub async fn end_earlier_round(children: &dyn ChildRuns, attempt: &Attempt) -> Result<(), NodeFailure> {
    let Some(round) = attempt.failures.checked_sub(1) else { return Ok(()) };
    let earlier = Parent { round, ..Parent::of(attempt) };
    retry_while_unavailable(|| children.cancel(&earlier)).await
}

/// How long a start waits before it asks again whether the earlier children have ended.
pub const EARLIER_CHILDREN_PAUSE: Duration = Duration::from_millis(50);

/// Starts children ([`ChildRuns::start`]), once the earlier ones have ended whose work they take up: those were cancelled
/// before, and end soon.
///
/// Cancellation: safe. Waits while the store is away.
///
/// # Errors
/// A refusal, or those of the store.
pub async fn start_children(
    children: &dyn ChildRuns,
    parent: &Parent,
    kind: ChildKind,
    new: Vec<NewChild>,
    earlier: &[RunId],
) -> Result<(), NodeFailure> {
    loop {
        // Only a store that failed is asked again; any other refusal is the answer.
        let started = retry_while_unavailable(async || {
            match children.start(parent, kind, new.clone(), earlier).await {
                Err(StartChildrenError::Store(error)) => Err(error),
                answered => Ok(answered),
            }
        });
        match started.await? {
            Err(StartChildrenError::EarlierActive) => tokio::time::sleep(EARLIER_CHILDREN_PAUSE).await,
            answered => return Ok(answered?),
        }
    }
}

/// Asks the store until it answers: an outage must not fail a node. Warns once after five seconds.
///
/// It ends with the attempt: when the node times out, the run's deadline passes or a drain's grace period is over, the
/// engine drops it.
///
/// Cancellation: as safe as one question.
///
/// # Errors
/// What the store holds is corrupt or missing, or the store gave nothing but faults for a minute.
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
        again.map_err(|error| NodeFailure::permanent(FailureKind::Store, error.to_string()))?;
    }
}
