//! The authenticated sender of a request.

use chrono::{DateTime, Utc};
use gathering_domain::{ApiKeyId, UserId};

use crate::{Action, Origin, Role, Scopes, SessionId, TokenId};

/// The sender of a request: an account whose credential was valid at the moment of the request.
///
/// A function that needs permission takes a caller, so that it cannot be called without authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account.
    pub user: UserId,
    /// The account's current role, not the one at the time of the credential. For an API key without the scope `admin`,
    /// always [`Role::Member`].
    pub role: Role,
    /// The credential.
    pub credential: Credential,
    /// The origin of the request.
    pub origin: Origin,
}

/// The credential that a caller sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credential {
    /// An access token of a login.
    Session {
        /// The login's session.
        session: SessionId,
        /// The token's id.
        token: TokenId,
        /// The time at which the token expires, in UTC.
        expires_at: DateTime<Utc>,
    },
    /// An API key.
    ApiKey {
        /// Its id.
        key: ApiKeyId,
        /// Its scopes.
        scopes: Scopes,
    },
}

impl Credential {
    /// Whether the credential allows `action` if the account may do it. A session allows everything.
    pub const fn allows(&self, action: Action) -> bool {
        match self {
            Credential::Session { .. } => true,
            Credential::ApiKey { scopes, .. } => scopes.allows(action),
        }
    }
}
