//! Errors of authentication.

use std::time::Duration;

use gathering_domain::{ApiKeyId, Problems};

use crate::{Denied, InvalidToken, PasswordError, StoreError};

/// Why a registration, login, refresh, logout or authentication failed.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The input is invalid; nothing was done.
    #[error("the input is invalid")]
    Invalid(#[source] Problems),
    /// Registration is closed by configuration; nothing was done.
    #[error("registration is closed")]
    RegistrationClosed,
    /// The e-mail already has an account; nothing was created.
    #[error("the e-mail address already has an account")]
    AccountExists,
    /// The e-mail or password is wrong, or the account is disabled. Only the audit record says which.
    #[error("the login was refused")]
    LoginRefused,
    /// The refresh token is not valid. Only the audit record says why. If it had been used before, its session is now
    /// revoked.
    #[error("the refresh token was refused")]
    RefreshRefused,
    /// The credential is neither a valid access token nor an API key.
    #[error("the caller is not authenticated")]
    NotAuthenticated(#[source] InvalidToken),
    /// The access token is genuine, but its session is revoked; or the API key is unknown, revoked or expired; or the
    /// account is disabled or gone.
    #[error("the access token or API key is no longer valid")]
    Revoked,
    /// Too many guesses from this network; nothing was checked. The answer is the same for every cause.
    #[error("too many attempts to log in")]
    Throttled {
        /// The time until the next attempt.
        retry_after: Duration,
    },
    /// The current password is wrong; nothing was changed.
    #[error("the current password is incorrect")]
    WrongPassword,
    /// The caller may not do this; nothing was done.
    #[error("the caller may not do this")]
    Denied(#[from] Denied),
    /// An operation on the account itself needs a session, and the caller used an API key. Nothing was done.
    #[error("this operation requires a login session, not an API key")]
    SessionNeeded,
    /// The account does not exist; nothing was changed.
    #[error("no such account")]
    NoAccount,
    /// No active admin would remain; nothing was changed.
    #[error("one active admin is required: promote another first")]
    LastAdmin,
    /// The account has the maximum number of API keys; nothing was created.
    #[error("the account has too many API keys: revoke one first")]
    TooManyKeys,
    /// The same request created this API key before, and its secret was shown then; nothing was created.
    #[error(
        "this request created the API key {0} before, and its secret is shown only once: revoke it and create another"
    )]
    KeyCreatedBefore(ApiKeyId),
    /// The idempotency key came with another request before; nothing was created.
    #[error("this idempotency key was used for another request")]
    IdempotencyKeyReused,
    /// The API key does not exist or belongs to another account; nothing was changed.
    #[error("no such API key")]
    NoApiKey,
    /// Too many passwords wait to be hashed; nothing was done. A retry may succeed.
    #[error("too many concurrent logins")]
    Overloaded,
    /// The store failed; [`StoreError`] says whether a retry may help.
    #[error("the account store failed")]
    Store(#[source] StoreError),
    /// A password could not be hashed or verified.
    #[error("a password could not be processed")]
    Password(#[source] PasswordError),
    /// The system provides no randomness for a token; nothing was done.
    #[error("cannot generate a token")]
    NoRandomness,
}

impl From<StoreError> for AuthError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::AccountExists => AuthError::AccountExists,
            StoreError::NoAccount => AuthError::NoAccount,
            StoreError::Revoked => AuthError::Revoked,
            StoreError::Denied => AuthError::Denied(Denied::Forbidden),
            StoreError::LastAdmin => AuthError::LastAdmin,
            StoreError::TooManyKeys => AuthError::TooManyKeys,
            StoreError::KeyCreatedBefore(key) => AuthError::KeyCreatedBefore(key),
            StoreError::OtherRequest => AuthError::IdempotencyKeyReused,
            other => AuthError::Store(other),
        }
    }
}

impl From<PasswordError> for AuthError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Overloaded => AuthError::Overloaded,
            other => AuthError::Password(other),
        }
    }
}
