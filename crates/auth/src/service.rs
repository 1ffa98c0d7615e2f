//! The authentication service, over an [`AccountStore`].
//!
//! Owns the order of the steps; each file below holds those of one noun. Never knows how data is stored.

mod accounts;
mod api_keys;
mod audit;
mod passwords;
mod sessions;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gathering_cache::BoundedCache;
use gathering_domain::{Digest, UserId};

use crate::{
    AccountStore, AuditEvent, AuthError, Caller, Charge, Charged, Credential, KeyRing, PasswordSettings,
    Passwords, SessionId, TokenId, Tokens,
};

pub use accounts::RegistrationRequest;
pub use api_keys::ApiKeyRequest;
pub use sessions::TokenPair;

/// The longest name, in characters.
const MAX_NAME_CHARACTERS: usize = 100;

/// Who may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Everybody.
    Open,
    /// Nobody; the operator creates accounts.
    Closed,
}

/// The settings of authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthSettings {
    /// Who may register.
    pub registration: Registration,
    /// The lifetime of an access token.
    pub access_token_lifetime: Duration,
    /// The lifetime of a refresh token. Each refresh starts a new one.
    pub refresh_token_lifetime: Duration,
    /// The settings for hashing passwords.
    pub passwords: PasswordSettings,
    /// The number of revoked access tokens to cache, so that using them again costs no query; at least 1.
    pub n_cached_revocations: u64,
    /// The number of API keys whose owner is cached, for [`Auth::verified_user`]; at least 1.
    pub n_cached_key_owners: u64,
}

impl Default for AuthSettings {
    /// Open registration, 15 minutes, 30 days, ten thousand of each.
    fn default() -> Self {
        Self {
            registration: Registration::Open,
            access_token_lifetime: Duration::from_secs(15 * 60),
            refresh_token_lifetime: Duration::from_secs(30 * 24 * 60 * 60),
            passwords: PasswordSettings::default(),
            n_cached_revocations: 10_000,
            n_cached_key_owners: 10_000,
        }
    }
}

/// Authentication over an [`AccountStore`].
///
/// Every method may be dropped at any await. A request to the store then took effect completely or not at all, and an
/// unanswered request may be repeated. The methods need a tokio runtime with its timer.
pub struct Auth {
    store: Arc<dyn AccountStore>,
    passwords: Passwords,
    tokens: Tokens,
    settings: AuthSettings,
    /// Access tokens that are known to be revoked, which never changes. For other tokens the store decides.
    revoked: BoundedCache<TokenId, ()>,
    /// The owner of an API key, by the digest of its secret. It grants nothing: the key may have been revoked since.
    key_owners: BoundedCache<Digest, UserId>,
}

impl Auth {
    /// Authentication with these keys and settings.
    ///
    /// # Errors
    /// [`AuthError::Password`] if the cost is out of range or the system provides no randomness.
    pub fn new(
        store: Arc<dyn AccountStore>,
        keys: KeyRing,
        settings: AuthSettings,
    ) -> Result<Self, AuthError> {
        let passwords = Passwords::new(settings.passwords)?;
        let tokens = Tokens::new(keys, settings.access_token_lifetime);
        let revoked = BoundedCache::new("revocations", settings.n_cached_revocations);
        let key_owners = BoundedCache::new("key_owners", settings.n_cached_key_owners);
        Ok(Self { store, passwords, tokens, settings, revoked, key_owners })
    }

    /// The pool that hashes passwords, for its metrics.
    pub const fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// Charges an attempt to guess a password. `refused` is recorded if a budget is exhausted.
    async fn charge_attempt(&self, charges: &[Charge], refused: AuditEvent) -> Result<(), AuthError> {
        match self.store.charge(charges).await? {
            Charged::Paid => Ok(()),
            Charged::Refused { retry_after } => {
                self.store.record_audit(refused.because("throttled")).await?;
                Err(AuthError::Throttled { retry_after })
            }
        }
    }
}

/// The session of a caller who may manage the account itself.
fn needed_session(caller: &Caller) -> Result<SessionId, AuthError> {
    match &caller.credential {
        Credential::Session { session, .. } => Ok(*session),
        Credential::ApiKey { .. } => Err(AuthError::SessionNeeded),
    }
}

/// The trimmed name, or the problem with it.
fn checked_name(name: &str) -> Result<String, String> {
    let name = name.trim();
    let n_characters = name.chars().count();
    if n_characters == 0 || n_characters > MAX_NAME_CHARACTERS || name.chars().any(char::is_control) {
        Err(format!("must have 1 to {MAX_NAME_CHARACTERS} characters, none of them a control character"))
    } else {
        Ok(name.to_owned())
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("settings", &self.settings)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}
