//! The run journal: the one record of what happened inside a run, append-only.
//!
//! It is checkpoint, effect ledger, history and event stream at once. The states of the nodes are a fold over it
//! ([`crate::Progress`]); recovery is its replay. This module owns the kinds of entries and their stored form, and
//! never knows where they are stored.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use gathering_domain::{EffectClass, FailureKind, InstanceId, NodeId, RunId, SecretName, WaitingFor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::decisions::DecidedOutcome;

mod stored;

pub use stored::CorruptEntry;

/// The place of an entry in its run's journal, counted from 1 without gaps.
pub type Seq = i64;

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalEntry {
    /// Its place.
    pub seq: Seq,
    /// What happened.
    pub record: Record,
    /// The instance that wrote it.
    pub owner: Option<InstanceId>,
    /// The epoch of the claim under which it was written.
    pub epoch: i64,
    /// When it was written, by the store's clock.
    pub at: DateTime<Utc>,
}

/// What happened: to the run as a whole when `node` is absent, else to one attempt of one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The node.
    pub node: Option<NodeId>,
    /// Which attempt, from 1; 0 where there is none.
    pub attempt: i32,
    /// What.
    pub event: JournalEvent,
}

impl Record {
    /// Something that happened to an attempt of a node.
    pub const fn of_node(node: NodeId, attempt: i32, event: JournalEvent) -> Self {
        Self { node: Some(node), attempt, event }
    }

    /// Something that happened to the run as a whole.
    pub const fn of_run(event: JournalEvent) -> Self {
        Self { node: None, attempt: 0, event }
    }
}

/// The kinds of entries, each with what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub enum JournalEvent {
    /// An attempt started; recorded before any of it executes.
    Started,
    /// The node succeeded with this output.
    Succeeded {
        /// Its output.
        output: Value,
    },
    /// The node failed and is not retried.
    Failed(NodeFailure),
    /// No edge to the node was taken, or its first attempt found no permit and was not to wait for one.
    Skipped,
    /// The attempt failed; the next one begins at `until`.
    Retrying {
        /// Why the attempt failed.
        failure: NodeFailure,
        /// When the next one begins.
        until: DateTime<Utc>,
    },
    /// The node waits, and holds nothing.
    Waiting {
        /// The wait reason.
        on: WaitingFor,
        /// Until when at most.
        until: Option<DateTime<Utc>>,
        /// Whether the node has timed out then.
        times_out: bool,
    },
    /// The wait is over: its event came, or its time.
    Woken,
    /// The node was executing or waiting when the run was cancelled, timed out or failed elsewhere; this says which.
    Cancelled(NodeFailure),
    /// An effect is about to take place.
    EffectStarted(EffectStart),
    /// An effect took place; it is never repeated in this run.
    EffectDone {
        /// Which effect of the node.
        key: String,
        /// Its result.
        result: Value,
    },
    /// An effect was refused or did not take place, or its class permits a repeat.
    EffectFailed {
        /// Which effect of the node.
        key: String,
        /// Why.
        failure: NodeFailure,
        /// Whether it may have taken place all the same.
        may_have_taken_place: bool,
    },
    /// An effect that must not be repeated failed, and may have taken place all the same.
    EffectUnknown {
        /// Which effect of the node.
        key: String,
        /// Why it is unknown.
        failure: NodeFailure,
    },
    /// A person decided how the node ended in the earlier run, where that was unknown; recorded before what follows
    /// from it.
    Decided {
        /// What they decided.
        outcome: DecidedOutcome,
        /// Why.
        reason: String,
        /// The name of the person.
        decided_by: String,
        /// When.
        decided_at: DateTime<Utc>,
    },
    /// The node begins with what an earlier run of it left behind; recorded before its first attempt. A node may have
    /// several such entries, which add up.
    Reused(Reuse),
    /// Another claim continues the run, because its owner died, parked it or released it.
    TakenOver,
}

/// The announcement of an effect, recorded before it is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EffectStart {
    /// Which effect of the node: the same on every attempt.
    pub key: String,
    /// What a repeat may do, if it is unknown whether the effect took place.
    pub class: EffectClass,
    /// The digest of the request, in hexadecimal.
    pub request_digest: String,
    /// The names of the secrets that the request uses. The digest is that of the request without their values.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<SecretName>,
}

impl EffectStart {
    /// The announcement of an effect that uses no secrets.
    pub fn new(key: impl Into<String>, class: EffectClass, request_digest: impl Into<String>) -> Self {
        let (key, request_digest) = (key.into(), request_digest.into());
        Self { key, class, request_digest, secrets: BTreeSet::new() }
    }
}

/// What a node takes over from earlier runs, which it did not finish there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reuse {
    /// The runs in which the node was begun before, the latest first. What their child runs of the node achieved is
    /// taken over as the node starts the same ones again.
    pub from_runs: Vec<RunId>,
    /// The effects that the node had there.
    pub effects: Vec<ReusedEffect>,
}

/// An effect of a node in an earlier run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReusedEffect {
    /// The run that first planned it: its id is in the effect's idempotency key.
    pub planned_by: RunId,
    /// Its announcement.
    #[serde(flatten)]
    pub start: EffectStart,
    /// What is known of its end.
    #[serde(flatten)]
    pub end: EffectEnd,
}

/// What is known of the end of an effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum EffectEnd {
    /// It took place.
    Done {
        /// Its result.
        result: Value,
    },
    /// It did not take place, or its class permits a repeat of the same request.
    Failed {
        /// Whether it may have taken place all the same.
        #[serde(default)]
        may_have_taken_place: bool,
    },
    /// It may have taken place.
    Unknown,
}

/// Why a node failed, as it is recorded and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct NodeFailure {
    /// The kind of the failure.
    pub kind: FailureKind,
    /// What happened and what to do about it, without secrets.
    pub message: String,
    /// Whether a retry may help.
    pub retryable: bool,
    /// What the node adds to the message, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Value>>,
    /// How long the other side wants no further request, in milliseconds, if it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl NodeFailure {
    /// A failure that a retry does not help.
    pub fn permanent(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retryable: false, details: None, retry_after_ms: None }
    }

    /// A failure that a retry may help.
    pub fn retryable(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::permanent(kind, message) }
    }

    /// The same, after which a retry waits at least that long, if the other side asked for it.
    #[must_use]
    pub fn with_retry_after(self, pause: Option<Duration>) -> Self {
        // Rounded up: a request that comes a moment too early is refused again.
        let rounded_up = |pause: Duration| u64::try_from(pause.as_nanos().div_ceil(1_000_000));
        Self { retry_after_ms: pause.map(|pause| rounded_up(pause).unwrap_or(u64::MAX)), ..self }
    }

    /// How long the other side wants no further request, if it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after_ms.map(Duration::from_millis)
    }
}
