//! The port to where runs live: claimed, checkpointed, released. Written in the engine's words.
//!
//! `gathering-persistence` implements it on PostgreSQL, `testing::MemoryStore` in memory; one suite of cases runs
//! against both.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::{Digest, InstanceId, NodeId, PipelineId, ProjectId, RunEvent, RunId, WaitingFor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::journal::{JournalEntry, Record, Seq};

/// The right of one instance to drive one run, until a later claim raises the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The run.
    pub run: RunId,
    /// The instance.
    pub owner: InstanceId,
    /// Which claim of the run this is, from 1; it grows with every claim and is never reset.
    pub epoch: i64,
}

/// A run that an instance has just claimed, with what driving it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedRun {
    /// The right to drive it.
    pub claim: Claim,
    /// Whose it is.
    pub project: ProjectId,
    /// Its definition.
    pub graph: Digest,
    /// What it was started with.
    pub input: Value,
    /// Why that cannot be read, if so: then the run fails, and spoils no claim of others.
    pub unreadable: Option<String>,
    /// When it must have ended.
    pub deadline_at: Option<DateTime<Utc>>,
    /// Whether somebody asked for its end before it was claimed.
    pub cancel_requested: bool,
    /// Whether its journal began with what an earlier run achieved.
    pub is_rerun: bool,
    /// The pipeline that it is a run of.
    pub pipeline: Option<PipelineId>,
    /// Whether it is an item of a list: its graph may read `item` and `index`, and its input holds them beside `input`.
    pub is_item: bool,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// The nodes whose first attempts the claim recorded as started, at the first places of the journal; see
    /// [`RunStore::claim`].
    pub started_with_claim: Vec<NodeId>,
}

impl ClaimedRun {
    /// Whether an earlier claim may have written to the journal.
    pub const fn was_claimed_before(&self) -> bool {
        self.claim.epoch > 1
    }

    /// How many places of the journal the claim itself took.
    pub(crate) fn n_begun(&self) -> Seq {
        Seq::try_from(self.started_with_claim.len()).unwrap_or(Seq::MAX)
    }

    /// Whether the journal may hold more than the claim says: then it must be read before driving.
    pub const fn has_journal(&self) -> bool {
        self.was_claimed_before() || self.is_rerun
    }
}

/// Which runs a claim may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimScope {
    /// Every available run.
    Queue,
    /// This run and its awaited descendants. The run itself is available while it is queued, whatever
    /// [`NewRun::available_at`] says: that time keeps it from others until the process that accepted it has claimed it.
    Tree(RunId),
}

/// A run that is to be accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// Whose it is.
    pub project: ProjectId,
    /// Its definition, stored before.
    pub graph: Digest,
    /// What it is started with.
    pub input: Value,
    /// 1 to 10; the higher the sooner.
    pub priority: i32,
    /// Not to be claimed before, unless its deadline comes first; absent: at once.
    pub available_at: Option<DateTime<Utc>>,
    /// How long it may take from its acceptance.
    pub timeout: Option<Duration>,
}

/// What one run wants to have in the journal, and, if it stops being driven, what becomes of it: all or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The right under which it is written.
    pub claim: Claim,
    /// The place of the first record.
    pub first_seq: Seq,
    /// What happened, in order; places follow from `first_seq` without gaps.
    pub records: Vec<Record>,
    /// What becomes of the run afterwards; absent: its owner goes on driving.
    pub release: Option<Release>,
}

/// How an owner lets go of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Release {
    /// The run ended.
    End(RunEnd),
    /// Nothing of it can go on now.
    Park {
        /// What it waits for.
        waiting_for: WaitingFor,
        /// From when it may be claimed again; absent: only when somebody acts.
        until: Option<DateTime<Utc>>,
    },
    /// Somebody else shall drive it, as this instance stops.
    Requeue,
}

impl Release {
    /// What it is to the run's state.
    pub const fn event(&self) -> RunEvent {
        match self {
            Release::End(end) => end.event,
            Release::Park { .. } => RunEvent::Parked,
            Release::Requeue => RunEvent::Requeued,
        }
    }
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEnd {
    /// Which end: [`RunEvent::Succeeded`], `Failed`, `Cancelled` or `TimedOut`.
    pub event: RunEvent,
    /// What it hands to whoever asked for it.
    pub output: Option<Value>,
    /// Why it ended otherwise than well.
    pub error: Option<RunError>,
    /// Whether runs that it started and waited for may still go on: they are to be cancelled with it.
    pub abandons_children: bool,
}

/// A run of an owner on which somebody acted while it was driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalledRun {
    /// The run.
    pub run: RunId,
    /// Whether its end was asked for; else what a node of it waits for may have come.
    pub cancel_requested: bool,
}

