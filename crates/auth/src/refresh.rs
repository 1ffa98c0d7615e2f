//! Refresh tokens: long random texts that are shown once and kept only as digests.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gathering_domain::{Digest, ExposeSecret, Secret};
use pasetors::keys::{Generate, SymmetricKey};
use pasetors::version4::V4;

/// Says in logs and secret scanners what leaked.
const PREFIX: &str = "grt_";
const LENGTH: usize = PREFIX.len() + 43;

/// A refresh token: `grt_` and 32 random bytes in base64url. Not shown in `Debug`.
#[derive(Clone)]
pub struct RefreshToken(Secret);

impl RefreshToken {
    /// A new one; `None` if the system gives no randomness.
    pub(crate) fn generate() -> Option<Self> {
        // A symmetric key of PASETO v4 is nothing but 32 bytes from the system's generator, wiped when dropped.
        let bytes = SymmetricKey::<V4>::generate().ok()?;
        Some(Self(Secret::from(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.as_bytes())))))
    }

    /// Reads one that a client sent; `None` if it cannot be one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let body = text.strip_prefix(PREFIX).filter(|_| text.len() == LENGTH)?;
        let is_base64url =
            body.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        is_base64url.then(|| Self(Secret::from(text)))
    }

    /// What is stored of it. A plain digest suffices: there are 256 random bits to guess.
    pub fn digest(&self) -> Digest {
        Digest::of(self.0.expose_secret().as_bytes())
    }

    /// The text for the client. Not for logs.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_way_to_the_client_and_back() {
        let token = RefreshToken::generate().unwrap();
        assert_eq!(RefreshToken::parse(token.expose()).unwrap().digest(), token.digest());
        assert_ne!(RefreshToken::generate().unwrap().digest(), token.digest());
        assert!(!format!("{token:?}").contains(token.expose()));
    }

    #[test]
    fn what_cannot_be_a_token_is_not_looked_up() {
        let long = format!("{PREFIX}{}", "a".repeat(44));
        let wide = format!("{PREFIX}{}", "ä".repeat(21) + "a");
        for text in ["", "grt_", "v4.local.abc", &long, &wide] {
            assert!(RefreshToken::parse(text).is_none(), "{text}");
        }
    }
}
