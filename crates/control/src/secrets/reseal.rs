//! After a new key came first in the ring: what older keys encrypted is encrypted with it, batch by batch.

use gathering_auth::SealedValue;
use gathering_domain::{ProjectId, SecretId, SecretName};

use super::{SecretControl, context};
use crate::ControlError;

/// How many secrets one transaction encrypts anew.
const BATCH: usize = 100;

/// An encrypted secret, wherever it belongs. For the server itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// Its id.
    pub id: SecretId,
    /// Its project.
    pub project: ProjectId,
    /// Its name.
    pub name: SecretName,
    /// Its value, encrypted.
    pub sealed: SealedValue,
}

/// What becomes of a secret that another key encrypted; `None` leaves it as it is.
pub type SealRule<'r> = dyn Fn(&SealedSecret) -> Option<SealedValue> + Sync + 'r;

impl SecretControl {
    /// Encrypts with the current key whatever another key encrypted; answers with how many secrets that were. Those
    /// whose key is missing stay as they are, and are logged.
    ///
    /// Repeats: safe, also on several instances at once. Cancel: safe; a batch takes place whole or not at all.
    ///
    /// # Errors
    /// The store's; repeating goes on from there.
    pub async fn reseal(&self) -> Result<usize, ControlError> {
        let seal = |secret: &SealedSecret| {
            let context = context(secret.project, &secret.name);
            match self.keys.open(&secret.sealed, &context) {
                Ok(value) => self.keys.seal(&value, &context).ok(),
                Err(error) => {
                    tracing::warn!(
                        project.id = %secret.project, secret.name = %secret.name,
                        "cannot encrypt secret {} with the current key: {error}", secret.name
                    );
                    None
                }
            }
        };
        let (mut n_resealed, mut after) = (0, None);
        loop {
            let batch = self.store.reseal_secrets(self.keys.current_id(), after, BATCH, &seal).await?;
            n_resealed += batch.n_resealed;
            match batch.last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        if n_resealed > 0 {
            tracing::info!("{n_resealed} secrets are now encrypted with the current key");
        }
        Ok(n_resealed)
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResealedBatch {
    /// How many secrets are encrypted anew.
    pub n_resealed: usize,
    /// The last one that was looked at; `None` if there is no more.
    pub last: Option<SecretId>,
}
