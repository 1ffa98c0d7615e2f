//! The effect ledger as a node sees it: the effects that it had already, and the announcement of the next one.
//!
//! An effect that is done is never repeated in its run: its recorded result is returned. It is unknown whether an
//! effect took place if its instance died in between, its time was over, or the other side gave no answer. Then its
//! class decides: `pure` and `idempotent` ones are repeated, `unsafe` ones fail the node. Only an `unsafe` effect waits
//! for its announcement to be durable; the others lose nothing by being announced in the same checkpoint as their
//! result.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use gathering_domain::{Digest, EffectClass, FailureKind, NodeId, RunId, SecretName};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::journal::{EffectEnd, EffectStart, JournalEvent, NodeFailure, ReusedEffect};
use crate::values::{ValueRole, check_value};

/// What the journal records of one effect.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RecordedEffect {
    pub(crate) start: EffectStart,
    pub(crate) end: EffectEnd,
    /// The earlier run that first planned it, if it was not this one.
    pub(crate) planned_by: Option<RunId>,
    /// Whether this run has not announced it itself.
    pub(crate) is_reused: bool,
    /// Whether an earlier attempt may have performed it: that the last one did not says nothing about that.
    may_have_taken_place_before: bool,
}

impl RecordedEffect {
    /// An effect that is being announced, after `before` with the same key.
    pub(crate) fn begin(start: EffectStart, before: Option<&Self>) -> Self {
        let same = before.filter(|before| before.start.request_digest == start.request_digest);
        let planned_by = same.and_then(|before| before.planned_by);
        let may_have_taken_place_before = before.is_some_and(Self::may_have_taken_place);
        Self { start, end: EffectEnd::Unknown, planned_by, is_reused: false, may_have_taken_place_before }
    }

    /// Notes how the announced effect ended.
    pub(crate) fn finish(&mut self, end: EffectEnd) {
        self.end = match end {
            EffectEnd::Failed { may_have_taken_place } => EffectEnd::Failed {
                may_have_taken_place: may_have_taken_place || self.may_have_taken_place_before,
            },
            end => end,
        };
    }

    /// Whether it is open whether it took place. It does not matter for what changes nothing.
    fn may_have_taken_place(&self) -> bool {
        let is_open =
            matches!(self.end, EffectEnd::Unknown | EffectEnd::Failed { may_have_taken_place: true });
        is_open && self.start.class != EffectClass::Pure
    }

    /// An effect of an earlier run.
    pub(crate) fn reused(effect: &ReusedEffect) -> Self {
        let ReusedEffect { planned_by, start, end } = effect.clone();
        let planned_by = Some(planned_by);
        Self { start, end, planned_by, is_reused: true, may_have_taken_place_before: false }
    }
}

/// How an effect failed, and whether it may have taken place all the same.
///
/// Made from a [`NodeFailure`], it may have taken place. Most failures allow no more: a missing answer says nothing
/// about the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActFailed {
    failure: NodeFailure,
    may_have_taken_place: bool,
}

impl ActFailed {
    /// It failed before it could take place: no connection was made, or nothing was sent.
    pub const fn before_it_took_place(failure: NodeFailure) -> Self {
        Self { failure, may_have_taken_place: false }
    }

    /// Whether it may have taken place.
    pub const fn may_have_taken_place(&self) -> bool {
        self.may_have_taken_place
    }
}

impl From<ActFailed> for NodeFailure {
    fn from(failed: ActFailed) -> Self {
        failed.failure
    }
}

impl From<NodeFailure> for ActFailed {
    fn from(failure: NodeFailure) -> Self {
        Self { failure, may_have_taken_place: true }
    }
}

/// A record for the journal.
#[derive(Debug)]
pub(crate) struct EffectRecord {
    pub(crate) node: usize,
    pub(crate) event: JournalEvent,
    /// Notified once the record is durable; absent if no task waits for that.
    pub(crate) durable: Option<oneshot::Sender<()>>,
}

/// Takes out of what an executor gives back what nobody may read, before it is recorded.
pub trait Redaction: std::fmt::Debug + Send + Sync {
    /// Takes it out of a text.
    fn redact_text(&self, text: &mut String);

    /// Takes it out of every string of a value, and out of the names of fields.
    fn redact(&self, value: &mut Value);

    /// Takes it out of a failure.
    fn redact_failure(&self, failure: &mut NodeFailure) {
        self.redact_text(&mut failure.message);
        failure.details.iter_mut().for_each(|details| self.redact(details));
    }
}

/// One node's part of the effect ledger.
#[derive(Debug)]
pub struct Effects {
    run: RunId,
    id: NodeId,
    node: usize,
    recorded: BTreeMap<String, RecordedEffect>,
    journal: mpsc::Sender<EffectRecord>,
    secrets: BTreeSet<SecretName>,
    redaction: Option<Arc<dyn Redaction>>,
}

impl Effects {
    pub(crate) fn new(
        run: RunId,
        (node, id): (usize, NodeId),
        recorded: BTreeMap<String, RecordedEffect>,
        journal: mpsc::Sender<EffectRecord>,
    ) -> Self {
        Self { run, id, node, recorded, journal, secrets: BTreeSet::new(), redaction: None }
    }

