//! What an instance claims, and what it gets with the claim.

use chrono::{DateTime, Utc};
use gathering_domain::{Digest, InstanceId, NodeId, PipelineId, ProjectId, RunId};
use serde_json::Value;

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
    /// The project that owns it.
    pub project: ProjectId,
    /// Its definition.
    pub graph: Digest,
    /// Its input, or why the stored input cannot be read. Only this run fails then; the claims of the others are valid.
    pub input: Result<Value, String>,
    /// Its deadline.
    pub deadline_at: Option<DateTime<Utc>>,
    /// Whether its cancellation was requested before it was claimed.
    pub cancel_requested: bool,
    /// Why, if the run above requested it, as a clause: "run ... failed".
    pub cancel_reason: Option<String>,
    /// The role of its graph.
    pub role: GraphRole,
    /// The earlier run whose work it takes up, if it is a child run that was started again: what succeeded there becomes
    /// the beginning of this run's journal.
    pub takes_up: Option<RunId>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// Whether a key limits it with other runs of its pipeline. It holds a permit of the key, unless it was claimed to end.
    pub is_limited: bool,
    /// What its journal holds.
    pub journal: JournalAtClaim,
}

/// What a run executes.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSource {
    /// Its definition.
    pub graph: Digest,
    /// Its input.
    pub input: Value,
}

/// The role of a run's graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphRole {
    /// A stored pipeline. Its nodes may have circuit breakers.
    Pipeline(PipelineId),
    /// An item of a `map`: the graph may read `item` and `index`, and the run's input holds them beside `input`.
    Item,
    /// A definition that belongs to no pipeline: it was run from a file, or its pipeline was deleted.
    Standalone,
}

/// What the journal of a run holds right after a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalAtClaim {
    /// Exactly the starts of these nodes, which the claim itself recorded; see
    /// [`RunStore::claim`](super::RunStore::claim).
    New {
        /// The nodes, in the order of the entries.
        started: Vec<NodeId>,
    },
    /// Entries of earlier claims, or the results that a rerun keeps: read it before driving.
    Existing,
}

impl ClaimedRun {
    /// Whether an earlier claim may have written to the journal.
    pub const fn was_claimed_before(&self) -> bool {
        self.claim.epoch > 1
    }

    /// The nodes whose starts the claim itself recorded, in the first entries of the journal.
    pub fn started_with_claim(&self) -> &[NodeId] {
        match &self.journal {
            JournalAtClaim::New { started } => started,
            JournalAtClaim::Existing => &[],
        }
    }

    /// Whether it is an item of a `map`.
    pub const fn is_item(&self) -> bool {
        matches!(self.role, GraphRole::Item)
    }
}

/// Which runs a claim may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimScope {
    /// Every available run.
    Queue,
    /// This run and its awaited descendants. The run itself is available while it is queued, whatever
    /// [`NewRun::available_at`](super::NewRun::available_at) says: that time keeps it from others until the process that
    /// accepted it has claimed it.
    Tree(RunId),
}
