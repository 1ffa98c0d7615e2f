//! The run journal: the one record of what happened inside a run, append-only.
//!
//! It is checkpoint, effect ledger, history and event stream at once. The states of the nodes are a fold over it
//! ([`crate::Progress`]); recovery is its replay. This module owns the kinds of entries and their stored form, and
//! never knows where they are stored.

use chrono::{DateTime, Utc};
use gathering_domain::{EffectClass, FailureKind, InstanceId, NodeId, RunId, WaitingFor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::decisions::DecidedOutcome;

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
    /// No edge to the node was taken.
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
}

impl NodeFailure {
    /// A failure that a retry does not help.
    pub fn permanent(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retryable: false, details: None }
    }

    /// A failure that a retry may help.
    pub fn retryable(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retryable: true, details: None }
    }
}

/// An entry whose stored form is invalid.
#[derive(Debug, thiserror::Error)]
#[error("journal entry of kind `{kind}` cannot be read: {reason}")]
pub struct CorruptEntry {
    kind: String,
    reason: String,
}

impl JournalEvent {
    /// The names of all kinds.
    pub const KINDS: [&'static str; 15] = [
        "node_started",
        "node_succeeded",
        "node_failed",
        "node_skipped",
        "node_retrying",
        "node_waiting",
        "node_woken",
        "node_cancelled",
        "effect_started",
        "effect_done",
        "effect_failed",
        "effect_unknown",
        "node_decided",
        "work_reused",
        "taken_over",
    ];