    /// The same, for an attempt whose config refers to these secrets.
    pub(crate) fn using(self, secrets: BTreeSet<SecretName>) -> Self {
        Self { secrets, ..self }
    }

    /// The same, with this taken out of the end of every effect: of what is recorded and of what is returned.
    #[must_use]
    pub fn with_redaction(self, redaction: Arc<dyn Redaction>) -> Self {
        Self { redaction: Some(redaction), ..self }
    }

    /// Whether this effect of the node is done, so that [`Effects::once`] returns the recorded result.
    pub fn is_done(&self, key: &str, request: &Value) -> bool {
        self.recorded.get(key).is_some_and(|known| {
            matches!(known.end, EffectEnd::Done { .. })
                && known.start.request_digest == Digest::of_json(request).to_string()
        })
    }

    /// The idempotency key of the effect `key` with this request: `<run>/<node>`, where the run is the one that first
    /// planned it. The same request keeps it on every attempt, on every instance and in every rerun; another request
    /// gets another one.
    pub fn idempotency_key(&self, key: &str, request: &Value) -> String {
        let known = self.recorded.get(key).and_then(|known| Some((known, known.planned_by?)));
        let planned_by = known
            .filter(|(known, _)| known.start.request_digest == Digest::of_json(request).to_string())
            .map_or(self.run, |(_, run)| run);
        format!("{planned_by}/{}", self.id)
    }

    /// Performs `act`, unless this effect of the node is done already: then it returns the recorded result.
    ///
    /// `key` names the effect within the node and must be the same on every attempt. Only the digest of `request` is
    /// recorded. Cancellation: if dropped while acting, it is unknown whether the effect took place.
    ///
    /// # Errors
    /// What `act` fails with; `output_too_deep` and `output_too_large` where its result is beyond what can be recorded;
    /// `effect_unknown`, which no retry helps, when an `unsafe` effect may have taken place, now or in an earlier
    /// attempt; `effect_changed` when the same key was used for another request.
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
        if let Some(known) = self.recorded.get(key)
            && let Some(result) = settle(key, known, class, &request_digest)?
        {
            return Ok(result);
        }
        let start = EffectStart { key: key.to_owned(), class, request_digest, secrets: self.secrets.clone() };
        self.record(JournalEvent::EffectStarted(start), class == EffectClass::Unsafe).await?;
        match self.redacted(act().await) {
            Ok(result) => {
                // It took place, so it is not recorded as failed either: after a crash its class decides.
                check_value(&result).map_err(|limit| {
                    let message = format!("the result of `{key}` {limit}");
                    NodeFailure::permanent(limit.kind(ValueRole::Output), message)
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
            Err(ActFailed { failure, may_have_taken_place }) => {
                // A pure effect changes nothing, so it makes no difference.
                let may_have_taken_place = may_have_taken_place && class != EffectClass::Pure;
                let (key, recorded) = (key.to_owned(), failure.clone());
                let failed = JournalEvent::EffectFailed { key, failure: recorded, may_have_taken_place };
                self.record(failed, false).await?;
                Err(failure)
            }
        }
    }

    fn redacted(&self, mut end: Result<Value, ActFailed>) -> Result<Value, ActFailed> {
        if let Some(redaction) = &self.redaction {
            match &mut end {
                Ok(result) => redaction.redact(result),
                Err(failed) => redaction.redact_failure(&mut failed.failure),
            }
        }
        end
    }

    async fn record(&self, event: JournalEvent, wait_until_durable: bool) -> Result<(), NodeFailure> {
        let lost = || NodeFailure::retryable(FailureKind::Interrupted, "the run is no longer driven here");
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

/// What follows from what is known of an effect that is asked for again: its result, or `None` if it is to be performed.
fn settle(
    key: &str,
    known: &RecordedEffect,
    class: EffectClass,
    request_digest: &str,
) -> Result<Option<Value>, NodeFailure> {
    let is_same = known.start.request_digest == request_digest;
    let is_certain = known.start.class == EffectClass::Pure;
    match &known.end {
        EffectEnd::Done { result } if is_same => Ok(Some(result.clone())),
        EffectEnd::Unknown if class == EffectClass::Unsafe => {
            Err(unknown(key, "an earlier attempt ended in the middle of it"))
        }
        EffectEnd::Done { .. } | EffectEnd::Unknown if !is_same && !known.is_reused => {
            let message = "changed its request: a node must send the same one on every attempt";
            Err(NodeFailure::permanent(FailureKind::EffectChanged, format!("effect `{key}` {message}")))
        }
        // A correction asks for something else: with another key, the earlier request would count as another one.
        EffectEnd::Unknown | EffectEnd::Failed { may_have_taken_place: true }
            if !is_same && known.is_reused && !is_certain =>
        {
            Err(unknown(key, "an earlier run asked for it with another request, and its end is unknown"))
        }
        EffectEnd::Done { .. } | EffectEnd::Unknown | EffectEnd::Failed { .. } => Ok(None),
    }
}

fn unknown(key: &str, why: &str) -> NodeFailure {
    let message = format!("`{key}` may have taken place, and it must not be repeated: {why}");
    NodeFailure::permanent(FailureKind::EffectUnknown, message)
}
