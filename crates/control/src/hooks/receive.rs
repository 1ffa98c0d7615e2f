//! Receiving a call: is it trusted, can it be read, and what becomes of it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use gathering_auth::HookToken;
use gathering_domain::{DeliveryId, HookId, RunId, UserId};
use gathering_tools::{ReceivedHeaders, ReceivedWebhook, UntrustedWebhook};

use super::call::Call;
use super::decide::{challenge, decide};
use super::sealing::open;
use super::{
    Delivered, DeliveryOutcome, FilterReason, HookControl, HookDelivery, KnownHook, PlannedAct,
    PlannedDelivery, Refusal, RefusalReason,
};
use crate::ControlError;
use crate::events::EventSeq;

/// How old a time stamp may be, or how far in the future.
const TOLERANCE: Duration = Duration::from_secs(300);

/// The hook of an address that was called, if there is one; the sender is not told.
#[derive(Debug)]
pub struct CalledHook {
    known: Option<KnownHook>,
    /// The store's time.
    now: DateTime<Utc>,
}

impl CalledHook {
    /// The hook, and how often it may be called in a minute.
    pub fn limit(&self) -> Option<(HookId, u32)> {
        self.known.as_ref().map(|known| (known.hook.id, known.hook.spec.max_per_minute))
    }
}

/// What the sender is told of a call that was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct HookAnswer {
    /// The entry of the ledger.
    pub delivery: DeliveryId,
    /// What became of it.
    pub outcome: DeliveryOutcome,
    /// Why nothing came of it.
    pub reason: Option<String>,
    /// What is wrong, with its place in the hook.
    pub detail: Option<String>,
    /// The run that it started.
    pub run: Option<RunId>,
    /// The event that it became.
    pub event: Option<EventSeq>,
    /// Whether it came before, so that nothing was done now.
    pub is_repeated: bool,
}

impl From<Delivered> for HookAnswer {
    fn from(delivered: Delivered) -> Self {
        let Delivered { delivery, is_repeated } = delivered;
        let HookDelivery { id, outcome, reason, detail, run, event, .. } = delivery;
        Self { delivery: id, outcome, reason, detail, run, event, is_repeated }
    }
}

/// A call that was taken.
#[derive(Debug, Clone, PartialEq)]
pub enum ReceivedCall {
    /// It is in the ledger.
    Answer(HookAnswer),
    /// It is in the ledger, and the sender wants to have this text repeated.
    Challenge(String),
}

/// Why a call was not taken.
#[derive(Debug, thiserror::Error)]
pub enum CallRefused {
    /// There is no such hook, or the sender is not trusted: they learn nothing more.
    #[error("the address, the signature or the time stamp is wrong")]
    Untrusted,
    /// The sender is trusted, and the call is in the ledger.
    #[error("{reason}: {detail}")]
    Refused {
        /// Why.
        reason: RefusalReason,
        /// What is wrong.
        detail: String,
        /// The entry of the ledger.
        delivery: DeliveryId,
    },
    /// The store failed: whether the call was taken is unknown. With an id of the delivery, sending it again is safe.
    #[error(transparent)]
    Store(#[from] ControlError),
}

impl HookControl {
    /// The hook of the address that ends with this token.
    ///
    /// # Errors
    /// The store's.
    pub async fn find_called(&self, token: &str) -> Result<CalledHook, ControlError> {
        let Some(token) = HookToken::parse(token) else {
            return Ok(CalledHook { known: None, now: Utc::now() });
        };
        let (known, now) = self.store.find_called_hook(&token.digest()).await?;
        Ok(CalledHook { known, now })
    }

    /// Notes a call that was refused before anything of it was looked at: it came too often, or its body was too large.
    pub fn note_refusal(&self, called: &CalledHook, reason: RefusalReason) {
        if let Some(known) = &called.known {
            self.refusals.add(Refusal::of_untrusted(known.hook.id, reason, 0));
        }
    }