/// What a look for dead instances found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// How many runs were taken from instances that died.
    pub n_runs: usize,
    /// Whether any instance, alive or dead, owned a run when the look began: then it is worth looking again soon.
    pub is_anyone_driving: bool,
}

/// Why a run did not succeed, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// A short stable word.
    pub kind: String,
    /// What happened, for the author of the definition.
    pub message: String,
    /// The node that caused it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
}

/// What went wrong between the engine and its store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another claim has been made since, or the run was ended from outside: drop the work.
    #[error("the claim on run {run} is lost")]
    ClaimLost {
        /// The run.
        run: RunId,
    },
    /// The store answers, but what was to be written of the run it refuses each time: writing it again is in vain.
    #[error("what was to be written of run {run} is refused")]
    Refused {
        /// The run.
        run: RunId,
        /// What the store said last.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store cannot be reached, or it is unknown whether it did what was asked: try again later.
    #[error("the run store is unavailable: {0}")]
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
    /// The store answers, but failed in a way that it should not: an operator must act. Another attempt may succeed.
    #[error("the run store failed: {0}")]
    Fault(Box<dyn std::error::Error + Send + Sync>),
    /// Something stored makes no sense: a person has to look.
    #[error("{what} in the run store is corrupt")]
    Corrupt {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What was asked for is not there.
    #[error("{what} does not exist")]
    Missing {
        /// What.
        what: String,
    },
}

/// Where runs live.
///
/// All methods may be called at once from many tasks. Dropping a future of [`RunStore::commit`] may leave it unknown
/// whether it took place, never half of it.
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

    /// Accepts a run: once this returns, it will reach a terminal state (I4).
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; the run may or may not be accepted, and repeating with the same id is safe.
    async fn enqueue(&self, run: NewRun) -> Result<(), StoreError>;

    /// Claims at most `limit` runs of the scope that are queued or waiting and available: by priority, then age. A run that was
    /// claimed before gets [`crate::JournalEvent::TakenOver`] appended in the transaction that raises its epoch.
    ///
    /// The first claim of a run whose journal is empty may begin it: that transaction then also appends the starts of its
    /// [`crate::first_nodes`], and says so in [`ClaimedRun::started_with_claim`]. That spares each run a checkpoint of its own before its
    /// first node. It must not where the run is to be cancelled, or its deadline has passed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; it is unknown what was claimed, and [`RunStore::release_undriven`] puts it back.
    async fn claim(
        &self,
        owner: InstanceId,
        scope: ClaimScope,
        limit: usize,
    ) -> Result<Vec<ClaimedRun>, StoreError>;

    /// Claims at most `limit` runs of the scope that are queued or waiting and have only their end before them: somebody asked for it, or
    /// their deadline has passed. Where there is no room for other runs, these still end in time.
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

    /// Writes checkpoints of different runs in one transaction. One answer each, in their order: the checkpoint is
    /// wholly there, or (`ClaimLost`) wholly absent. A checkpoint that stands there already, written under the same
    /// claim, is answered as written: so repeating after a lost answer is safe.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] for all of them: whether they are written is unknown; repeat. One that can never be
    /// written may be answered so, too: the engine then writes the others without it, and ends its run.
    async fn commit(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Result<(), StoreError>>, StoreError>;

    /// How long until a run of the scope can be claimed, zero if one can be now; absent when there is none but those that wait for
    /// somebody to act.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn next_available_in(&self, scope: ClaimScope) -> Result<Option<Duration>, StoreError>;

    /// Those of the runs that this owner drives on which somebody acted: whose end was asked for, or for which something came that a node
    /// may wait for. A run stays in the list until it is released, and such a run is not parked but claimable at once,
    /// so nothing that comes meanwhile is missed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn list_signalled(
        &self,
        owner: InstanceId,
        driven: &[RunId],
    ) -> Result<Vec<SignalledRun>, StoreError>;

    /// Puts the runs that `owner` holds but does not drive back into the queue: those of a claim whose answer got lost.
    /// Only the owner itself may ask for it, while it is not claiming. Repeats: safe.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn release_undriven(&self, owner: InstanceId, driven: &[RunId]) -> Result<usize, StoreError>;

    /// Puts the runs of instances that died back into the queue, or fails those that were recovered more than
    /// `max_recoveries` times. Reconciles: repeating it, or calling it on several instances at
    /// once, is harmless. The transaction raises their epochs and appends [`crate::JournalEvent::TakenOver`], so that nothing
    /// of the former owner can be written any more, whoever claims them and when.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn recover_dead_instances(&self, max_recoveries: i32) -> Result<Recovered, StoreError>;
}
