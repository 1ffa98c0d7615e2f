//! Registering, logging in, refreshing, logging out, and telling who asks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use gathering_domain::{Email, Pointer, Problems, ProjectId, Secret, UserId};
use serde_json::json;

use crate::{
    Account, AccountStore, AuditEvent, AuditKind, AuthError, Caller, Credential, KeyRing, NewAccount,
    NewProject, NewSession, Origin, PasswordSettings, Passwords, RefreshRotation, RefreshToken,
    RoleAtCreation, Rotation, SessionEnd, SessionId, StoreError, TokenRevocation, Tokens,
};

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
}

impl Default for AuthSettings {
    /// Open, a quarter of an hour, thirty days.
    fn default() -> Self {
        Self {
            registration: Registration::Open,
            access_token_lifetime: Duration::from_secs(15 * 60),
            refresh_token_lifetime: Duration::from_secs(30 * 24 * 60 * 60),
            passwords: PasswordSettings::default(),
        }
    }
}

/// What somebody sends to get an account.
#[derive(Debug, Clone)]
pub struct RegistrationRequest {
    /// The e-mail as it was typed.
    pub email: String,
    /// What people shall call them.
    pub name: String,
    /// The password.
    pub password: Secret,
}

/// What a login or a refresh gives.
#[derive(Clone)]
pub struct TokenPair {
    /// To be shown with each request.
    pub access_token: Secret,
    /// How long the access token lives.
    pub expires_in: Duration,
    /// To be spent, once, for the next pair.
    pub refresh_token: RefreshToken,
}

