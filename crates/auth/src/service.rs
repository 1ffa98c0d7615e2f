//! The service: everything that somebody asks of authentication, over an [`AccountStore`].
//!
//! Owns the order of the steps; the files below hold those of one noun each. Never knows how anything is kept.

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

/// What people call somebody or something: the most characters.
const MAX_NAME_CHARACTERS: usize = 100;

/// Who may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Everybody.
    Open,
    /// Nobody; accounts are made by the operator.
    Closed,
}

/// How authentication behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthSettings {
    /// Who may register.
    pub registration: Registration,
    /// How long an access token lives.
    pub access_token_lifetime: Duration,
    /// How long a refresh token may be spent; each refresh begins anew.
    pub refresh_token_lifetime: Duration,
    /// How passwords are hashed.
    pub passwords: PasswordSettings,
    /// How many access tokens are remembered as revoked, so that showing them again costs no query; at least 1.
    pub n_cached_revocations: u64,
    /// Of how many API keys the owner is remembered, for [`Auth::verified_user`]; at least 1.
    pub n_cached_key_owners: u64,
}

impl Default for AuthSettings {
    /// Open, a quarter of an hour, thirty days, ten thousand of each.
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
/// Every method may be dropped at any await: what the store was asked for is done wholly or not at all, and what was
/// not answered to the client may be asked again. They need a tokio runtime with its timer.
pub struct Auth {
    store: Arc<dyn AccountStore>,
    passwords: Passwords,
    tokens: Tokens,
    settings: AuthSettings,
    /// Access tokens that the store called revoked, which stays true. What is absent is asked of the store.
    revoked: BoundedCache<TokenId, ()>,
    /// Whose an API key is, by the digest of its secret. No authority: the key may have been revoked since.
    key_owners: BoundedCache<Digest, UserId>,
}

impl Auth {
    /// Authentication with these keys and settings. Computes one password hash, so it takes as long as a login.
    ///
    /// # Errors
    /// [`AuthError::Password`] if the cost is out of bounds or the system gives no randomness.
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

    /// The pool that hashes passwords, for its measures.
    pub const fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// Charges an attempt to guess a password; `refused` is what is recorded when a budget is spent.
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

/// The session of a caller who may decide about the account itself.
fn needed_session(caller: &Caller) -> Result<SessionId, AuthError> {
    match &caller.credential {
        Credential::Session { session, .. } => Ok(*session),
        Credential::ApiKey { .. } => Err(AuthError::SessionNeeded),
    }
}

/// The name without the blanks around it, or what is wrong with it.
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
