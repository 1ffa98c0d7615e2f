//! What may go wrong when somebody authenticates.

use std::time::Duration;

use gathering_domain::Problems;

use crate::{Denied, InvalidToken, PasswordError, StoreError};

/// Why somebody is not registered, logged in, refreshed, logged out or believed.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The input is wrong; nothing was done.
    #[error("the input is invalid")]
    Invalid(#[source] Problems),
    /// Registration is closed by configuration; nothing was done.
    #[error("registration is closed")]
    RegistrationClosed,
    /// The e-mail has an account already; nothing was created.
    #[error("the e-mail address has an account already")]
    AccountExists,
    /// E-mail and password do not open an active account. Which of it does not hold is in the audit record only.
    #[error("the login was refused")]
    LoginRefused,
    /// The refresh token may not be spent. Why is in the audit record only; if it was spent before, its session is
    /// revoked now.
    #[error("the refresh token was refused")]
    RefreshRefused,
    /// What was shown is no valid access token, and cannot be an API key.
    #[error("the caller is not authenticated")]
    NotAuthenticated(#[source] InvalidToken),
    /// The access token was valid, but its session was revoked; or the API key is unknown, revoked or over; or the
    /// account is disabled or gone.
    #[error("the access token or API key no longer holds")]
    Revoked,
    /// Somebody guesses from this network; nothing was looked at. The same for every cause.
    #[error("too many attempts to log in")]
    Throttled {
        /// When the next attempt may be made.
        retry_after: Duration,
    },
    /// The current password is another one; nothing was changed.
    #[error("the current password is not right")]
    WrongPassword,
    /// The caller may not do this; nothing was done.
    #[error("the caller may not do this")]
    Denied(#[from] Denied),
    /// What concerns the account itself needs a session; an API key was shown. Nothing was done.
    #[error("an API key is not enough for this")]
    SessionNeeded,
    /// There is no such account; nothing was changed.
    #[error("there is no such account")]
    NoAccount,
    /// No active admin would be left; nothing was changed.
    #[error("the last active admin stays one")]
    LastAdmin,
    /// The account has as many API keys as it may; nothing was created.
    #[error("the account has too many API keys")]
    TooManyKeys,
    /// There is no such API key, or it is another account's; nothing was changed.
    #[error("there is no such API key")]
    NoApiKey,
    /// Too many passwords wait to be verified; nothing was done. Later it may work.
    #[error("too many logins at the same time")]
    Overloaded,
    /// The store did not do it; [`StoreError`] says whether later may do.
    #[error("the account store failed")]
    Store(#[source] StoreError),
    /// A password could not be hashed or verified.
    #[error("a password could not be processed")]
    Password(#[source] PasswordError),
    /// The system gives no randomness, so no token could be made; nothing was done.
    #[error("no token could be made")]
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
