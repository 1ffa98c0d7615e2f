//! The port to the store of runs, which are claimed, checkpointed and released. It uses the engine's words.
//!
//! `gathering-persistence` implements it on PostgreSQL, `testing::MemoryStore` in memory; one suite of cases runs
//! against both.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::{Digest, FailureKind, InstanceId, NodeId, ProjectId, RunEvent, RunId, WaitingFor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::decisions::NodeDecisions;
use crate::journal::{JournalEntry, Record, Seq};

mod claimed;

pub use claimed::{Claim, ClaimScope, ClaimedRun, GraphRole, JournalAtClaim, RunSource};

/// A run to accept.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// The project that owns it.
    pub project: ProjectId,
    /// Its definition, stored before.
    pub graph: Digest,
    /// Its input.
    pub input: Value,
    /// 1 to 10; higher is sooner.
    pub priority: i32,
    /// When it becomes available, or at its deadline if that comes first; absent: at once.
    pub available_at: Option<DateTime<Utc>>,
    /// How long it may take after it was accepted.
    pub timeout: Option<Duration>,
}

/// What the driver of one run writes to the journal, and how it releases the run, if it does: all or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The claim under which it is written.
    pub claim: Claim,
    /// The number of the first record; of no meaning without records.
    pub first_seq: Seq,
    /// What happened, in order; numbers follow from `first_seq` without gaps.
    pub records: Vec<Record>,
    /// How the run is released afterwards; absent: its owner continues to drive it.
    pub release: Option<Release>,
    /// Nodes whose permits it gives back, because their attempts have ended. The end of the run gives back all.
    pub frees: Vec<NodeId>,
}

impl Checkpoint {
    /// Whether it may give permits back: of nodes, or of a run that ends.
    pub fn frees_permits(&self) -> bool {
        !self.frees.is_empty() || matches!(&self.release, Some(Release::End(end)) if end.is_limited)
    }
}

/// How an owner releases a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Release {
    /// The run ended.
    End(RunEnd),
    /// Its nodes only wait.
    Park {
        /// What it waits for.
        waiting_for: WaitingFor,
        /// When it becomes available again; absent: when a wake-up makes it so.
        until: Option<DateTime<Utc>>,
    },
    /// Another instance is to drive it, because this one stops.
    Requeue,
}

impl Release {
    /// The event that it is for the state of the run.
    pub const fn event(&self) -> RunEvent {
        match self {
            Release::End(end) => end.result.event(),
            Release::Park { .. } => RunEvent::Parked,
            Release::Requeue => RunEvent::Requeued,
        }
    }
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEnd {
    /// The result.
    pub result: RunResult,
    /// Whether awaited child runs may not have ended, so that they are cancelled with it.
    pub abandons_children: bool,
    /// Whether it, or a node of it, may be limited by a key: then its end gives permits back.
    pub is_limited: bool,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum RunResult {
    /// It succeeded with this output.
    Succeeded(Value),
    /// It failed.
    Failed(RunError),
    /// It was cancelled.
    Cancelled(RunError),
    /// It exceeded its deadline.
    TimedOut(RunError),
}

impl RunResult {
    /// The event that it is for the state of the run.
    pub const fn event(&self) -> RunEvent {
        match self {
            Self::Succeeded(_) => RunEvent::Succeeded,
            Self::Failed(_) => RunEvent::Failed,
            Self::Cancelled(_) => RunEvent::Cancelled,
            Self::TimedOut(_) => RunEvent::TimedOut,
        }
    }

    /// The output of a run that succeeded.
    pub const fn output(&self) -> Option<&Value> {
        match self {
            Self::Succeeded(output) => Some(output),
            Self::Failed(_) | Self::Cancelled(_) | Self::TimedOut(_) => None,
        }
    }

    /// Why a run did not succeed.
    pub const fn error(&self) -> Option<&RunError> {
        match self {
            Self::Succeeded(_) => None,
            Self::Failed(error) | Self::Cancelled(error) | Self::TimedOut(error) => Some(error),
        }
    }
}

/// A driven run that has a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalledRun {
    /// The run.
    pub run: RunId,
    /// Whether its cancellation was requested. If not, a wait of one of its nodes may be over.
    pub cancel_requested: bool,
    /// Why, if the run above requested it; as [`ClaimedRun::cancel_reason`].
    pub cancel_reason: Option<String>,
}

/// The result of a check for dead instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// How many runs were taken from dead instances.
    pub n_runs: usize,
    /// Whether any instance, alive or dead, owned a run when the check began. Then another check soon is worthwhile.
    pub is_anyone_driving: bool,
}

