//! Refresh tokens: long random texts that are shown once and stored only as digests.

use std::fmt;

use gathering_domain::Digest;

use crate::opaque::OpaqueToken;

/// The prefix identifies leaked tokens in logs and secret scanners.
const PREFIX: &str = "grt_";

/// A refresh token: `grt_` and 32 random bytes in base64url. `Debug` does not show it.
#[derive(Clone)]
pub struct RefreshToken(OpaqueToken);

impl RefreshToken {
    /// A new token; `None` if the system provides no randomness.
    pub(crate) fn generate() -> Option<Self> {
        OpaqueToken::generate(PREFIX).map(Self)
    }

    /// Parses a token from a client; `None` if it cannot be one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        OpaqueToken::parse(PREFIX, text).map(Self)
    }

    /// The digest that is stored. A plain digest suffices, because there are 256 random bits to guess.
    pub fn digest(&self) -> Digest {
        self.0.digest()
    }

    /// The text for the client. Do not log it.
    pub fn expose(&self) -> &str {
        self.0.expose()
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
    fn a_token_survives_a_round_trip() {
        let token = RefreshToken::generate().unwrap();
        assert_eq!(RefreshToken::parse(token.expose()).unwrap().digest(), token.digest());
        assert_ne!(RefreshToken::generate().unwrap().digest(), token.digest());
        assert!(!format!("{token:?}").contains(token.expose()));
    }

    #[test]
    fn text_that_cannot_be_a_token_is_not_looked_up() {
        let long = format!("{PREFIX}{}", "a".repeat(44));
        let wide = format!("{PREFIX}{}", "ä".repeat(21) + "a");
        for text in ["", "grt_", "v4.local.abc", &long, &wide] {
            assert!(RefreshToken::parse(text).is_none(), "{text}");
        }
    }
}
