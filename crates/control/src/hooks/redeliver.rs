//! Sending a call again that the ledger kept.

use gathering_auth::Caller;
use gathering_domain::{DeliveryId, HookId};

use super::call::Call;
use super::decide::decide;
use super::receive::bounded;
use super::{DeliveryOutcome, HookAnswer, HookControl, PlannedDelivery, Refusal, RefusalReason, StoredCall};
use crate::access::right;
use crate::{Conflict, ControlError};

impl HookControl {
    /// Has a call do again what the hook says now: filter, mapping, and the event or the run. That is a new delivery, which
    /// names the first. The hook may be disabled.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`]; [`Conflict::NotRedeliverable`]. After
    /// [`ControlError::Unavailable`] it is unknown whether it was done.
    pub async fn redeliver(
        &self,
        caller: &Caller,
        hook: HookId,
        delivery: DeliveryId,
    ) -> Result<HookAnswer, ControlError> {
        let hook = self.find::<right::Run>(caller, hook).await?;
        let stored = self.store.find_call(&hook, delivery).await?.ok_or(ControlError::NotFound)?;
        let StoredCall { call, key, redelivery_of, size_bytes } = stored;
        let call = Call::of_json(call.ok_or(Conflict::NotRedeliverable)?);
        let first = redelivery_of.unwrap_or(delivery);
        let (id, kept) = (DeliveryId::new(), call.to_json());
        let refusal = |reason| Refusal {
            id,
            key: key.clone(),
            redelivery_of: Some(first),
            call: Some(kept.clone()),
            ..Refusal::of_untrusted(hook.id, reason, size_bytes)
        };
        let act = match decide(&hook, &call, key.as_deref(), Some(first)) {
            Ok(act) => act,
            Err((reason, detail)) => return self.refused(refusal(reason), detail).await,
        };
        let planned = PlannedDelivery {
            id,
            hook: hook.id,
            project: hook.project,
            key: key.clone(),
            redelivery_of: Some(first),
            by: Some(caller.user),
            call: kept.clone(),
            size_bytes,
            act,
        };
        match self.store.deliver(&planned).await {
            Ok(delivered) => Ok(delivered.into()),
            Err(ControlError::Conflict(conflict)) => {
                self.refused(refusal(RefusalReason::of_conflict(&conflict)), bounded(&conflict.to_string()))
                    .await
            }
            Err(error) => Err(error),
        }
    }

    async fn refused(&self, refusal: Refusal, detail: String) -> Result<HookAnswer, ControlError> {
        let answer = HookAnswer {
            delivery: refusal.id,
            outcome: DeliveryOutcome::Refused,
            reason: Some(refusal.reason.to_string()),
            detail: Some(detail.clone()),
            run: None,
            event: None,
            is_repeated: false,
        };
        self.store.note_refusals(&[Refusal { detail: Some(detail), ..refusal }]).await?;
        Ok(answer)
    }
}
