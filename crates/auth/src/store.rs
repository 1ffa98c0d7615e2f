//! The port: what authentication needs to be kept, in its own words.

use std::error::Error;

use async_trait::async_trait;
use gathering_domain::{ApiKeyId, Digest, Email, UserId};

use crate::{
    Account, AccountChange, AccountRecord, ApiKey, AuditEvent, AuditFilter, AuditRecord, Charge, Charged,
    KeyStatus, NewAccount, NewApiKey, NewProject, NewSession, Origin, PasswordChange, PasswordHash,
    RefreshRotation, Rotation, SessionEnd, SessionId, TokenId, TokenStatus,
};

/// Keeps accounts, sessions, API keys, revocations, login budgets and the audit record.
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

    /// The account with this id, with its password hash; disabled ones too.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say.
    async fn find_account(&self, user: UserId) -> Result<Option<AccountRecord>, StoreError>;

    /// At most `limit` accounts, the newest first (by id). `before` is the last of the page before.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say.
    async fn list_accounts(&self, before: Option<UserId>, limit: usize) -> Result<Vec<Account>, StoreError>;

    /// Changes an account's role or activity, and writes [`AccountChange::audit_events`] of what really changed.
    ///
    /// An account that is no longer active loses every session, for good. Such changes are serialised, so that of two
    /// admins who demote each other at the same time one remains, and [`AccountChange::permitted`] is asked about
    /// `change.by` as that account stands after the change before.
    ///
    /// # Errors
    /// [`StoreError::Revoked`] or [`StoreError::Denied`] as `permitted` says, [`StoreError::NoAccount`], or
    /// [`StoreError::LastAdmin`] if no active admin would be left; nothing was changed.
    async fn update_account(
        &self,
        user: UserId,
        change: AccountChange,
        origin: Origin,
    ) -> Result<Account, StoreError>;

    /// Replaces the password hash if it still is `change.expected`, revokes every session of the account but
    /// `change.keep`, gives `change.refund` back, and writes `audit`. Answers whether it was.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; nothing was changed.
    async fn change_password(&self, change: PasswordChange, audit: AuditEvent) -> Result<bool, StoreError>;

    /// Replaces the hash of the same password, made at another cost, if it still is `expected`. Sessions stay.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; the old hash stands.
    async fn replace_password_hash(
        &self,
        user: UserId,
        expected: PasswordHash,
        hash: PasswordHash,
    ) -> Result<(), StoreError>;

    /// Pays every charge out of its budget, or none: see [`Charge`] for when a budget refuses. Of charges at the same
    /// time on one budget, each sees the others.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; nothing was charged.
    async fn charge(&self, charges: &[Charge]) -> Result<Charged, StoreError>;

    /// Begins a session with its first refresh token, gives `refund` back, and writes `audit`.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; nothing was written.
    async fn begin_session(
        &self,
        session: NewSession,
        refund: &[Charge],
        audit: AuditEvent,
    ) -> Result<(), StoreError>;

    /// Spends a refresh token for the next one of its session, if it still may be spent.
    ///
    /// The token's row is locked, so that of two who spend it at the same time the second meets it as spent. The
    /// decision is [`RefreshTokenState::refusal`](crate::RefreshTokenState::refusal). On
    /// [`RefreshRefusal::Reused`](crate::RefreshRefusal::Reused) the session is revoked. In every case
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
    /// where one is named, of that refresh token's session, if it belongs to the same account. Writes `audit`, with that
    /// session where it is another one ([`AuditEvent::with_other_session`]). May be repeated.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; nothing was revoked.
    async fn end_session(&self, end: SessionEnd, audit: AuditEvent) -> Result<(), StoreError>;

    /// How an access token stands now: the account's role and whether it is active, and whether the token's id or its
    /// session was revoked. `None` if there is no such account. A session that left no trace is not revoked.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say.
    async fn find_token_status(
        &self,
        user: UserId,
        session: SessionId,
        token: TokenId,
    ) -> Result<Option<TokenStatus>, StoreError>;

    /// Creates an API key and writes `audit`. An end of `key.session`, or of the account, comes before or after that.
    ///
    /// # Errors
    /// [`StoreError::NoAccount`]; [`StoreError::Revoked`] if the account is disabled, or `key.session` or `key.token`
    /// revoked; [`StoreError::TooManyKeys`] if the account has [`ApiKey::MAX_PER_ACCOUNT`] that are not revoked; nothing was
    /// written.
    async fn create_api_key(&self, key: NewApiKey, audit: AuditEvent) -> Result<ApiKey, StoreError>;

    /// The account's keys that are not revoked, expired ones too, the newest first.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say.
    async fn list_api_keys(&self, user: UserId) -> Result<Vec<ApiKey>, StoreError>;

    /// Revokes a key of this account for good, and writes `audit`. Answers whether there was one that was not revoked;
    /// if not, nothing is written.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; nothing was revoked.
    async fn revoke_api_key(
        &self,
        user: UserId,
        key: ApiKeyId,
        audit: AuditEvent,
    ) -> Result<bool, StoreError>;

    /// How the key with this digest stands now, and its account; revoked and expired ones too. Notes roughly that it
    /// was used: to the minute at best.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say.
    async fn find_key_status(&self, secret: Digest) -> Result<Option<KeyStatus>, StoreError>;

    /// Writes an audit event that stands alone, such as a refused login.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; it is not written.
    async fn record_audit(&self, audit: AuditEvent) -> Result<(), StoreError>;

    /// At most `limit` events of the audit record, the newest first.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say.
    async fn list_audit_events(
        &self,
        filter: &AuditFilter,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, StoreError>;
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The e-mail has an account already.
    #[error("the e-mail address has an account already")]
    AccountExists,
    /// There is no such account.
    #[error("there is no such account")]
    NoAccount,
    /// What the caller showed holds no longer, or their account is disabled or gone.
    #[error("what the caller showed no longer holds")]
    Revoked,
    /// The caller may not do this, or not any more.
    #[error("the caller may not do this any more")]
    Denied,
    /// No active admin would be left.
    #[error("the last active admin stays one")]
    LastAdmin,
    /// The account has as many API keys as it may.
    #[error("the account has {} API keys already", ApiKey::MAX_PER_ACCOUNT)]
    TooManyKeys,
    /// The store cannot be reached or is too busy now; later it may do.
    #[error("the account store is unavailable: {0}")]
    Unavailable(Box<dyn Error + Send + Sync>),
    /// The store answers, but failed in a way that it should not: an operator must act.
    #[error("the account store failed: {0}")]
    Fault(Box<dyn Error + Send + Sync>),
    /// What is stored makes no sense; a person must look.
    #[error("the account store holds something that makes no sense")]
    Corrupt(#[source] Box<dyn Error + Send + Sync>),
}
