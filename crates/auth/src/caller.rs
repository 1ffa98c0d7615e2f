//! Who asks, after authentication.

use chrono::{DateTime, Utc};
use gathering_domain::{ApiKeyId, UserId};

use crate::{Action, Origin, Role, Scopes, SessionId, TokenId};

/// Who asks: an account whose credential held at the moment of the request.
///
/// A function that needs permission takes one, so that it cannot be called without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account.
    pub user: UserId,
    /// Its role now, not when the credential was issued; of an API key without the scope `admin` always
    /// [`Role::Member`].
    pub role: Role,
    /// What it showed.
    pub credential: Credential,
    /// From where it asks.
    pub origin: Origin,
}

/// What a caller showed to prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credential {
    /// An access token of a login.
    Session {
        /// The login's session.
        session: SessionId,
        /// The token.
        token: TokenId,
        /// When the token ends, in UTC.
        expires_at: DateTime<Utc>,
    },
    /// An API key.
    ApiKey {
        /// Which.
        key: ApiKeyId,
        /// What it may do.
        scopes: Scopes,
    },
}

impl Credential {
    /// Whether what was shown is enough for `action`, if the account may do it. A session is enough for everything.
    pub const fn allows(&self, action: Action) -> bool {
        match self {
            Credential::Session { .. } => true,
            Credential::ApiKey { scopes, .. } => scopes.allows(action),
        }
    }
}
