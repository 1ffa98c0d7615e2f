//! What is kept of secrets.

use async_trait::async_trait;
use gathering_auth::AuditEvent;
use gathering_domain::{ProjectId, SecretId, SecretName};

use crate::ControlError;
use crate::access::{Scoped, right};
use crate::secrets::{PlannedSecret, ProjectSecret, ResealedBatch, SealRule, SecretUse, StoredSecrets};

/// Keeps secrets, encrypted. What [`ControlStore`](crate::ControlStore) says of every method holds here.
#[async_trait]
pub trait SecretStore: Send + Sync + 'static {
    /// Sets a secret, and records the event; answers whether it is new. Locks the project first, so that changes of its
    /// secrets follow each other, checks the right again, asks [`PlannedSecret::check`], and raises the project's version
    /// of its secrets.
    ///
    /// # Errors
    /// As `check` answers; [`ControlError::NotFound`], [`ControlError::Forbidden`] or [`ControlError::Revoked`] if the
    /// caller may not do it any more, or the project is gone. Nothing was changed.
    async fn set_secret(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        secret: &PlannedSecret,
    ) -> Result<bool, ControlError>;

    /// Deletes a secret, raises the version, and records the event.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] if there is none of this name; as [`SecretStore::set_secret`].
    async fn delete_secret(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        name: &SecretName,
        audit: &AuditEvent,
    ) -> Result<(), ControlError>;

    /// At most `limit` secrets in the order of their ids, later than `after`.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_secrets(
        &self,
        project: &Scoped<ProjectId, right::Read>,
        after: Option<SecretId>,
        limit: usize,
    ) -> Result<Vec<ProjectSecret>, ControlError>;

    /// The version of the project's secrets, and the secrets unless it is the `known` one. A project that is gone has
    /// none. For the server itself: it checks no access.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_secrets(
        &self,
        project: ProjectId,
        known: Option<i64>,
    ) -> Result<StoredSecrets, ControlError>;

    /// Sets the time of the last use, and records the events. Secrets that are not stored have only the event.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn note_secret_uses(&self, uses: &[SecretUse]) -> Result<(), ControlError>;

    /// Replaces what is encrypted with another key than `key_id` by what `seal` makes of it; `None` leaves it. Looks at
    /// no more than `limit` secrets, in the order of their ids, later than `after`, and at none that another instance is
    /// working on.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn reseal_secrets(
        &self,
        key_id: &str,
        after: Option<SecretId>,
        limit: usize,
        seal: &SealRule<'_>,
    ) -> Result<ResealedBatch, ControlError>;
}
