//! Sessions: login, refresh and logout, and authentication of requests.

use std::fmt;
use std::time::Duration;

use chrono::Utc;
use gathering_domain::{Email, Secret, UserId};
use serde_json::json;

use super::Auth;
use crate::{
    AccountRecord, ApiKeySecret, AuditEvent, AuditKind, AuthError, Caller, Charge, Credential, NewSession,
    Origin, PasswordHash, RefreshRotation, RefreshToken, Rotation, SessionEnd, SessionId, TokenId,
    TokenRevocation,
};

/// The tokens of a login or a refresh.
#[derive(Clone)]
pub struct TokenPair {
    /// The token to send with each request.
    pub access_token: Secret,
    /// The lifetime of the access token.
    pub expires_in: Duration,
    /// The token to exchange, once, for the next pair.
    pub refresh_token: RefreshToken,
}

impl Auth {
    /// Starts a session with e-mail and password.
    ///
    /// The attempt is charged ([`Charge::for_login`]) before anything is checked, and refunded on success. It stays
    /// charged if the store fails. It is not charged if too many passwords wait ([`AuthError::Overloaded`]), because a
    /// flood of logins must not exhaust its victims' budgets. An unknown e-mail, a wrong password and a disabled
    /// account cause the same steps (one charge, one lookup, one bcrypt, one audit event) and get the same answer. A
    /// hash that does not have the configured cost is renewed.
    ///
    /// # Errors
    /// [`AuthError::Throttled`], [`AuthError::LoginRefused`], [`AuthError::Overloaded`], or an error of the store. No
    /// token was issued.
    pub async fn login(&self, email: &str, password: Secret, origin: Origin) -> Result<TokenPair, AuthError> {
        let place = self.passwords.place()?;
        let charges = Charge::for_login(email, origin.address);
        let refused = |user| AuditEvent::new(AuditKind::LoginFailed, user, origin);
        self.charge_attempt(&charges, refused(None)).await?;
        let found = match email.parse::<Email>() {
            Ok(email) => self.store.find_account_by_email(&email).await?,
            // The sender knows that this is not an address, so skipping the lookup reveals nothing.
            Err(_) => None,
        };
        let hash = found.as_ref().map(|record| &record.password_hash);
        let is_right = self.passwords.verify_at(&place, password.clone(), hash).await?;
        drop(place);
        match found {
            Some(record) if is_right && record.account.is_active => {
                self.begin_session(record, password, &charges, origin).await
            }
            found => {
                let reason = match &found {
                    None => "unknown_email",
                    Some(_) if !is_right => "wrong_password",
                    Some(_) => "account_disabled",
                };
                let user = found.map(|record| record.account.id);
                self.store.record_audit(refused(user).because(reason)).await?;
                Err(AuthError::LoginRefused)
            }
        }
    }

    /// Exchanges a refresh token for new tokens of the same session. Using a token twice revokes its session.
    ///
    /// # Errors
    /// [`AuthError::RefreshRefused`], or an error of the store; after the latter the token is still unused.
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

    /// Ends the caller's session, and that of `refresh_token` if it belongs to the caller. It applies everywhere as
    /// soon as this returns. Can be repeated.
    ///
    /// # Errors
    /// [`AuthError::SessionNeeded`] for an API key, or an error of the store; nothing was revoked.
    pub async fn logout(&self, caller: &Caller, refresh_token: Option<&str>) -> Result<(), AuthError> {
        let Credential::Session { session, token, expires_at } = &caller.credential else {
            return Err(AuthError::SessionNeeded);
        };
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
        self.store.end_session(end, audit).await?;
        self.revoked.insert(*token, ());
        Ok(())
    }

    /// Authenticates an access token or API key: the account must be active, and the session or key valid, at this
    /// moment.
    ///
    /// # Errors
    /// [`AuthError::NotAuthenticated`] or [`AuthError::Revoked`] (both mean 401), or an error of the store: the answer
    /// is then unknown.
    pub async fn authenticate(&self, credential: &str, origin: Origin) -> Result<Caller, AuthError> {
        if ApiKeySecret::is_meant_by(credential) {
            self.authenticate_key(credential, origin).await
        } else {
            self.authenticate_token(credential, origin).await
        }
    }