    /// Takes a call: verifies it, reads it, and does what the hook says. What it does, and its entry in the ledger, are one
    /// transaction: a call with an id that came before is answered with what became of the first.
    ///
    /// # Errors
    /// [`CallRefused`].
    pub async fn receive(
        &self,
        called: CalledHook,
        headers: &ReceivedHeaders,
        body: &[u8],
    ) -> Result<ReceivedCall, CallRefused> {
        let message = ReceivedWebhook { headers, body };
        let CalledHook { known, now } = called;
        let Some(KnownHook { hook, secrets }) = known else {
            message.verify_nothing();
            return Err(CallRefused::Untrusted);
        };
        let secrets = open(&self.keys, &hook, secrets)?;
        let verification = &hook.spec.verification;
        let (scheme, header) = (verification.scheme, verification.header.as_str());
        let size_bytes = i64::try_from(body.len()).unwrap_or(i64::MAX);
        if let Err(error) = message.verify(scheme, header, &secrets, now.timestamp(), TOLERANCE) {
            let reason = match error {
                UntrustedWebhook::BadSignature => RefusalReason::BadSignature,
                UntrustedWebhook::TooOld => RefusalReason::TooOld,
            };
            // Written later, so that the answer takes no longer than that of an unknown address.
            self.refusals.add(Refusal::of_untrusted(hook.id, reason, size_bytes));
            return Err(CallRefused::Untrusted);
        }
        let refusal = |reason| Refusal::of_untrusted(hook.id, reason, size_bytes);
        let limit = hook.spec.max_body_bytes;
        if size_bytes > i64::from(limit) {
            let detail = format!("the body may have at most {limit} bytes");
            return Err(self.refuse(refusal(RefusalReason::TooLarge), detail).await);
        }
        let call = match Call::read(headers, body, verification) {
            Ok(call) => call,
            Err(detail) => return Err(self.refuse(refusal(RefusalReason::NotJson), bounded(&detail)).await),
        };
        let key = call.key(scheme, body);
        let refusal = |reason| Refusal { key: key.clone(), call: Some(call.to_json()), ..refusal(reason) };
        let decided = decide(&hook, &call, key.as_deref(), None);
        let is_handshake =
            matches!(decided, Ok(PlannedAct::Nothing(FilterReason::Ping | FilterReason::Challenge)));
        if !hook.spec.enabled && !is_handshake {
            let detail = "the hook is disabled".to_owned();
            return Err(self.refuse(refusal(RefusalReason::Disabled), detail).await);
        }
        let act = match decided {
            Ok(act) => act,
            Err((reason, detail)) => return Err(self.refuse(refusal(reason), detail).await),
        };
        let repeated = matches!(act, PlannedAct::Nothing(FilterReason::Challenge))
            .then(|| challenge(&call).map(str::to_owned))
            .flatten();
        let planned = PlannedDelivery {
            id: DeliveryId::new(),
            hook: hook.id,
            project: hook.project,
            key: key.clone(),
            redelivery_of: None,
            by: None::<UserId>,
            call: call.to_json(),
            size_bytes,
            act,
        };
        match self.store.deliver(&planned).await {
            Ok(delivered) => Ok(match repeated {
                Some(text) => ReceivedCall::Challenge(text),
                None => ReceivedCall::Answer(delivered.into()),
            }),
            Err(ControlError::Conflict(conflict)) => Err(self
                .refuse(refusal(RefusalReason::of_conflict(&conflict)), bounded(&conflict.to_string()))
                .await),
            // It was deleted meanwhile.
            Err(ControlError::NotFound) => Err(CallRefused::Untrusted),
            Err(error) => Err(error.into()),
        }
    }

    /// Enters a refused call of a trusted sender in the ledger.
    async fn refuse(&self, refusal: Refusal, detail: String) -> CallRefused {
        let (reason, delivery) = (refusal.reason, refusal.id);
        let refusal = Refusal { detail: Some(detail.clone()), ..refusal };
        match self.store.note_refusals(std::slice::from_ref(&refusal)).await {
            Ok(()) => CallRefused::Refused { reason, detail, delivery },
            Err(error) => error.into(),
        }
    }
}

/// A detail that the ledger can keep.
pub(super) fn bounded(detail: &str) -> String {
    const MOST: usize = 1000;
    detail.replace('\0', "\u{fffd}").chars().take(MOST).collect()
}
