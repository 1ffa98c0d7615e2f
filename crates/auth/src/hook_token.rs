//! Tokens of hooks: the secret part of an address that other programs call, shown once and stored only as a digest.

use std::fmt;

use gathering_domain::Digest;

use crate::opaque::OpaqueToken;

/// The prefix identifies leaked tokens in logs and secret scanners.
const PREFIX: &str = "hook_";

/// The token of a hook: `hook_` and 32 random bytes in base64url. `Debug` does not show it.
#[derive(Clone)]
pub struct HookToken(OpaqueToken);

impl HookToken {
    /// A new token; `None` if the system provides no randomness.
    pub fn generate() -> Option<Self> {
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

impl fmt::Debug for HookToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_differs_from_other_secrets_and_is_not_shown() {
        let token = HookToken::generate().unwrap();
        assert_eq!(HookToken::parse(token.expose()).unwrap().digest(), token.digest());
        assert!(HookToken::parse(&token.expose().replace("hook_", "grk_")).is_none());
        assert!(!format!("{token:?}").contains(token.expose()));
    }
}
