//! Encryption of stored secrets with the keys of a ring: XChaCha20-Poly1305 with a random nonce.
//!
//! What is sealed opens only in the context it was sealed in, so a row that was copied to another place does not open
//! there.

use gathering_domain::{ExposeSecret as _, Secret};
use orion::hazardous::aead::xchacha20poly1305::{Nonce, SecretKey, XChaCha20Poly1305};
use pasetors::keys::{Generate as _, SymmetricKey};
use pasetors::version4::V4;

use crate::keys::{KeyRing, TokenKey};

/// The bytes of a nonce, which stands before the encrypted text.
const NONCE: usize = 24;
/// The bytes of the tag, which stands after it.
const TAG: usize = 16;

/// A secret as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedValue {
    /// The id of the key. It may be public.
    pub key_id: String,
    /// The nonce, the encrypted text and its tag.
    pub bytes: Vec<u8>,
}

impl SealedValue {
    /// How many bytes the secret has.
    pub const fn size_bytes(&self) -> usize {
        Self::size_of_value(self.bytes.len())
    }

    /// How many bytes a secret has of which so many are stored.
    pub const fn size_of_value(stored: usize) -> usize {
        stored.saturating_sub(NONCE + TAG)
    }
}

/// Why something is not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct CannotSeal;

/// Why something sealed does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotOpen {
    /// It was sealed with a key that is not in the ring.
    #[error("it was encrypted with the key `{0}`, which this server does not have")]
    NoKey(String),
    /// It was changed, or belongs elsewhere.
    #[error("it does not decrypt with its key `{0}`: the stored bytes were changed, or belong elsewhere")]
    Altered(String),
}

impl KeyRing {
    /// The id of the key that seals.
    pub fn current_id(&self) -> &str {
        &self.current().id
    }

    /// Seals a secret in this context with the current key.
    ///
    /// # Errors
    /// [`CannotSeal`].
    pub fn seal(&self, secret: &Secret, context: &[u8]) -> Result<SealedValue, CannotSeal> {
        let TokenKey { id, key } = self.current();
        let text = secret.expose_secret().as_bytes();
        // 32 bytes from the system's generator, of which a nonce needs 24: many enough to be random for every seal.
        let random = SymmetricKey::<V4>::generate().map_err(|_| CannotSeal)?;
        let nonce = &random.as_bytes()[..NONCE];
        let mut bytes = vec![0; NONCE + text.len() + TAG];
        bytes[..NONCE].copy_from_slice(nonce);
        let sealed = (SecretKey::try_from(key.as_bytes()).ok().zip(Nonce::try_from(nonce).ok())).and_then(
            |(key, nonce)| {
                XChaCha20Poly1305::seal(&key, &nonce, text, Some(context), &mut bytes[NONCE..]).ok()
            },
        );
        sealed.map(|()| SealedValue { key_id: id.clone(), bytes }).ok_or(CannotSeal)
    }

    /// Opens what was sealed in this context.
    ///
    /// # Errors
    /// [`CannotOpen`], which names the key.
    pub fn open(&self, sealed: &SealedValue, context: &[u8]) -> Result<Secret, CannotOpen> {
        let SealedValue { key_id, bytes } = sealed;
        let key = self.find(key_id).ok_or_else(|| CannotOpen::NoKey(key_id.clone()))?;
        open(key, bytes, context).ok_or_else(|| CannotOpen::Altered(key_id.clone()))
    }
}

fn open(key: &TokenKey, bytes: &[u8], context: &[u8]) -> Option<Secret> {
    let (nonce, encrypted) = bytes.split_at_checked(NONCE)?;
    let mut text = vec![0; encrypted.len().checked_sub(TAG)?];
    let (key, nonce) = (SecretKey::try_from(key.key.as_bytes()).ok()?, Nonce::try_from(nonce).ok()?);
    XChaCha20Poly1305::open(&key, &nonce, encrypted, Some(context), &mut text).ok()?;
    String::from_utf8(text).ok().map(Secret::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_in_its_context_alone() {
        let ring = KeyRing::generate().unwrap();
        let secret = Secret::from("hunter2");
        let sealed = ring.seal(&secret, b"a/KEY").unwrap();
        assert_eq!(sealed.size_bytes(), 7);
        assert!(!sealed.bytes.windows(7).any(|part| part == b"hunter2"));
        assert_eq!(ring.open(&sealed, b"a/KEY").unwrap().expose_secret(), "hunter2");
        let altered = CannotOpen::Altered(ring.current_id().to_owned());
        assert_eq!(ring.open(&sealed, b"b/KEY").unwrap_err(), altered);
        for at in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[at] ^= 1;
            assert_eq!(ring.open(&changed, b"a/KEY").unwrap_err(), altered, "byte {at}");
        }
        for length in 0..NONCE + TAG {
            let short = SealedValue { bytes: sealed.bytes[..length].to_vec(), ..sealed.clone() };
            assert_eq!(ring.open(&short, b"a/KEY").unwrap_err(), altered);
        }
        assert_ne!(ring.seal(&secret, b"a/KEY").unwrap().bytes, sealed.bytes, "every seal has its own nonce");
    }

    #[test]
    fn a_retired_key_opens_and_a_missing_one_is_named() {
        let ring = KeyRing::generate().unwrap();
        let sealed = ring.seal(&Secret::from("hunter2"), b"").unwrap();
        let rotated = ring.rotated().unwrap();
        assert_eq!(rotated.open(&sealed, b"").unwrap().expose_secret(), "hunter2");
        let resealed = rotated.seal(&Secret::from("hunter2"), b"").unwrap();
        assert_eq!(resealed.key_id, rotated.current_id());
        let missing = KeyRing::generate().unwrap().open(&sealed, b"").unwrap_err();
        assert_eq!(missing, CannotOpen::NoKey(sealed.key_id));
    }
}
