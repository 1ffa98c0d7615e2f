//! A checkpoint that differs from another only in what the definition's author and the nodes decide.
//!
//! Whether a store rejects a checkpoint for its values shows when it accepts one that has other values: at the same
//! place of the same journal, as large, and releasing the run in the same way.

use gathering_domain::Digest;
use serde_json::Value;

use crate::journal::{EffectEnd, JournalEvent, NodeFailure};
use crate::store::{Checkpoint, Release, RunError, RunResult};

/// The same checkpoint with plain text of the same size for every value and message.
pub(crate) fn with_plain_values(checkpoint: &Checkpoint) -> Checkpoint {
    let mut plain = checkpoint.clone();
    for record in &mut plain.records {
        match &mut record.event {
            JournalEvent::Succeeded { output: value } | JournalEvent::EffectDone { result: value, .. } => {
                replace(value);
            }
            JournalEvent::Failed(failure)
            | JournalEvent::Retrying { failure, .. }
            | JournalEvent::Cancelled(failure)
            | JournalEvent::EffectFailed { failure, .. }
            | JournalEvent::EffectUnknown { failure, .. } => replace_message(failure),
            JournalEvent::Reused(reuse) => {
                for effect in &mut reuse.effects {
                    if let EffectEnd::Done { result } = &mut effect.end {
                        replace(result);
                    }
                }
            }
            JournalEvent::Decided { reason, .. } => *reason = text_of(reason.len()),
            JournalEvent::Started
            | JournalEvent::Skipped
            | JournalEvent::Waiting { .. }
            | JournalEvent::Woken
            | JournalEvent::EffectStarted(_)
            | JournalEvent::TakenOver => {}
        }
    }
    if let Some(Release::End(end)) = &mut plain.release {
        match &mut end.result {
            RunResult::Succeeded(output) => replace(output),
            RunResult::Failed(error) | RunResult::Cancelled(error) | RunResult::TimedOut(error) => {
                let RunError { kind: _, message, node_id: _, details, failures } = error;
                *message = text_of(message.len());
                details.iter_mut().for_each(replace);
                for failure in failures {
                    failure.message = text_of(failure.message.len());
                    failure.details.iter_mut().for_each(replace);
                }
            }
        }
    }
    plain
}

fn replace(value: &mut Value) {
    *value = Value::String(text_of(value.to_string().len()));
}

fn replace_message(failure: &mut NodeFailure) {
    failure.message = text_of(failure.message.len());
    failure.details.iter_mut().for_each(|details| replace(details));
}

/// Text of so many bytes, which no compression of the store makes small.
fn text_of(n_bytes: usize) -> String {
    let mut text = String::with_capacity(n_bytes + 64);
    let mut number: u64 = 0;
    while text.len() < n_bytes {
        text.push_str(&Digest::of(&number.to_be_bytes()).to_string());
        number += 1;
    }
    text.truncate(n_bytes);
    text
}
