//! The stored form of journal entries: a kind, and a payload of JSON.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{JournalEvent, NodeFailure};
use crate::decisions::DecidedOutcome;

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

    /// Whether an attempt of the node has ended with it.
    pub const fn ends_attempt(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Failed(_) | Self::Retrying { .. } | Self::Cancelled(_))
    }

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
    use std::time::Duration;

    use gathering_domain::{EffectClass, FailureKind, RunId, WaitingFor};

    use super::*;
    use crate::journal::{EffectEnd, EffectStart, Reuse, ReusedEffect};

    #[test]
    fn every_kind_survives_being_stored() {
        let failure = NodeFailure::retryable(FailureKind::HttpStatus, "502 from the peer");
        let until = "2026-11-23T12:00:00.5Z".parse().unwrap();
        let start = EffectStart::new("call", EffectClass::Unsafe, "ab");
        let with_secret = EffectStart { secrets: ["KEY".parse().unwrap()].into(), ..start.clone() };
        let mut kinds = Vec::new();
        for event in [
            JournalEvent::Started,
            JournalEvent::Succeeded { output: json!({"a": [1, null]}) },
            JournalEvent::Succeeded { output: Value::Null },
            JournalEvent::Failed(failure.clone()),
            JournalEvent::Skipped,
            JournalEvent::Retrying { failure: failure.clone(), until },
            JournalEvent::Retrying {
                failure: failure.clone().with_retry_after(Some(Duration::from_millis(1500))),
                until,
            },
            JournalEvent::Waiting { on: WaitingFor::Timer, until: Some(until), times_out: false },
            JournalEvent::Waiting { on: WaitingFor::Child, until: Some(until), times_out: true },
            JournalEvent::Waiting { on: WaitingFor::Approval, until: None, times_out: false },
            JournalEvent::Woken,
            JournalEvent::Cancelled(failure.clone()),
            JournalEvent::EffectStarted(start.clone()),
            JournalEvent::EffectStarted(with_secret),
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
