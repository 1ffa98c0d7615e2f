//! Sessions as the store keeps them: how one begins, goes on from refresh token to refresh token, and ends.
//!
//! Owns the decision whether a refresh token may be spent. Never knows how tokens look.

use std::time::Duration;

use gathering_domain::{Digest, UserId};
use serde_json::json;

use crate::{Account, AuditEvent, AuditKind, Origin, Role, SessionId, TokenId};

/// The session that a login begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// Whose.
    pub user: UserId,
    /// The digest of its first refresh token; the token itself is not kept.
    pub refresh_token: Digest,
    /// How long that token may be spent.
    pub lifetime: Duration,
}

/// A refresh token to be spent, and the one that follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshRotation {
    /// The digest of the token that was shown.
    pub spent: Digest,
    /// The digest of the next one.
    pub next: Digest,
    /// How long the next one may be spent.
    pub lifetime: Duration,
}

/// What became of an attempt to spend a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// It is spent and the next one holds.
    Rotated {
        /// Whose session it is.
        account: Account,
        /// The session.
        session: SessionId,
    },
    /// It may not be spent.
    Refused {
        /// Whose token it was; `None` if it is unknown.
        user: Option<UserId>,
        /// Why not.
        refusal: RefreshRefusal,
    },
}

/// Why a refresh token may not be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefreshRefusal {
    /// Nobody was given it.
    Unknown,
    /// Its session was revoked before.
    Revoked,
    /// It was spent before: somebody else has it too, so its session is revoked.
    Reused,
    /// Its time is over.
    Expired,
    /// Its account is disabled.
    AccountDisabled,
}

/// What the store knows of a refresh token at the moment of its use, under a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshTokenState {
    /// Its session was revoked.
    pub is_revoked: bool,
    /// It was spent.
    pub is_spent: bool,
    /// Its `expires_at` is now or past.
    pub is_expired: bool,
    /// Its account may log in.
    pub account_is_active: bool,
}

impl RefreshTokenState {
    /// Why the token may not be spent; `None` if it may.
    ///
    /// A spent token is a theft even when it has also expired, so that is looked at first.
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
    /// The word for it in the audit record.
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

/// What a logout ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEnd {
    /// Whose sessions.
    pub user: UserId,
    /// The session of the access token.
    pub session: SessionId,
    /// The access token.
    pub token: TokenRevocation,
    /// The digest of a refresh token whose session ends too; ignored if unknown or another account's.
    pub refresh_token: Option<Digest>,
}

/// An access token that must not be believed any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRevocation {
    /// The token.
    pub id: TokenId,
    /// How long it would have lived; the store may forget the revocation after that.
    pub remaining: Duration,
}

/// How an account and one of its access tokens stand at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenStatus {
    /// The account's role.
    pub role: Role,
    /// Whether the account may log in and use what it was given.
    pub is_active: bool,
    /// Whether the token's id or its session was revoked.
    pub is_revoked: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_token_is_a_theft_even_when_it_expired() {
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
