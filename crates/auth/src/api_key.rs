//! API keys: long-lived secrets of programs, shown once and kept only as digests.

use std::fmt;

use chrono::{DateTime, Utc};
use gathering_domain::{ApiKeyId, Digest, Secret, UserId};

use crate::opaque::OpaqueToken;
use crate::{Role, Scopes, SessionId, TokenId};

/// Says in logs and secret scanners what leaked, and tells keys from access tokens.
const PREFIX: &str = "grk_";

/// The secret of an API key: `grk_` and 32 random bytes in base64url. Not shown in `Debug`.
#[derive(Clone)]
pub struct ApiKeySecret(OpaqueToken);

impl ApiKeySecret {
    /// A new one; `None` if the system gives no randomness.
    pub(crate) fn generate() -> Option<Self> {
        OpaqueToken::generate(PREFIX).map(Self)
    }

    /// Whether the text wants to be one, good or bad, and not an access token.
    pub(crate) fn is_meant_by(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Reads one that a client sent; `None` if it cannot be one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        OpaqueToken::parse(PREFIX, text).map(Self)
    }

    /// What is stored of it. A plain digest suffices: there are 256 random bits to guess.
    pub fn digest(&self) -> Digest {
        self.0.digest()
    }

    /// The text for the client. Not for logs.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// The text as a secret.
    pub fn to_secret(&self) -> Secret {
        Secret::from(self.0.expose())
    }
}

impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeySecret(…)")
    }
}

/// An API key as its owner may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Which.
    pub id: ApiKeyId,
    /// What its owner calls it.
    pub name: String,
    /// What it may do, at most what its owner may.
    pub scopes: Scopes,
    /// Since when, in UTC, by the store's clock.
    pub created_at: DateTime<Utc>,
    /// From when on it is worth nothing, in UTC; never if absent.
    pub expires_at: Option<DateTime<Utc>>,
    /// Roughly when it was last used, in UTC.
    pub last_used_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// The most keys of one account that are not revoked.
    pub const MAX_PER_ACCOUNT: usize = 100;
}

/// An API key to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApiKey {
    /// Its id, so that the audit event beside it can name it.
    pub id: ApiKeyId,
    /// Whose.
    pub user: UserId,
    /// The session of who creates it.
    pub session: SessionId,
    /// The access token that they showed.
    pub token: TokenId,
    /// What its owner calls it.
    pub name: String,
    /// The digest of its secret; the secret itself is not kept.
    pub secret: Digest,
    /// What it may do.
    pub scopes: Scopes,
    /// From when on it is worth nothing, in UTC.
    pub expires_at: Option<DateTime<Utc>>,
}

/// How an API key and its account stand at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyStatus {
    /// The key.
    pub id: ApiKeyId,
    /// Whose.
    pub user: UserId,
    /// The account's role.
    pub role: Role,
    /// Whether the account may log in and use what it was given.
    pub is_active: bool,
    /// Whether the key was revoked, or its time is over.
    pub is_over: bool,
    /// What it may do.
    pub scopes: Scopes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_from_other_tokens_and_not_shown() {
        let secret = ApiKeySecret::generate().unwrap();
        assert_eq!(ApiKeySecret::parse(secret.expose()).unwrap().digest(), secret.digest());
        assert!(ApiKeySecret::parse(&secret.expose().replace("grk_", "grt_")).is_none());
        assert!(!format!("{secret:?}").contains(secret.expose()));
    }
}
