//! The effect ledger as a node sees it: what it did outside already, and where it says what it is about to do.
//!
//! An effect that is done is never repeated in its run: its recorded result is handed out again. An effect of which
//! nobody can know whether it took place (its instance died in between, its time was over, the other side gave no answer)
//! follows its class: `pure` and `idempotent` ones are repeated, `unsafe` ones fail the node. Only an `unsafe` effect waits
//! for its announcement to be durable; the others lose nothing by being announced in the same checkpoint as their result.

use std::collections::BTreeMap;
use std::future::Future;

use gathering_domain::{Digest, EffectClass};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::journal::{EffectStart, JournalEvent, NodeFailure};
use crate::values::check_value;

/// What the journal knows of one effect.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RecordedEffect {
    pub(crate) start: EffectStart,
    pub(crate) result: EffectResult,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum EffectResult {
    Unknown,
    Done(Value),
    Failed,
}

/// How an act failed, and whether anything may have come of it all the same.
///
/// Made from a [`NodeFailure`] it may have taken place, which is all that can be known of most: an answer that does not
/// come says nothing about the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActFailed {
    failure: NodeFailure,
    may_have_taken_place: bool,
}

impl ActFailed {
    /// It failed before anything could come of it: there was no connection, or nothing was sent.
    pub const fn before_it_took_place(failure: NodeFailure) -> Self {
        Self { failure, may_have_taken_place: false }
    }

    /// Whether anything may have come of it.
    pub const fn may_have_taken_place(&self) -> bool {
        self.may_have_taken_place
    }
}

impl From<NodeFailure> for ActFailed {
    fn from(failure: NodeFailure) -> Self {
        Self { failure, may_have_taken_place: true }
    }
}

/// A record on its way to the journal.
#[derive(Debug)]
pub(crate) struct EffectRecord {
    pub(crate) node: usize,
    pub(crate) event: JournalEvent,
    /// Answered once it is durable; absent when nobody waits for that.
    pub(crate) durable: Option<oneshot::Sender<()>>,
}

/// One node's part of the effect ledger.
#[derive(Debug)]
pub struct Effects {
    node: usize,
    recorded: BTreeMap<String, RecordedEffect>,
    journal: mpsc::Sender<EffectRecord>,
}

impl Effects {
    pub(crate) const fn new(
        node: usize,
        recorded: BTreeMap<String, RecordedEffect>,
        journal: mpsc::Sender<EffectRecord>,
    ) -> Self {
        Self { node, recorded, journal }
    }

    /// Whether this effect of the node is done, so that [`Effects::once`] hands out what is recorded.
    pub fn is_done(&self, key: &str) -> bool {
        self.recorded.get(key).is_some_and(|known| matches!(known.result, EffectResult::Done(_)))
    }

    /// Does `act` unless this effect of the node is done already, in which case its recorded result is the answer.
    ///
    /// `key` names the effect within the node and must be the same on every attempt; `request` is what is asked for and
    /// only its digest is recorded. Cancellation: if dropped while acting, it is unknown whether the effect took place.
    ///
    /// # Errors
    /// What `act` fails with; `output_too_deep` and `output_too_large` where its result is beyond what can be recorded;
    /// `effect_unknown`, for good, when an `unsafe` effect may have taken place, now or in an earlier attempt;
    /// `effect_changed` when the same key was used for another request.
    pub async fn once<F, Fut>(
        &self,
        key: &str,
        class: EffectClass,
        request: &Value,
        act: F,
    ) -> Result<Value, NodeFailure>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<Value, ActFailed>> + Send,
    {
        let request_digest = Digest::of_json(request).to_string();
        if let Some(known) = self.recorded.get(key) {
            match &known.result {
                EffectResult::Done(_) | EffectResult::Unknown
                    if known.start.request_digest != request_digest =>
                {
                    return Err(NodeFailure::permanent(
                        "effect_changed",
                        format!(
                            "effect `{key}` was asked for differently before: a node must ask for the same on every attempt"
                        ),
                    ));
                }
                EffectResult::Done(result) => return Ok(result.clone()),
                EffectResult::Unknown if class == EffectClass::Unsafe => {
                    return Err(unknown(key, "an earlier attempt ended in the middle of it"));
                }
                EffectResult::Unknown | EffectResult::Failed => {}
            }
        }
        let start = EffectStart { key: key.to_owned(), class, request_digest };
        self.record(JournalEvent::EffectStarted(start), class == EffectClass::Unsafe).await?;
        match act().await {
            Ok(result) => {
                // It took place, so it is not recorded as failed either: after a crash its class decides.
                check_value(&result).map_err(|limit| {
                    NodeFailure::permanent(limit.kind("output"), format!("the result of `{key}` {limit}"))
                })?;
                let done = JournalEvent::EffectDone { key: key.to_owned(), result: result.clone() };
                self.record(done, false).await?;
                Ok(result)
            }
            Err(ActFailed { failure, may_have_taken_place: true }) if class == EffectClass::Unsafe => {
                let why = unknown(key, &failure.message);
                self.record(JournalEvent::EffectUnknown { key: key.to_owned(), failure }, false).await?;
                Err(why)
            }
            Err(ActFailed { failure, .. }) => {
                let failed = JournalEvent::EffectFailed { key: key.to_owned(), failure: failure.clone() };
                self.record(failed, false).await?;
                Err(failure)
            }
        }
    }

    async fn record(&self, event: JournalEvent, wait_until_durable: bool) -> Result<(), NodeFailure> {
        let lost = || NodeFailure::retryable("interrupted", "the run is no longer driven here");
        let (durable, answer) = if wait_until_durable {
            let (durable, answer) = oneshot::channel();
            (Some(durable), Some(answer))
        } else {
            (None, None)
        };
        let record = EffectRecord { node: self.node, event, durable };
        self.journal.send(record).await.map_err(|_| lost())?;
        match answer {
            Some(answer) => answer.await.map_err(|_| lost()),
            None => Ok(()),
        }
    }
}

fn unknown(key: &str, why: &str) -> NodeFailure {
    let message = format!("`{key}` may have taken place, and it must not be repeated: {why}");
    NodeFailure::permanent("effect_unknown", message)
}
