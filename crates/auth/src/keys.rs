//! Keys that encrypt, of access tokens or of the secrets of projects: one that is in use, and retired ones that are still
//! accepted.

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use gathering_domain::{ExposeSecret, Secret};
use pasetors::keys::{Generate, SymmetricKey};
use pasetors::paserk::{FormatAsPaserk, Id};
use pasetors::version4::V4;

/// The maximum number of keys. A retired key is needed for the lifetime of an access token, or until the secrets are
/// encrypted with the new one.
const MAX_KEYS: usize = 16;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A key with its id, which is its PASERK `k4.lid.…` and may be public.
pub(crate) struct TokenKey {
    pub(crate) id: String,
    pub(crate) key: SymmetricKey<V4>,
}

/// The keys of one installation, shared by all its instances. `Debug` shows only their ids.
///
/// To rotate, put a new key first ([`KeyRing::rotated`]) on every instance, and remove the last one after the lifetime
/// of an access token. If instances restart one at a time, append the new key first, so that every instance accepts it
/// before any issues with it. Then put it first. Neither way logs anybody out, because refresh tokens do not depend on
/// these keys.
pub struct KeyRing {
    current: TokenKey,
    retired: Vec<TokenKey>,
}

/// Why a text contains no valid keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The text is empty.
    #[error("no key: set one as `k4.local.…` or as 32 bytes in base64")]
    Missing,
    /// One of the keys is invalid. The error does not repeat it.
    #[error("key {position} is neither a PASERK `k4.local.…` nor 32 bytes in base64")]
    Malformed {
        /// Its position, counted from 1.
        position: usize,
    },
    /// There are too many keys.
    #[error("{n_keys} keys exceed the limit of {MAX_KEYS}: remove the oldest")]
    TooMany {
        /// The number of keys.
        n_keys: usize,
    },
    /// The system provides no randomness.
    #[error("the system's random number generator failed")]
    NoRandomness,
}

impl KeyRing {
    /// A ring with one new random key.
    ///
    /// # Errors
    /// [`InvalidKey::NoRandomness`].
    pub fn generate() -> Result<Self, InvalidKey> {
        Ok(Self { current: TokenKey::generate()?, retired: Vec::new() })
    }

    /// Parses keys separated by blanks, commas or line ends, each a PASERK `k4.local.…` or 32 bytes in base64 (standard
    /// or URL-safe). The first key issues, the others are only accepted. `#` starts a comment that ends with the line.
    ///
    /// # Errors
    /// [`InvalidKey`] for the first invalid key, by its position.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let words: Vec<&str> = text
            .lines()
            .map(|line| line.split_once('#').map_or(line, |(before, _)| before))
            .flat_map(|line| line.split([' ', '\t', ',']))
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .collect();
        if words.len() > MAX_KEYS {
            return Err(InvalidKey::TooMany { n_keys: words.len() });
        }
        let mut keys = words
            .into_iter()
            .enumerate()
            .map(|(index, word)| TokenKey::parse(word).ok_or(InvalidKey::Malformed { position: index + 1 }));
        let current = keys.next().ok_or(InvalidKey::Missing)??;
        Ok(Self { current, retired: keys.collect::<Result<_, _>>()? })
    }

    /// The ring as [`KeyRing::parse`] accepts it, one PASERK per line, for a file that only the server may read.
    pub fn to_text(&self) -> Secret {
        let mut text = String::new();
        for key in self.keys() {
            // Writing to a string cannot fail. The next start would find an invalid line.
            let _ = FormatAsPaserk::fmt(&key.key, &mut text);
            text.push('\n');
        }
        Secret::from(text)
    }

    /// The ring with a new random key in front. Drops the oldest key if there are too many.
    ///
    /// # Errors
    /// [`InvalidKey::NoRandomness`].
    pub fn rotated(self) -> Result<Self, InvalidKey> {
        let mut retired = vec![self.current];
        retired.extend(self.retired);
        retired.truncate(MAX_KEYS - 1);
        Ok(Self { current: TokenKey::generate()?, retired })
    }

    /// The ids of the keys, the issuing one first. They may be public.
    pub fn key_ids(&self) -> Vec<&str> {
        self.keys().map(|key| key.id.as_str()).collect()
    }

    pub(crate) fn current(&self) -> &TokenKey {
        &self.current
    }

    pub(crate) fn find(&self, id: &str) -> Option<&TokenKey> {
        self.keys().find(|key| key.id == id)
    }

    fn keys(&self) -> impl Iterator<Item = &TokenKey> {
        std::iter::once(&self.current).chain(&self.retired)
    }
}

impl TokenKey {
    fn new(key: SymmetricKey<V4>) -> Self {
        let mut id = String::new();
        // Writing to a string cannot fail.
        let _ = Id::from(&key).fmt(&mut id);
        Self { id, key }
    }

    fn generate() -> Result<Self, InvalidKey> {
        SymmetricKey::generate().map(Self::new).map_err(|_| InvalidKey::NoRandomness)
    }

    fn parse(word: &str) -> Option<Self> {
        if word.starts_with("k4.local.") {
            return SymmetricKey::try_from(word).ok().map(Self::new);
        }
        let bytes = STANDARD.decode(word).or_else(|_| URL_SAFE.decode(word)).ok()?;
        SymmetricKey::from(&bytes).ok().map(Self::new)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyRing").field(&self.key_ids()).finish()
    }
}

/// Rings are equal if their keys are equal, in order.
impl PartialEq for KeyRing {
    fn eq(&self, other: &Self) -> bool {
        self.to_text().expose_secret() == other.to_text().expose_secret()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_survives_a_round_trip() {
        let ring = KeyRing::generate().unwrap().rotated().unwrap();
        let text = ring.to_text();
        assert_eq!(text.expose_secret().lines().count(), 2);
        assert_eq!(KeyRing::parse(text.expose_secret()).unwrap(), ring);
    }

    #[test]
    fn base64_and_paserk_name_the_same_key() {
        let bytes = [0xfb_u8; 32];
        let standard = base64::engine::general_purpose::STANDARD.encode(bytes);
        let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let ring =
            KeyRing::parse(&format!("{standard}  # the new one\n{url_safe}, k4.local.{url_safe}")).unwrap();
        let ids = ring.key_ids();
        assert_eq!(ids.len(), 3);
        assert!(ids.iter().all(|id| *id == ids[0] && id.starts_with("k4.lid.")));
    }

    #[test]
    fn an_invalid_key_is_named_by_its_position_and_not_repeated() {
        let good = KeyRing::generate().unwrap().to_text();
        let error = KeyRing::parse(&format!("{}, hunter2", good.expose_secret())).unwrap_err();
        assert_eq!(error, InvalidKey::Malformed { position: 2 });
        assert!(!error.to_string().contains("hunter2"));
        assert_eq!(KeyRing::parse(" # nothing\n"), Err(InvalidKey::Missing));
        assert!(KeyRing::parse("k4.local.AAAA").is_err());
    }

    #[test]
    fn keys_are_not_shown() {
        let ring = KeyRing::generate().unwrap();
        let paserk = ring.to_text().expose_secret().trim().to_owned();
        assert!(!format!("{ring:?}").contains(&paserk["k4.local.".len()..]));
    }
}