/// Why a run did not succeed, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// The kind of the failure.
    pub kind: FailureKind,
    /// What happened, for the author of the definition.
    pub message: String,
    /// The node that caused it, if one did; of several the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// What the node adds to the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
    /// Without `fail_fast`: every failure that no edge handles, in the order in which they happened, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<FailedNode>,
}

/// One of the failures of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedNode {
    /// The node that failed, or from which the edge leads that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// The kind of the failure.
    pub kind: FailureKind,
    /// What happened.
    pub message: String,
    /// What the node adds to the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

impl RunError {
    /// An error that no node caused.
    pub fn of(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), node_id: None, details: None, failures: Vec::new() }
    }
}

impl From<RunError> for FailedNode {
    fn from(error: RunError) -> Self {
        let RunError { kind, message, node_id, details, .. } = error;
        Self { node_id, kind, message, details }
    }
}

/// A failure of the store, as the engine handles it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A later claim was made, or the run was ended from outside: drop the work.
    #[error("the claim on run {run} is lost")]
    ClaimLost {
        /// The run.
        run: RunId,
    },
    /// The store answers, but rejects this run's checkpoint each time, so a retry is pointless.
    #[error("the store rejects the checkpoint of run {run}")]
    Refused {
        /// The run.
        run: RunId,
        /// The last error of the store.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store cannot be reached, or it is unknown whether the call took effect: try again later.
    #[error("the run store is unavailable: {0}")]
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
    /// The store took too long, and it is unknown whether the call took effect: try again later. Whatever holds for
    /// [`Unavailable`](Self::Unavailable) holds for this.
    #[error("the run store timed out: {0}")]
    TimedOut(Box<dyn std::error::Error + Send + Sync>),
    /// The store answers, but failed in a way that it should not: an operator must act. Another attempt may succeed.
    #[error("the run store failed: {0}")]
    Fault(Box<dyn std::error::Error + Send + Sync>),
    /// Stored data is invalid: an operator must act.
    #[error("{what} in the run store is corrupt")]
    Corrupt {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The requested thing does not exist.
    #[error("{what} does not exist")]
    Missing {
        /// What.
        what: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later although nobody does anything about it.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::TimedOut(_))
    }
}