/// Authentication over an [`AccountStore`].
///
/// Every method may be dropped at any await: what the store was asked for is done wholly or not at all, and what was
/// not answered to the client may be asked again.
pub struct Auth {
    store: Arc<dyn AccountStore>,
    passwords: Passwords,
    tokens: Tokens,
    settings: AuthSettings,
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
        Ok(Self { store, passwords, tokens, settings })
    }

    /// Creates an account for whoever asks, with a default project; the first account of all is admin.
    ///
    /// # Errors
    /// [`AuthError::RegistrationClosed`], [`AuthError::Invalid`] with every problem, [`AuthError::AccountExists`],
    /// [`AuthError::Overloaded`], or the store's; no account was created.
    pub async fn register(&self, request: RegistrationRequest, origin: Origin) -> Result<Account, AuthError> {
        match self.settings.registration {
            Registration::Open => self.create_account(request, RoleAtCreation::AdminIfFirst, origin).await,
            Registration::Closed => {
                let refused = AuditEvent::new(AuditKind::RegistrationFailed, None, origin);
                self.store.record_audit(refused.because("registration_closed")).await?;
                Err(AuthError::RegistrationClosed)
            }
        }
    }

    /// Creates an account for the operator, whether registration is open or not.
    ///
    /// # Errors
    /// As [`register`](Self::register), except that it is never closed.
    pub async fn create_account(
        &self,
        request: RegistrationRequest,
        role: RoleAtCreation,
        origin: Origin,
    ) -> Result<Account, AuthError> {
        let (email, name) = checked(&request).map_err(AuthError::Invalid)?;
        // Before the store is asked: whether the e-mail is taken must not show in the time that it takes.
        let password_hash = self.passwords.hash(request.password).await?;
        let account = NewAccount { id: UserId::new(), email, name, password_hash, role };
        let project = NewProject { id: ProjectId::new(), name: "Default".to_owned() };
        let audit = AuditEvent::new(AuditKind::AccountRegistered, Some(account.id), origin);
        match self.store.create_account(account, project, audit).await {
            Err(StoreError::AccountExists) => {
                let refused = AuditEvent::new(AuditKind::RegistrationFailed, None, origin);
                self.store.record_audit(refused.because("account_exists")).await?;
                Err(AuthError::AccountExists)
            }
            created => Ok(created?),
        }
    }

    /// Begins a session for who knows the password.
    ///
    /// Unknown e-mail, wrong password and disabled account take the same steps (one look-up, one bcrypt, one audit
    /// event) and get the same answer.
    ///
    /// # Errors
    /// [`AuthError::LoginRefused`], [`AuthError::Overloaded`], or the store's; no session was begun.
    pub async fn login(&self, email: &str, password: Secret, origin: Origin) -> Result<TokenPair, AuthError> {
        let found = match email.parse::<Email>() {
            Ok(email) => self.store.find_account_by_email(&email).await?,
            Err(_) => None,
        };
        let hash = found.as_ref().map(|record| &record.password_hash);
        let is_right = self.passwords.verify(password, hash).await?;
        match found.map(|record| record.account) {
            Some(account) if is_right && account.is_active => self.begin_session(&account, origin).await,
            account => {
                let reason = match &account {
                    None => "unknown_email",
                    Some(_) if !is_right => "wrong_password",
                    Some(_) => "account_disabled",
                };
                let user = account.map(|account| account.id);
                let refused = AuditEvent::new(AuditKind::LoginFailed, user, origin).because(reason);
                self.store.record_audit(refused).await?;
                Err(AuthError::LoginRefused)
            }
        }
    }

    /// Spends a refresh token for new tokens of the same session. A token that was spent before revokes its session.
    ///
    /// # Errors
    /// [`AuthError::RefreshRefused`], or the store's; on the latter the token is not spent.
    pub async fn refresh(&self, refresh_token: &str, origin: Origin) -> Result<TokenPair, AuthError> {
        let Some(spent) = RefreshToken::parse(refresh_token) else {
            let refused = AuditEvent::new(AuditKind::RefreshFailed, None, origin).because("malformed");
            self.store.record_audit(refused).await?;
            return Err(AuthError::RefreshRefused);
        };
        let next = RefreshToken::generate().ok_or(AuthError::NoRandomness)?;
        let rotation = RefreshRotation {
            spent: spent.digest(),
            next: next.digest(),
            lifetime: self.settings.refresh_token_lifetime,
        };
        match self.store.rotate_refresh_token(rotation, origin).await? {
            Rotation::Rotated { account, session } => self.pair(account.id, session, next),
            Rotation::Refused { .. } => Err(AuthError::RefreshRefused),
        }
    }

    /// Ends the caller's session, and that of `refresh_token` if it is the caller's own. It holds everywhere from the
    /// answer on. May be repeated.
    ///
    /// # Errors
    /// The store's; nothing was revoked.
    pub async fn logout(&self, caller: &Caller, refresh_token: Option<&str>) -> Result<(), AuthError> {
        let Credential::Session { session, token, expires_at } = &caller.credential;
        let end = SessionEnd {
            user: caller.user,
            session: *session,
            token: TokenRevocation {
                id: *token,
                remaining: (*expires_at - Utc::now()).to_std().unwrap_or(Duration::ZERO),
            },
            refresh_token: refresh_token.and_then(RefreshToken::parse).map(|token| token.digest()),
        };
        let audit = AuditEvent::new(AuditKind::LoggedOut, Some(caller.user), caller.origin)
            .with_detail(json!({ "session": session }));
        Ok(self.store.end_session(end, audit).await?)
    }

    /// Who shows this access token: an active account whose session stands, as of now.
    ///
    /// # Errors
    /// [`AuthError::NotAuthenticated`] or [`AuthError::Revoked`] (both mean 401), or the store's: then nobody knows.
    pub async fn authenticate(&self, access_token: &str, origin: Origin) -> Result<Caller, AuthError> {
        let token = self.tokens.verify(access_token, Utc::now()).map_err(AuthError::NotAuthenticated)?;
        match self.store.find_standing(token.user, token.session, token.id).await? {
            Some(standing) if standing.is_active && !standing.is_revoked => Ok(Caller {
                user: token.user,
                role: standing.role,
                credential: Credential::Session {
                    session: token.session,
                    token: token.id,
                    expires_at: token.expires_at,
                },
                origin,
            }),
            _ => Err(AuthError::Revoked),
        }
    }

    /// The caller's own account.
    ///
    /// # Errors
    /// [`AuthError::Revoked`] if it is gone, or the store's.
    pub async fn me(&self, caller: &Caller) -> Result<Account, AuthError> {
        self.store.find_account(caller.user).await?.ok_or(AuthError::Revoked)
    }

    /// The pool that hashes passwords, for its measures.
    pub const fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    async fn begin_session(&self, account: &Account, origin: Origin) -> Result<TokenPair, AuthError> {
        let refresh_token = RefreshToken::generate().ok_or(AuthError::NoRandomness)?;
        let session = NewSession {
            id: SessionId::new(),
            user: account.id,
            refresh_token: refresh_token.digest(),
            lifetime: self.settings.refresh_token_lifetime,
        };
        let id = session.id;
        let audit = AuditEvent::new(AuditKind::LoginSucceeded, Some(account.id), origin)
            .with_detail(json!({ "session": id }));
        self.store.begin_session(session, audit).await?;
        self.pair(account.id, id, refresh_token)
    }

    fn pair(
        &self,
        user: UserId,
        session: SessionId,
        refresh_token: RefreshToken,
    ) -> Result<TokenPair, AuthError> {
        let access_token = self.tokens.issue(user, session, Utc::now()).ok_or(AuthError::NoRandomness)?;
        Ok(TokenPair { access_token, expires_in: self.tokens.lifetime(), refresh_token })
    }
}

/// The parts of a registration, or everything that is wrong with it.
fn checked(request: &RegistrationRequest) -> Result<(Email, String), Problems> {
    let at = |field: &str| Pointer::root().join(field);
    let mut problems = Problems::new();
    let email = request.email.parse::<Email>().map_err(|error| problems.add(at("email"), error.to_string()));
    let name = request.name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARACTERS || name.chars().any(char::is_control) {
        let message =
            format!("must have 1 to {MAX_NAME_CHARACTERS} characters, none of them a control character");
        problems.add(at("name"), message);
    }
    problems.extend(Passwords::problems(&request.password, &at("password")));
    match email {
        Ok(email) if problems.is_empty() => Ok((email, name.to_owned())),
        _ => Err(problems),
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

impl fmt::Debug for TokenPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenPair").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}
