//! API keys: long-lived secrets of programs, shown once and stored only as digests.

use chrono::{DateTime, Utc};
use gathering_domain::{ApiKeyId, Digest, Once, Secret, UserId};

use crate::opaque::opaque_token;
use crate::{Role, Scopes, SessionId, TokenId};

opaque_token! {
    /// The secret of an API key: `grk_` and 32 random bytes in base64url. `Debug` does not show it.
    ApiKeySecret, "grk_", pub(crate)
}

impl ApiKeySecret {
    /// Whether the text is meant as an API key, valid or not, rather than an access token.
    pub(crate) fn is_meant_by(text: &str) -> bool {
        text.starts_with(Self::PREFIX)
    }

    /// The text as a secret.
    pub fn to_secret(&self) -> Secret {
        Secret::from(self.0.expose())
    }
}

/// An API key as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// Its owner's name for it.
    pub name: String,
    /// Its scopes, which never exceed its owner's permissions.
    pub scopes: Scopes,
    /// The time of creation, in UTC, by the store's clock.
    pub created_at: DateTime<Utc>,
    /// The time from which it is invalid, in UTC; never if absent.
    pub expires_at: Option<DateTime<Utc>>,
    /// The approximate time of its last use, in UTC.
    pub last_used_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// The maximum number of keys of one account, not counting revoked ones.
    pub const MAX_PER_ACCOUNT: usize = 100;
}

/// An API key to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApiKey {
    /// Its id, chosen here so that the audit event can name it.
    pub id: ApiKeyId,
    /// Its owner.
    pub user: UserId,
    /// The session that creates it.
    pub session: SessionId,
    /// The access token that creates it.
    pub token: TokenId,
    /// Its owner's name for it.
    pub name: String,
    /// The digest of its secret; the secret itself is not stored.
    pub secret: Digest,
    /// Its scopes.
    pub scopes: Scopes,
    /// The time from which it is invalid, in UTC.
    pub expires_at: Option<DateTime<Utc>>,
    /// What makes a repeated request the same.
    pub once: Option<Once>,
}

/// The current status of an API key and its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyStatus {
    /// The key.
    pub id: ApiKeyId,
    /// Its owner.
    pub user: UserId,
    /// The account's role.
    pub role: Role,
    /// Whether the account may log in and use its credentials.
    pub is_active: bool,
    /// Whether the key is revoked or expired.
    pub is_over: bool,
    /// Its scopes.
    pub scopes: Scopes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_differs_from_other_tokens_and_is_not_shown() {
        let secret = ApiKeySecret::generate().unwrap();
        assert_eq!(ApiKeySecret::parse(secret.expose()).unwrap().digest(), secret.digest());
        assert!(ApiKeySecret::parse(&secret.expose().replace("grk_", "grt_")).is_none());
        assert!(!format!("{secret:?}").contains(secret.expose()));
    }
}