/// The store of runs.
///
/// All methods may be called at once from many tasks. After the future of [`RunStore::commit`] is dropped, it is
/// unknown whether the checkpoint was written; it is never written in part.
#[async_trait]
pub trait RunStore: Send + Sync + 'static {
    /// Stores a definition under its digest. Repeats: safe.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; nothing was stored.
    async fn ensure_graph(&self, digest: Digest, definition: &Value) -> Result<(), StoreError>;

    /// The definition of this digest.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is none.
    async fn load_graph(&self, digest: Digest) -> Result<Value, StoreError>;

    /// What a run executes, whatever became of it.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if the run is gone.
    async fn load_source(&self, run: RunId) -> Result<RunSource, StoreError>;

    /// Accepts a run: once this returns, it will reach a terminal state (I4).
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; the run may or may not be accepted, and repeating with the same id is safe.
    async fn enqueue(&self, run: NewRun) -> Result<(), StoreError>;

    /// Claims at most `limit` runs of the scope that are queued or waiting and available: by priority, then age. A run that was
    /// claimed before gets [`crate::JournalEvent::TakenOver`] appended in the transaction that raises its epoch.
    ///
    /// The first claim of a run whose journal is empty may begin it: that transaction then also appends the starts of
    /// its [`crate::first_nodes`], and says so in [`JournalAtClaim::New`]. That spares each run a checkpoint
    /// of its own before its first node. The claim must not do so if the run's cancellation was requested or its
    /// deadline has passed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; it is unknown which runs were claimed, and [`RunStore::release_undriven`] requeues
    /// them.
    async fn claim(
        &self,
        owner: InstanceId,
        scope: ClaimScope,
        limit: usize,
    ) -> Result<Vec<ClaimedRun>, StoreError>;

    /// Claims at most `limit` runs of the scope that are queued or waiting and only have to end: their cancellation was
    /// requested, or their deadline has passed. So these runs end in time even when there is no room for others.
    ///
    /// # Errors
    /// As [`RunStore::claim`].
    async fn claim_ending(
        &self,
        owner: InstanceId,
        scope: ClaimScope,
        limit: usize,
    ) -> Result<Vec<ClaimedRun>, StoreError>;

    /// Claims this run if it is queued or waiting, available or not.
    ///
    /// # Errors
    /// As [`RunStore::claim`].
    async fn claim_run(&self, owner: InstanceId, run: RunId) -> Result<Option<ClaimedRun>, StoreError>;

    /// The journal of a run after `after`, at most `limit` entries.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    async fn load_journal(
        &self,
        run: RunId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, StoreError>;

    /// What people decided about the nodes of this run, which has ended, whose end nobody knew.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    async fn find_outcomes(&self, run: RunId) -> Result<NodeDecisions, StoreError>;

    /// Writes checkpoints of different runs in one transaction. One answer each, in their order: the checkpoint is
    /// written completely, or (`ClaimLost`) not at all. A checkpoint that was already written under the same claim is
    /// answered as written, so repeating after a lost answer is safe.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] for all of them: whether they are written is unknown; repeat.
    /// [`StoreError::Fault`] for all of them: none is written. If one of them can never be written, the engine writes the
    /// others without it; [`RunStore::rehearse`] tells it whether that one's run is at fault.
    async fn commit(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Result<(), StoreError>>, StoreError>;

    /// Writes a checkpoint as [`RunStore::commit`] would, and undoes it. A lost claim is no error here.
    ///
    /// # Errors
    /// Those of [`RunStore::commit`]: the store would not write such a checkpoint now, whatever its values are.
    async fn rehearse(&self, checkpoint: &Checkpoint) -> Result<(), StoreError>;

    /// How long until a run of the scope can be claimed, zero if one can be now; absent if every run of the scope waits
    /// for an event, or none is left.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn next_available_in(&self, scope: ClaimScope) -> Result<Option<Duration>, StoreError>;

    /// The runs of this owner that have a signal: their cancellation was requested, or a wait of a node may be over. A
    /// run stays in the list until it is released. Such a run is not parked but claimable at once, so no signal is
    /// missed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn list_signalled(
        &self,
        owner: InstanceId,
        driven: &[RunId],
    ) -> Result<Vec<SignalledRun>, StoreError>;

    /// Requeues the runs that `owner` owns but does not drive: those of a claim whose answer was lost. Only the owner
    /// itself may call this, while it is not claiming. Repeats: safe.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn release_undriven(&self, owner: InstanceId, driven: &[RunId]) -> Result<usize, StoreError>;

    /// Requeues the runs of dead instances, or fails those that were recovered more than `max_recoveries` times.
    /// Repeating it, or calling it on several instances at once, is harmless. The transaction raises their epochs and
    /// appends [`crate::JournalEvent::TakenOver`], so that the former owner can write nothing any more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn recover_dead_instances(&self, max_recoveries: i32) -> Result<Recovered, StoreError>;
}
