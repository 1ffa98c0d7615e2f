//! Sessions as the store keeps them: their start, each refresh, and their end.
//!
//! Owns the decision whether a refresh token may be used. Never knows the form of tokens.

use std::time::Duration;

use gathering_domain::{Digest, UserId};
use serde_json::json;

use crate::{Account, AuditEvent, AuditKind, Origin, Role, SessionId, TokenId};

/// A session that a login starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// The account.
    pub user: UserId,
    /// The digest of its first refresh token; the token itself is not stored.
    pub refresh_token: Digest,
    /// The lifetime of that token.
    pub lifetime: Duration,
}

/// The exchange of a refresh token for the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshRotation {
    /// The digest of the token that the client sent.
    pub spent: Digest,
    /// The digest of the next token.
    pub next: Digest,
    /// The lifetime of the next token.
    pub lifetime: Duration,
}

/// The outcome of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// The token was used; the next one is valid.
    Rotated {
        /// The owner of the session.
        account: Account,
        /// The session.
        session: SessionId,
    },
    /// The token was refused.
    Refused {
        /// The owner of the token; `None` if it is unknown.
        user: Option<UserId>,
        /// The reason.
        refusal: RefreshRefusal,
    },
}

/// Why a refresh token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefreshRefusal {
    /// It is unknown.
    Unknown,
    /// Its session was already revoked.
    Revoked,
    /// It was already used: somebody else has it too, so its session is revoked.
    Reused,
    /// It has expired.
    Expired,
    /// Its account is disabled.
    AccountDisabled,
}

/// The state of a refresh token at the moment of its use, under a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshTokenState {
    /// Whether its session is revoked.
    pub is_revoked: bool,
    /// Whether it was already used.
    pub is_spent: bool,
    /// Whether its `expires_at` is now or past.
    pub is_expired: bool,
    /// Whether its account may log in.
    pub account_is_active: bool,
}

impl RefreshTokenState {
    /// Why the token is refused; `None` if it is valid.
    ///
    /// A used token indicates theft even if it has also expired, so that is checked first.
    pub const fn refusal(self) -> Option<RefreshRefusal> {
        match self {
            Self { is_revoked: true, .. } => Some(RefreshRefusal::Revoked),
            Self { is_spent: true, .. } => Some(RefreshRefusal::Reused),
            Self { is_expired: true, .. } => Some(RefreshRefusal::Expired),
            Self { account_is_active: false, .. } => Some(RefreshRefusal::AccountDisabled),
            _ => None,
        }
    }
}

impl Rotation {
    /// The event that the store writes with this outcome.
    pub fn audit_event(&self, origin: Origin) -> AuditEvent {
        match self {
            Rotation::Rotated { account, session } => {
                AuditEvent::new(AuditKind::TokenRefreshed, Some(account.id), origin)
                    .with_detail(json!({ "session": session }))
            }
            Rotation::Refused { user, refusal: RefreshRefusal::Reused } => {
                AuditEvent::new(AuditKind::RefreshTokenReused, *user, origin)
            }
            Rotation::Refused { user, refusal } => {
                AuditEvent::new(AuditKind::RefreshFailed, *user, origin).because(refusal.as_str())
            }
        }
    }
}

impl RefreshRefusal {
    /// The reason's name in the audit record.
    pub const fn as_str(self) -> &'static str {
        match self {
            RefreshRefusal::Unknown => "unknown",
            RefreshRefusal::Revoked => "revoked",
            RefreshRefusal::Reused => "reused",
            RefreshRefusal::Expired => "expired",
            RefreshRefusal::AccountDisabled => "account_disabled",
        }
    }
}

/// The sessions that a logout ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEnd {
    /// The account.
    pub user: UserId,
    /// The session of the access token.
    pub session: SessionId,
    /// The access token.
    pub token: TokenRevocation,
    /// The digest of a refresh token whose session ends too; ignored if unknown or another account's.
    pub refresh_token: Option<Digest>,
}

/// A revoked access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRevocation {
    /// The token.
    pub id: TokenId,
    /// The rest of its lifetime; the store may delete the revocation after that.
    pub remaining: Duration,
}

/// The current status of an account and one of its access tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenStatus {
    /// The account's role.
    pub role: Role,
    /// Whether the account may log in and use its credentials.
    pub is_active: bool,
    /// Whether the token's id or its session is revoked.
    pub is_revoked: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_token_indicates_theft_even_if_it_has_expired() {
        let fresh = RefreshTokenState {
            is_revoked: false,
            is_spent: false,
            is_expired: false,
            account_is_active: true,
        };
        assert_eq!(fresh.refusal(), None);
        let stolen =
            RefreshTokenState { is_spent: true, is_expired: true, account_is_active: false, ..fresh };
        assert_eq!(stolen.refusal(), Some(RefreshRefusal::Reused));
        let over = RefreshTokenState { is_revoked: true, ..stolen };
        assert_eq!(over.refusal(), Some(RefreshRefusal::Revoked));
    }
}
