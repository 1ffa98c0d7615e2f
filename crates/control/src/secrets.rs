//! Secrets of projects: values that nodes send to the outside and that nobody is shown.
//!
//! Owns who sets and deletes them, how many and how large they are, and with which key each is encrypted. [`open`] has
//! how nodes come to the values. Never knows how a node uses them, and the store never sees a value.

mod open;
mod reseal;
mod sources;
mod uses;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gathering_auth::{AuditEvent, AuditKind, Caller, KeyRing, SealedValue};
use gathering_cache::BoundedCache;
use gathering_domain::{ExposeSecret as _, Pointer, Problems, ProjectId, Secret, SecretId, SecretName};
use serde_json::json;

use self::open::Opened;
use self::uses::UseLog;
use crate::access::{Scoped, right};
use crate::projects::ProjectControl;
use crate::{Conflict, ControlError, ControlStore};

pub use open::StoredSecrets;
pub use reseal::{ResealedBatch, SealRule, SealedSecret};
pub use sources::SecretSources;
pub use uses::{SecretUse, SecretUseService, SecretUser};

/// The most secrets of a project.
pub const MAX_SECRETS: usize = 200;
/// The largest value, in bytes.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;
/// The smallest value, in bytes: a shorter one would be taken out of texts that have nothing to do with it.
pub const MIN_SECRET_BYTES: usize = 4;
/// The most bytes of all values of a project: every instance that runs its nodes has them in memory.
pub const MAX_SECRETS_BYTES: usize = 256 * 1024;

/// For how many projects an instance has the values in memory.
const N_CACHED_PROJECTS: u64 = 128;

/// A secret as it is shown: everything but its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectSecret {
    /// Its id, which sorts by when it was created.
    pub id: SecretId,
    /// Its name in the project.
    pub name: SecretName,
    /// The id of the key that it is encrypted with.
    pub key_id: String,
    /// When it was created, in UTC.
    pub created_at: DateTime<Utc>,
    /// When its value was last set, in UTC.
    pub updated_at: DateTime<Utc>,
    /// When a run last began to use it, in UTC.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A secret that is to be set. Only this crate makes one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PlannedSecret {
    /// The id that it gets if it is new.
    pub id: SecretId,
    /// Its name.
    pub name: SecretName,
    /// Its value, encrypted.
    pub sealed: SealedValue,
    /// The event that is recorded with it.
    pub audit: AuditEvent,
}

/// The other secrets of a project, as a store counts them while it holds the lock of the project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OtherSecrets {
    /// How many there are.
    pub n_secrets: usize,
    /// How many bytes their values have.
    pub size_bytes: usize,
}

impl PlannedSecret {
    /// Whether the project has room for it beside its others.
    ///
    /// # Errors
    /// [`Conflict::TooManySecrets`], [`Conflict::SecretsTooLarge`].
    pub fn check(&self, others: OtherSecrets) -> Result<(), ControlError> {
        if others.n_secrets >= MAX_SECRETS {
            return Err(Conflict::TooManySecrets.into());
        }
        if others.size_bytes + self.sealed.size_bytes() > MAX_SECRETS_BYTES {
            return Err(Conflict::SecretsTooLarge.into());
        }
        Ok(())
    }
}

/// What is encrypted with a value, so that it opens only as this secret of this project.
fn context(project: ProjectId, name: &SecretName) -> Vec<u8> {
    format!("secret {project} {name}").into_bytes()
}

/// What may be done with secrets. Cloning is cheap and shares the store.
#[derive(Clone)]
pub struct SecretControl {
    store: Arc<dyn ControlStore>,
    projects: ProjectControl,
    keys: Arc<KeyRing>,
    sources: Arc<SecretSources>,
    opened: Arc<BoundedCache<ProjectId, Arc<Opened>>>,
    uses: Arc<UseLog>,
}

impl SecretControl {
    /// The secrets of this store, encrypted with `keys`, and those that the operator gives by other ways.
    pub fn new(store: Arc<dyn ControlStore>, keys: KeyRing, sources: SecretSources) -> Self {
        Self {
            projects: ProjectControl::new(Arc::clone(&store)),
            keys: Arc::new(keys),
            sources: Arc::new(sources),
            opened: Arc::new(BoundedCache::new("secrets", N_CACHED_PROJECTS)),
            uses: Arc::default(),
            store,
        }
    }

    /// The keys: the secrets of hooks are encrypted with them as well.
    pub fn keys(&self) -> Arc<KeyRing> {
        Arc::clone(&self.keys)
    }

    /// At most `limit` secrets of the project, without their values, in the order in which they were created. `after` is
    /// the last of the previous page.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn list(
        &self,
        caller: &Caller,
        project: ProjectId,
        after: Option<SecretId>,
        limit: usize,
    ) -> Result<Vec<ProjectSecret>, ControlError> {
        let project = self.projects.find::<right::Read>(caller, project).await?;
        self.store.list_secrets(&project, after, limit).await
    }

    /// Sets a secret, and answers whether it is new. Nodes that start from the answer on get this value. The event is
    /// recorded.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Forbidden`] or [`ControlError::Revoked`];
    /// [`ControlError::Invalid`] for a value that is too short or too large; [`Conflict::TooManySecrets`],
    /// [`Conflict::SecretsTooLarge`]. Nothing was changed. Or the store's.
    pub async fn set(
        &self,
        caller: &Caller,
        project: ProjectId,
        name: SecretName,
        value: &Secret,
    ) -> Result<bool, ControlError> {
        let scoped = self.projects.find::<right::Write>(caller, project).await?;
        let size = value.expose_secret().len();
        if !(MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&size) {
            let message = format!("must have {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes");
            return Err(ControlError::Invalid(Problems::one(Pointer::root().join("value"), message)));
        }
        let sealed = self.keys.seal(value, &context(project, &name));
        let sealed = sealed.map_err(|error| ControlError::Broken(error.into()))?;
        let audit = audit(AuditKind::SecretSet, &scoped, &name);
        let planned = PlannedSecret { id: SecretId::new(), name, sealed, audit };
        let is_new = self.store.set_secret(&scoped, &planned).await?;
        self.opened.remove(&project);
        tracing::info!(project.id = %project, secret.name = %planned.name, "secret {} is set", planned.name);
        Ok(is_new)
    }

    /// Deletes a secret. Nodes that use it fail from the answer on. The event is recorded.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], also for a secret that the project does not have; [`ControlError::Forbidden`] or
    /// [`ControlError::Revoked`]. Or the store's.
    pub async fn delete(
        &self,
        caller: &Caller,
        project: ProjectId,
        name: &SecretName,
    ) -> Result<(), ControlError> {
        let scoped = self.projects.find::<right::Write>(caller, project).await?;
        let audit = audit(AuditKind::SecretDeleted, &scoped, name);
        self.store.delete_secret(&scoped, name, &audit).await?;
        self.opened.remove(&project);
        tracing::info!(project.id = %project, secret.name = %name, "secret {name} is deleted");
        Ok(())
    }
}

fn audit(kind: AuditKind, project: &Scoped<ProjectId, right::Write>, name: &SecretName) -> AuditEvent {
    let (id, by) = (*project.thing(), project.user());
    let detail = json!({ "project": id, "secret": name, "by": by });
    AuditEvent::new(kind, by, project.origin()).with_detail(detail)
}
