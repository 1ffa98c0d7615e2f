//! The secrets of hooks, encrypted with the keys of the secrets of projects.
//!
//! Owns what a secret is bound to, and what becomes of those that are not encrypted with the current key, or not at all.

use gathering_auth::{KeyRing, SealedValue};
use gathering_domain::{HookId, ProjectId, Secret};

use super::{Hook, HookControl};
use crate::ControlError;

/// How many hooks one transaction encrypts anew.
const BATCH: usize = 100;

/// A secret of a hook, as it is stored.
#[derive(Debug, Clone)]
pub enum HookSecret {
    /// Not encrypted: an earlier version of the server stored it.
    Open(Secret),
    /// Encrypted.
    Sealed(SealedValue),
}

impl HookSecret {
    /// Whether the key with this id encrypted it.
    pub fn is_of_key(&self, key_id: &str) -> bool {
        matches!(self, HookSecret::Sealed(sealed) if sealed.key_id == key_id)
    }
}

/// The secrets of a hook as they are stored, the latest first. For the server itself.
#[derive(Debug, Clone)]
pub struct HookSecrets {
    /// The hook.
    pub hook: HookId,
    /// Its project.
    pub project: ProjectId,
    /// The secrets.
    pub secrets: Vec<HookSecret>,
}

/// What becomes of secrets that are not all encrypted with the current key; `None` leaves them as they are.
pub type HookSealRule<'r> = dyn Fn(&HookSecrets) -> Option<Vec<SealedValue>> + Sync + 'r;

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResealedHooks {
    /// Of how many hooks the secrets are encrypted anew.
    pub n_resealed: usize,
    /// The last one that was looked at; `None` if there is no more.
    pub last: Option<HookId>,
}

/// What is encrypted with a secret, so that it opens only as one of this hook of this project.
fn context(project: ProjectId, hook: HookId) -> Vec<u8> {
    format!("hook {project} {hook}").into_bytes()
}

/// Encrypts the secrets that are not.
///
/// # Errors
/// [`ControlError::Broken`].
pub(super) fn seal(
    keys: &KeyRing,
    (project, hook): (ProjectId, HookId),
    secrets: impl IntoIterator<Item = HookSecret>,
) -> Result<Vec<SealedValue>, ControlError> {
    let seal = |secret| match secret {
        HookSecret::Sealed(sealed) => Ok(sealed),
        HookSecret::Open(secret) => keys.seal(&secret, &context(project, hook)),
    };
    let sealed: Result<_, _> = secrets.into_iter().map(seal).collect();
    sealed.map_err(|error| ControlError::Broken(error.into()))
}

/// Decrypts the secrets of a hook.
///
/// # Errors
/// [`ControlError::Unavailable`] if one does not decrypt: then nobody can tell whether a call is trusted, and the sender
/// is to try again.
pub(super) fn open(
    keys: &KeyRing,
    hook: &Hook,
    secrets: Vec<HookSecret>,
) -> Result<Vec<Secret>, ControlError> {
    let open = |secret| match secret {
        HookSecret::Open(secret) => Ok(secret),
        HookSecret::Sealed(sealed) => keys.open(&sealed, &context(hook.project, hook.id)),
    };
    let opened: Result<_, _> = secrets.into_iter().map(open).collect();
    opened.map_err(|error| {
        tracing::error!(hook.id = %hook.id, "cannot read the secrets of hook {}: {error}", hook.id);
        ControlError::Unavailable(error.into())
    })
}

impl HookControl {
    /// Encrypts with the current key the secrets of hooks that another key encrypted, or none; answers of how many hooks
    /// that were. Those whose key is missing stay as they are, and are logged.
    ///
    /// Repeats: safe, also on several instances at once. Cancel: safe; a batch takes place whole or not at all.
    ///
    /// # Errors
    /// The store's; repeating goes on from there.
    pub async fn reseal(&self) -> Result<usize, ControlError> {
        let seal = |stored: &HookSecrets| match reseal(&self.keys, stored) {
            Ok(sealed) => Some(sealed),
            Err(error) => {
                let hook = stored.hook;
                tracing::warn!(hook.id = %hook, "cannot encrypt the secrets of hook {hook} with the current key: {error}");
                None
            }
        };
        let (mut n_resealed, mut after) = (0, None);
        loop {
            let batch = self.store.reseal_hooks(self.keys.current_id(), after, BATCH, &seal).await?;
            n_resealed += batch.n_resealed;
            match batch.last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        if n_resealed > 0 {
            tracing::info!("the secrets of {n_resealed} hooks are now encrypted with the current key");
        }
        Ok(n_resealed)
    }
}

fn reseal(
    keys: &KeyRing,
    stored: &HookSecrets,
) -> Result<Vec<SealedValue>, Box<dyn std::error::Error + Send + Sync>> {
    let context = context(stored.project, stored.hook);
    let reseal = |secret: &HookSecret| match secret {
        HookSecret::Open(secret) => Ok(keys.seal(secret, &context)?),
        secret @ HookSecret::Sealed(sealed) if secret.is_of_key(keys.current_id()) => Ok(sealed.clone()),
        HookSecret::Sealed(sealed) => Ok(keys.seal(&keys.open(sealed, &context)?, &context)?),
    };
    stored.secrets.iter().map(reseal).collect()
}
