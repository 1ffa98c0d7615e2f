//! The port: what authentication needs to be kept, in its own words.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use gathering_domain::{Digest, Email, UserId};
use serde_json::json;

use crate::{
    Account, AccountRecord, AuditEvent, AuditKind, NewAccount, NewProject, Origin, Role, SessionId, TokenId,
};

/// Keeps accounts, sessions, revocations and the audit record.
///
/// Each method is one transaction: all of it holds when it returns `Ok`, nothing of it when it errs, and what it
/// answered as done is seen by every other instance from then on. The audit event of a change is written by the same
/// transaction. Times are the store's: a lifetime is added to its own clock, and something has expired from the moment
/// `expires_at` on. No method is cancelled half-way: a dropped future either did everything or nothing.
#[async_trait]
pub trait AccountStore: Send + Sync + 'static {
    /// Creates an account, its default project with the account as owner, and `audit`.
    ///
    /// Under [`RoleAtCreation::AdminIfFirst`](crate::RoleAtCreation::AdminIfFirst) the very first account becomes
    /// admin; the store serialises creations so that exactly one does.
    ///
    /// # Errors
    /// [`StoreError::AccountExists`] if the e-mail has an account; nothing was written, not even `audit`.
    async fn create_account(
        &self,
        account: NewAccount,
        project: NewProject,
        audit: AuditEvent,
    ) -> Result<Account, StoreError>;

    /// The account with this e-mail, with its password hash; disabled ones too.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say.
    async fn find_account_by_email(&self, email: &Email) -> Result<Option<AccountRecord>, StoreError>;

    /// The account with this id; disabled ones too.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say.
    async fn find_account(&self, user: UserId) -> Result<Option<Account>, StoreError>;

    /// Begins a session with its first refresh token, and writes `audit`.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; nothing was written.
    async fn begin_session(&self, session: NewSession, audit: AuditEvent) -> Result<(), StoreError>;

    /// Spends a refresh token for the next one of its session, if it still may be spent.
    ///
    /// The token's row is locked, so that of two who spend it at the same time the second meets it as spent. The
    /// decision is [`RefreshTokenState::refusal`]. On [`RefreshRefusal::Reused`] the session is revoked. In every case
    /// [`Rotation::audit_event`] is written, in the same transaction.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; the token is not spent.
    async fn rotate_refresh_token(
        &self,
        rotation: RefreshRotation,
        origin: Origin,
    ) -> Result<Rotation, StoreError>;

    /// Ends sessions of one account for good: revokes the access token's id and every refresh token of its session and,
    /// where one is named, of that refresh token's session, if it belongs to the same account. Writes `audit`.
    /// May be repeated.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; nothing was revoked.
    async fn end_session(&self, end: SessionEnd, audit: AuditEvent) -> Result<(), StoreError>;

    /// How an access token stands now: the account's role and whether it is active, and whether the token's id or its
    /// session was revoked. `None` if there is no such account. A session that left no trace is not revoked.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say.
    async fn find_standing(
        &self,
        user: UserId,
        session: SessionId,
        token: TokenId,
    ) -> Result<Option<Standing>, StoreError>;

    /// Writes an audit event that stands alone, such as a refused login.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; it is not written.
    async fn record_audit(&self, audit: AuditEvent) -> Result<(), StoreError>;
}

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
pub struct Standing {
    /// The account's role.
    pub role: Role,
    /// Whether the account may log in and use what it was given.
    pub is_active: bool,
    /// Whether the token's id or its session was revoked.
    pub is_revoked: bool,
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The e-mail has an account already.
    #[error("the e-mail address has an account already")]
    AccountExists,
    /// The store cannot be reached or is too busy now; later it may do.
    #[error("the account store is not available")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// What is stored makes no sense; a person must look.
    #[error("the account store holds something that makes no sense")]
    Corrupt(#[source] Box<dyn Error + Send + Sync>),
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
