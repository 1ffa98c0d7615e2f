//! The port to the account store.

use std::error::Error;

use async_trait::async_trait;
use gathering_domain::{ApiKeyId, Digest, Email, UserId};

use crate::{
    Account, AccountChange, AccountRecord, ApiKey, AuditEvent, AuditFilter, AuditRecord, Charge, Charged,
    KeyStatus, NewAccount, NewApiKey, NewProject, NewSession, Origin, PasswordChange, PasswordHash,
    RefreshRotation, Rotation, SessionEnd, SessionId, TokenId, TokenStatus,
};

/// Stores accounts, sessions, API keys, revocations, login budgets and the audit record.
///
/// Each method is one transaction. When it returns `Ok`, all of it holds, and every other instance sees it. When it
/// fails, none of it holds. The transaction of a change also writes the change's audit event. Times are the store's: it
/// adds a lifetime to its own clock, and something has expired from `expires_at` on. No method is cancelled half-way: a
/// dropped future did either everything or nothing.
#[async_trait]
pub trait AccountStore: Send + Sync + 'static {
    /// Creates an account, its default project with the account as owner, and `audit`.
    ///
    /// With [`RoleAtCreation::AdminIfFirst`](crate::RoleAtCreation::AdminIfFirst), the very first account becomes
    /// admin.
    /// The store serialises creations so that exactly one does.
    ///
    /// # Errors
    /// [`StoreError::AccountExists`] if the e-mail has an account; nothing was written, not even `audit`.
    async fn create_account(
        &self,
        account: NewAccount,
        project: NewProject,
        audit: AuditEvent,
    ) -> Result<Account, StoreError>;

    /// The account with this e-mail, with its password hash, even if disabled.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say.
    async fn find_account_by_email(&self, email: &Email) -> Result<Option<AccountRecord>, StoreError>;

    /// The account with this id, with its password hash, even if disabled.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say.
    async fn find_account(&self, user: UserId) -> Result<Option<AccountRecord>, StoreError>;

    /// At most `limit` accounts, the newest first (by id). `before` is the last one of the previous page.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say.
    async fn list_accounts(&self, before: Option<UserId>, limit: usize) -> Result<Vec<Account>, StoreError>;

    /// Changes an account's role or activity, and writes [`AccountChange::audit_events`] for what really changed.
    ///
    /// An account that is disabled loses every session permanently. The store serialises such changes, so that one of
    /// two admins who demote each other remains. It calls [`AccountChange::permitted`] with the account of `change.by`
    /// as the previous change left it.
    ///
    /// # Errors
    /// [`StoreError::Revoked`] or [`StoreError::Denied`] as `permitted` returns, [`StoreError::NoAccount`], or
    /// [`StoreError::LastAdmin`] if no active admin would remain; nothing was changed.
    async fn update_account(
        &self,
        user: UserId,
        change: AccountChange,
        origin: Origin,
    ) -> Result<Account, StoreError>;

    /// Replaces the password hash if it still is `change.expected`, revokes every session of the account except
    /// `change.keep`, refunds `change.refund`, and writes `audit`. Returns whether it did.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; nothing was changed.
    async fn change_password(&self, change: PasswordChange, audit: AuditEvent) -> Result<bool, StoreError>;

    /// Replaces the hash of the same password by one of another cost, if it still is `expected`. Sessions continue.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; the old hash is unchanged.
    async fn replace_password_hash(
        &self,
        user: UserId,
        expected: PasswordHash,
        hash: PasswordHash,
    ) -> Result<(), StoreError>;

    /// Takes every charge from its budget, or none; [`Charge`] defines when a budget refuses. Concurrent charges on one
    /// budget see each other.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; nothing was charged.
    async fn charge(&self, charges: &[Charge]) -> Result<Charged, StoreError>;

    /// Starts a session with its first refresh token, refunds `refund`, and writes `audit`.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; nothing was written.
    async fn begin_session(
        &self,
        session: NewSession,
        refund: &[Charge],
        audit: AuditEvent,
    ) -> Result<(), StoreError>;

    /// Exchanges a refresh token for the next one of its session, if it is valid.
    ///
    /// The store locks the token's row, so that the second of two concurrent uses finds it used. The decision is
    /// [`RefreshTokenState::refusal`](crate::RefreshTokenState::refusal). On
    /// [`RefreshRefusal::Reused`](crate::RefreshRefusal::Reused) the store revokes the session. In every case the same
    /// transaction writes [`Rotation::audit_event`].
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; the token is still unused.
    async fn rotate_refresh_token(
        &self,
        rotation: RefreshRotation,
        origin: Origin,
    ) -> Result<Rotation, StoreError>;

    /// Ends sessions of one account permanently. Revokes the access token's id, every refresh token of its session and,
    /// if a refresh token is given, that token's session, provided that it belongs to the same account. Writes `audit`,
    /// with the second session if it is another one ([`AuditEvent::with_other_session`]). Can be repeated.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; nothing was revoked.
    async fn end_session(&self, end: SessionEnd, audit: AuditEvent) -> Result<(), StoreError>;

    /// The current status of an access token: the account's role and whether it is active, and whether the token's id
    /// or its session is revoked. `None` if the account does not exist. A session without any record is not revoked.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say.
    async fn find_token_status(
        &self,
        user: UserId,
        session: SessionId,
        token: TokenId,
    ) -> Result<Option<TokenStatus>, StoreError>;

    /// Creates an API key and writes `audit`. The end of `key.session` or of the account happens before or after that.
    ///
    /// With `key.once` it creates one key: a repeated request is refused, and so is another one with the same
    /// idempotency key, for at least 24 hours. Of several such requests at once, one creates a key. A request that is
    /// refused leaves the idempotency key unused.
    ///
    /// # Errors
    /// [`StoreError::NoAccount`]; [`StoreError::Revoked`] if the account is disabled, or `key.session` or `key.token`
    /// is revoked; [`StoreError::KeyCreatedBefore`] or [`StoreError::OtherRequest`]; [`StoreError::TooManyKeys`] if the
    /// account has [`ApiKey::MAX_PER_ACCOUNT`] keys that are not revoked. Nothing was written.
    async fn create_api_key(&self, key: NewApiKey, audit: AuditEvent) -> Result<ApiKey, StoreError>;

    /// The account's keys that are not revoked, including expired ones, the newest first.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say.
    async fn list_api_keys(&self, user: UserId) -> Result<Vec<ApiKey>, StoreError>;

    /// Revokes a key of this account permanently, and writes `audit`. Returns whether there was a key to revoke; if
    /// not, nothing is written.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; nothing was revoked.
    async fn revoke_api_key(
        &self,
        user: UserId,
        key: ApiKeyId,
        audit: AuditEvent,
    ) -> Result<bool, StoreError>;

    /// The current status of the key with this digest and of its account, even if revoked or expired. Records the time
    /// of use approximately, to the minute at best.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say.
    async fn find_key_status(&self, secret: Digest) -> Result<Option<KeyStatus>, StoreError>;

    /// Writes an audit event of its own, such as a refused login.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say; the event was not written.
    async fn record_audit(&self, audit: AuditEvent) -> Result<(), StoreError>;

    /// At most `limit` audit events, the newest first.
    ///
    /// # Errors
    /// [`StoreError`] as its variants say.
    async fn list_audit_events(
        &self,
        filter: &AuditFilter,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, StoreError>;
}

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The e-mail already has an account.
    #[error("the e-mail address already has an account")]
    AccountExists,
    /// The account does not exist.
    #[error("no such account")]
    NoAccount,
    /// The caller's credential is no longer valid, or the account is disabled or gone.
    #[error("the credential is no longer valid")]
    Revoked,
    /// The caller is not allowed to do this, or no longer.
    #[error("the caller no longer has this permission")]
    Denied,
    /// No active admin would remain.
    #[error("one active admin is required: promote another first")]
    LastAdmin,
    /// The account has the maximum number of API keys.
    #[error("the account already has {} API keys: revoke one first", ApiKey::MAX_PER_ACCOUNT)]
    TooManyKeys,
    /// The same request created this API key before. Its secret cannot be shown again.
    #[error("the same request created the API key {0} before")]
    KeyCreatedBefore(ApiKeyId),
    /// The idempotency key came with another request before.
    #[error("the idempotency key was used for another request")]
    OtherRequest,
    /// The store is unreachable or overloaded; a retry may succeed.
    #[error("the account store is unavailable: {0}")]
    Unavailable(Box<dyn Error + Send + Sync>),
    /// The store took too long; a retry may succeed.
    #[error("the account store timed out: {0}")]
    TimedOut(Box<dyn Error + Send + Sync>),
    /// The store answers but fails unexpectedly; an operator must act.
    #[error("the account store failed: {0}")]
    Fault(Box<dyn Error + Send + Sync>),
    /// The stored data is invalid; a person must look at it.
    #[error("the account store is corrupt")]
    Corrupt(#[source] Box<dyn Error + Send + Sync>),
}