    /// The name of its kind in SQL and JSON.
    pub const fn kind(&self) -> &'static str {
        match self {
            JournalEvent::Started => "node_started",
            JournalEvent::Succeeded { .. } => "node_succeeded",
            JournalEvent::Failed(_) => "node_failed",
            JournalEvent::Skipped => "node_skipped",
            JournalEvent::Retrying { .. } => "node_retrying",
            JournalEvent::Waiting { .. } => "node_waiting",
            JournalEvent::Woken => "node_woken",
            JournalEvent::Cancelled(_) => "node_cancelled",
            JournalEvent::EffectStarted(_) => "effect_started",
            JournalEvent::EffectDone { .. } => "effect_done",
            JournalEvent::EffectFailed { .. } => "effect_failed",
            JournalEvent::EffectUnknown { .. } => "effect_unknown",
            JournalEvent::Decided { .. } => "node_decided",
            JournalEvent::Reused(_) => "work_reused",
            JournalEvent::TakenOver => "taken_over",
        }
    }

    /// Its stored payload; absent for kinds without one.
    pub fn payload(&self) -> Option<Value> {
        match self {
            JournalEvent::Started | JournalEvent::Skipped | JournalEvent::Woken | JournalEvent::TakenOver => {
                None
            }
            JournalEvent::Succeeded { output } => Some(json!({ "output": output })),
            JournalEvent::Failed(failure) | JournalEvent::Cancelled(failure) => {
                Some(json!({ "error": failure }))
            }
            JournalEvent::Retrying { failure, until } => Some(json!({ "error": failure, "until": until })),
            JournalEvent::Waiting { on, until, times_out } => {
                let mut payload = json!({ "on": on.as_str(), "until": until });
                if *times_out {
                    payload["times_out"] = json!(true);
                }
                Some(payload)
            }
            JournalEvent::EffectStarted(start) => Some(json!(start)),
            JournalEvent::EffectDone { key, result } => Some(json!({ "key": key, "result": result })),
            JournalEvent::EffectFailed { key, failure, may_have_taken_place } => {
                let mut payload = json!({ "key": key, "error": failure });
                if *may_have_taken_place {
                    payload["may_have_taken_place"] = json!(true);
                }
                Some(payload)
            }
            JournalEvent::EffectUnknown { key, failure } => Some(json!({ "key": key, "error": failure })),
            JournalEvent::Decided { outcome, reason, decided_by, decided_at } => Some(json!({
                "outcome": outcome, "reason": reason, "decided_by": decided_by, "decided_at": decided_at,
            })),
            JournalEvent::Reused(reuse) => Some(json!(reuse)),
        }
    }

    /// The event of a stored kind and payload.
    ///
    /// # Errors
    /// [`CorruptEntry`] if the kind is unknown or its payload is not of its shape.
    pub fn from_stored(kind: &str, payload: Option<Value>) -> Result<Self, CorruptEntry> {
        #[derive(Deserialize)]
        struct Output {
            output: Value,
        }
        #[derive(Deserialize)]
        struct Failure {
            error: NodeFailure,
        }
        #[derive(Deserialize)]
        struct Retry {
            error: NodeFailure,
            until: DateTime<Utc>,
        }
        #[derive(Deserialize)]
        struct Wait {
            on: String,
            until: Option<DateTime<Utc>>,
            #[serde(default)]
            times_out: bool,
        }
        #[derive(Deserialize)]
        struct Done {
            key: String,
            result: Value,
        }
        #[derive(Deserialize)]
        struct Refused {
            key: String,
            error: NodeFailure,
            #[serde(default)]
            may_have_taken_place: bool,
        }
        #[derive(Deserialize)]
        struct Decision {
            outcome: DecidedOutcome,
            reason: String,
            decided_by: String,
            decided_at: DateTime<Utc>,
        }
        fn read<T: serde::de::DeserializeOwned>(
            kind: &str,
            payload: Option<Value>,
        ) -> Result<T, CorruptEntry> {
            serde_json::from_value(payload.unwrap_or(Value::Null))
                .map_err(|error| CorruptEntry { kind: kind.to_owned(), reason: error.to_string() })
        }
        Ok(match kind {
            "node_started" => JournalEvent::Started,
            "node_succeeded" => JournalEvent::Succeeded { output: read::<Output>(kind, payload)?.output },
            "node_failed" => JournalEvent::Failed(read::<Failure>(kind, payload)?.error),
            "node_skipped" => JournalEvent::Skipped,
            "node_retrying" => {
                let Retry { error, until } = read(kind, payload)?;
                JournalEvent::Retrying { failure: error, until }
            }
            "node_waiting" => {
                let Wait { on, until, times_out } = read(kind, payload)?;
                let on = on.parse().map_err(|_| CorruptEntry {
                    kind: kind.to_owned(),
                    reason: format!("unknown wait reason `{on:.40}`"),
                })?;
                JournalEvent::Waiting { on, until, times_out }
            }
            "node_woken" => JournalEvent::Woken,
            "node_cancelled" => JournalEvent::Cancelled(read::<Failure>(kind, payload)?.error),
            "effect_started" => JournalEvent::EffectStarted(read(kind, payload)?),
            "effect_done" => {
                let Done { key, result } = read(kind, payload)?;
                JournalEvent::EffectDone { key, result }
            }
            "effect_failed" => {
                let Refused { key, error, may_have_taken_place } = read(kind, payload)?;
                JournalEvent::EffectFailed { key, failure: error, may_have_taken_place }
            }
            "effect_unknown" => {
                let Refused { key, error, .. } = read(kind, payload)?;
                JournalEvent::EffectUnknown { key, failure: error }
            }
            "node_decided" => {
                let Decision { outcome, reason, decided_by, decided_at } = read(kind, payload)?;
                JournalEvent::Decided { outcome, reason, decided_by, decided_at }
            }
            "work_reused" => JournalEvent::Reused(read(kind, payload)?),
            "taken_over" => JournalEvent::TakenOver,
            unknown => {
                return Err(CorruptEntry {
                    kind: unknown.to_owned(),
                    reason: "a newer version of the server may have written it".to_owned(),
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_being_stored() {
        let failure = NodeFailure::retryable(FailureKind::HttpStatus, "502 from the peer");
        let until = "2026-11-23T12:00:00.5Z".parse().unwrap();
        let start =
            EffectStart { key: "call".into(), class: EffectClass::Unsafe, request_digest: "ab".into() };
        let mut kinds = Vec::new();
        for event in [
            JournalEvent::Started,
            JournalEvent::Succeeded { output: json!({"a": [1, null]}) },
            JournalEvent::Succeeded { output: Value::Null },
            JournalEvent::Failed(failure.clone()),
            JournalEvent::Skipped,
            JournalEvent::Retrying { failure: failure.clone(), until },
            JournalEvent::Waiting { on: WaitingFor::Timer, until: Some(until), times_out: false },
            JournalEvent::Waiting { on: WaitingFor::Child, until: Some(until), times_out: true },
            JournalEvent::Waiting { on: WaitingFor::Approval, until: None, times_out: false },
            JournalEvent::Woken,
            JournalEvent::Cancelled(failure.clone()),
            JournalEvent::EffectStarted(start.clone()),
            JournalEvent::EffectDone { key: "call".into(), result: json!(7) },
            JournalEvent::EffectFailed {
                key: "call".into(),
                failure: failure.clone(),
                may_have_taken_place: false,
            },
            JournalEvent::EffectFailed {
                key: "call".into(),
                failure: failure.clone(),
                may_have_taken_place: true,
            },
            JournalEvent::EffectUnknown { key: "call".into(), failure },
            JournalEvent::Decided {
                outcome: DecidedOutcome::Repeat,
                reason: "the bank has no such payment".into(),
                decided_by: "ada@example.org".into(),
                decided_at: until,
            },
            JournalEvent::Reused(Reuse {
                from_runs: vec![RunId::new()],
                effects: [
                    EffectEnd::Done { result: json!({"a": 1}) },
                    EffectEnd::Failed { may_have_taken_place: true },
                    EffectEnd::Unknown,
                ]
                .map(|end| ReusedEffect { planned_by: RunId::new(), start: start.clone(), end })
                .into(),
            }),
            JournalEvent::TakenOver,
        ] {
            let back = JournalEvent::from_stored(event.kind(), event.payload()).unwrap();
            assert_eq!(back, event);
            kinds.push(event.kind());
        }
        kinds.dedup();
        assert_eq!(kinds, JournalEvent::KINDS);
        assert!(JournalEvent::from_stored("node_dreamt", None).is_err());
        assert!(JournalEvent::from_stored("node_waiting", None).is_err());
    }
}