    async fn authenticate_token(&self, access_token: &str, origin: Origin) -> Result<Caller, AuthError> {
        let token = self.tokens.verify(access_token, Utc::now()).map_err(AuthError::NotAuthenticated)?;
        if self.revoked.get(&token.id).is_some() {
            return Err(AuthError::Revoked);
        }
        let Some(status) = self.store.find_token_status(token.user, token.session, token.id).await? else {
            return Err(AuthError::Revoked);
        };
        if status.is_revoked {
            self.revoked.insert(token.id, ());
        }
        if status.is_revoked || !status.is_active {
            return Err(AuthError::Revoked);
        }
        let credential =
            Credential::Session { session: token.session, token: token.id, expires_at: token.expires_at };
        Ok(Caller { user: token.user, role: status.role, credential, origin })
    }

    /// The probable owner of a credential, without a query: for the key of a rate limiter, **never for a decision about
    /// access**. The credential may have been revoked, or its account disabled, a moment ago; only
    /// [`authenticate`](Self::authenticate) knows.
    ///
    /// The user of an access token that decrypts, has not expired and is not cached as revoked; the owner of an API key
    /// that this instance accepted recently.
    pub fn verified_user(&self, credential: &str) -> Option<UserId> {
        if ApiKeySecret::is_meant_by(credential) {
            return self.key_owners.get(&ApiKeySecret::parse(credential)?.digest());
        }
        let token = self.tokens.verify(credential, Utc::now()).ok()?;
        // A thief of a token that was revoked since must not use up its owner's budget.
        self.revoked.get(&token.id).is_none().then_some(token.user)
    }

    async fn begin_session(
        &self,
        record: AccountRecord,
        password: Secret,
        charges: &[Charge],
        origin: Origin,
    ) -> Result<TokenPair, AuthError> {
        let user = record.account.id;
        let verified = self.at_configured_cost(&record, &password).await?;
        let refresh_token = RefreshToken::generate().ok_or(AuthError::NoRandomness)?;
        let session = NewSession {
            id: SessionId::new(),
            user,
            refresh_token: refresh_token.digest(),
            lifetime: self.settings.refresh_token_lifetime,
        };
        let id = session.id;
        let pair = self.pair(user, id, refresh_token)?;
        let audit = AuditEvent::new(AuditKind::LoginSucceeded, Some(user), origin)
            .with_detail(json!({ "session": id }));
        self.store.begin_session(session, charges, audit).await?;
        if self.still_opens(user, &verified, password).await? {
            return Ok(pair);
        }
        self.take_back(user, id, origin).await?;
        Err(AuthError::LoginRefused)
    }

    /// Whether the account is still active and has the password that was verified. A password change or a disabling
    /// that was faster than the login could not end a session that had not started.
    async fn still_opens(
        &self,
        user: UserId,
        verified: &PasswordHash,
        password: Secret,
    ) -> Result<bool, AuthError> {
        match self.store.find_account(user).await? {
            Some(now) if now.account.is_active => {
                // Another hash may be of the same password: one that a concurrent login renewed.
                Ok(now.password_hash == *verified
                    || self.passwords.verify(password, Some(&now.password_hash)).await?)
            }
            _ => Ok(false),
        }
    }

    /// Ends a session whose tokens were never issued.
    async fn take_back(&self, user: UserId, session: SessionId, origin: Origin) -> Result<(), AuthError> {
        let token = TokenRevocation { id: TokenId::new(), remaining: Duration::ZERO };
        let end = SessionEnd { user, session, token, refresh_token: None };
        let refused =
            AuditEvent::new(AuditKind::LoginFailed, Some(user), origin).because("changed_meanwhile");
        Ok(self.store.end_session(end, refused).await?)
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

impl fmt::Debug for TokenPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenPair").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}
