//! What is kept of hooks and their ledgers.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_auth::{AuditEvent, Caller};
use gathering_domain::{DeliveryId, Digest, HookId, ProjectId, UserId};

use crate::access::{Found, Scoped, right};
use crate::hooks::{
    Delivered, Hook, HookChangeRule, HookDelivery, HookSealRule, KnownHook, NewHook, PlannedDelivery,
    Refusal, ResealedHooks, StoredCall,
};
use crate::{ControlError, Creation};

/// Keeps hooks and their ledgers. What [`ControlStore`](crate::ControlStore) says of every method holds here.
///
/// Calls come without a caller: what a store writes of them are a [`PlannedDelivery`] and a [`Refusal`], which only this
/// crate makes, of calls that it has judged.
#[async_trait]
pub trait HookStore: Send + Sync + 'static {
    /// Creates a hook, and records the event.
    ///
    /// With `new.once` and a caller it creates one hook: a repeated request is answered with that one, for at least 24
    /// hours.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] if the project is gone; nothing was created.
    async fn create_hook(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        new: &NewHook,
    ) -> Result<Creation<Hook>, ControlError>;

    /// The hook, and the caller's role in its project; also if they are not a member.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_hook(&self, by: &Caller, hook: HookId) -> Result<Option<Found<Hook>>, ControlError>;

    /// At most `limit` hooks of accounts, the newest first: those in the projects of this member (absent: all), in this
    /// project (absent: in any), and older than `before`.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_hooks(
        &self,
        visible_to: Option<UserId>,
        project: Option<ProjectId>,
        before: Option<HookId>,
        limit: usize,
    ) -> Result<Vec<Hook>, ControlError>;

    /// Changes the hook to what `rule` makes of it under a lock, sets `updated_at` to the store's time, and records the
    /// event.
    ///
    /// # Errors
    /// Those of `rule`; [`ControlError::NotFound`] if the hook is gone. Nothing was changed.
    async fn change_hook(
        &self,
        hook: &Scoped<Hook, right::Write>,
        rule: &HookChangeRule<'_>,
    ) -> Result<Hook, ControlError>;

    /// Deletes the hook with its ledger, and records the event. Repeats: safe.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn delete_hook(
        &self,
        hook: &Scoped<Hook, right::Write>,
        audit: &AuditEvent,
    ) -> Result<(), ControlError>;

    /// The hook whose token has this digest, with its secrets, and the store's time. For the server itself: it checks no
    /// access.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_called_hook(
        &self,
        token: &Digest,
    ) -> Result<(Option<KnownHook>, DateTime<Utc>), ControlError>;

    /// Replaces the secrets that are not all encrypted with the key `key_id` by what `seal` makes of them; `None` leaves
    /// them. Looks at no more than `limit` hooks, in the order of their ids, later than `after`, and at none that another
    /// instance is working on.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn reseal_hooks(
        &self,
        key_id: &str,
        after: Option<HookId>,
        limit: usize,
        seal: &HookSealRule<'_>,
    ) -> Result<ResealedHooks, ControlError>;

    /// Enters a delivery in the ledger, and does what it is to do, as one transaction: posts its event, or accepts the run
    /// of [`PlannedDelivery::plan_run`], with its pipeline under a lock.
    ///
    /// One whose key the hook has seen is counted at the first, which is the answer, and does nothing. Of several at once,
    /// one does something. A redelivery is always new.
    ///
    /// # Errors
    /// Those of [`PlannedDelivery::plan_run`]; [`ControlError::NotFound`] if the hook is gone. Nothing was written.
    async fn deliver(&self, delivery: &PlannedDelivery) -> Result<Delivered, ControlError>;

    /// Enters refused calls in the ledger. Beyond [`REFUSALS_PER_HOUR`](crate::REFUSALS_PER_HOUR) of a hook they are
    /// counted at the latest entry with the same reason, and keep nothing. Those of hooks that are gone are left out.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn note_refusals(&self, refusals: &[Refusal]) -> Result<(), ControlError>;

    /// At most `limit` entries of the ledger, the latest first, older than `before`.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_deliveries(
        &self,
        hook: &Scoped<Hook, right::Read>,
        before: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Vec<HookDelivery>, ControlError>;

    /// What the ledger of the hook kept of a call; `None` if it has no such entry.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_call(
        &self,
        hook: &Scoped<Hook, right::Run>,
        delivery: DeliveryId,
    ) -> Result<Option<StoredCall>, ControlError>;
}
