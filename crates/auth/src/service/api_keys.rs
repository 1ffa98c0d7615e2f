//! API keys: creation, revocation, and authentication with one.

use chrono::{DateTime, Utc};
use gathering_domain::{ApiKeyId, KeyedBody, Pointer, Problems};
use serde_json::json;

use super::{Auth, checked_name, needed_session};
use crate::{
    ApiKey, ApiKeySecret, AuditEvent, AuditKind, AuthError, Caller, Credential, InvalidToken, NewApiKey,
    Origin, Role, Scope, Scopes,
};

/// A request for an API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRequest {
    /// Its owner's name for it.
    pub name: String,
    /// Its scopes: at least one, none twice.
    pub scopes: Vec<Scope>,
    /// The time from which it is invalid, in UTC; never if absent.
    pub expires_at: Option<DateTime<Utc>>,
    /// The client's idempotency key, with the body that it came with.
    pub once: Option<KeyedBody>,
}

impl Auth {
    /// Creates an API key for the caller's account. Only this call returns its secret, so the same idempotency key never
    /// creates or shows a second one.
    ///
    /// # Errors
    /// [`AuthError::SessionNeeded`] for an API key, [`AuthError::Invalid`] with every problem,
    /// [`AuthError::KeyCreatedBefore`] or [`AuthError::IdempotencyKeyReused`], [`AuthError::TooManyKeys`], [`AuthError::Revoked`] if the caller's session or account has ended since, or an
    /// error of the store. Nothing was created.
    pub async fn create_api_key(
        &self,
        caller: &Caller,
        request: ApiKeyRequest,
    ) -> Result<(ApiKey, ApiKeySecret), AuthError> {
        let Credential::Session { session, token, .. } = caller.credential else {
            return Err(AuthError::SessionNeeded);
        };
        let (name, scopes) = checked(&request, caller.role).map_err(AuthError::Invalid)?;
        let secret = ApiKeySecret::generate().ok_or(AuthError::NoRandomness)?;
        let key = NewApiKey {
            id: ApiKeyId::new(),
            user: caller.user,
            session,
            token,
            name,
            secret: secret.digest(),
            scopes,
            expires_at: request.expires_at,
            once: request.once.map(|body| body.about(&json!("api_key"))),
        };
        let words: Vec<&str> = scopes.iter().map(Scope::as_str).collect();
        let audit = AuditEvent::new(AuditKind::ApiKeyCreated, Some(caller.user), caller.origin)
            .with_detail(json!({ "api_key": key.id, "scopes": words }));
        Ok((self.store.create_api_key(key, audit).await?, secret))
    }

    /// The caller's API keys that are not revoked, including expired ones, the newest first. A caller with an API key
    /// may list them too.
    ///
    /// # Errors
    /// An error of the store.
    pub async fn list_api_keys(&self, caller: &Caller) -> Result<Vec<ApiKey>, AuthError> {
        Ok(self.store.list_api_keys(caller.user).await?)
    }

    /// Revokes an API key of the caller's account permanently. It applies everywhere as soon as this returns.
    ///
    /// # Errors
    /// [`AuthError::SessionNeeded`] for an API key, [`AuthError::NoApiKey`] also if it is already revoked, or an error
    /// of the store. Nothing was changed.
    pub async fn revoke_api_key(&self, caller: &Caller, key: ApiKeyId) -> Result<(), AuthError> {
        needed_session(caller)?;
        let audit = AuditEvent::new(AuditKind::ApiKeyRevoked, Some(caller.user), caller.origin)
            .with_detail(json!({ "api_key": key }));
        let was_there = self.store.revoke_api_key(caller.user, key, audit).await?;
        if was_there { Ok(()) } else { Err(AuthError::NoApiKey) }
    }

    pub(super) async fn authenticate_key(&self, text: &str, origin: Origin) -> Result<Caller, AuthError> {
        let secret =
            ApiKeySecret::parse(text).ok_or(AuthError::NotAuthenticated(InvalidToken::Malformed))?.digest();
        let status = self.store.find_key_status(secret).await?;
        let Some(key) = status.filter(|key| key.is_active && !key.is_over) else {
            // The finder of an old key must not use up its owner's budget.
            self.key_owners.remove(&secret);
            return Err(AuthError::Revoked);
        };
        self.key_owners.insert(secret, key.user);
        let role = if key.scopes.contains(Scope::Admin) { key.role } else { Role::Member };
        let credential = Credential::ApiKey { key: key.id, scopes: key.scopes };
        Ok(Caller { user: key.user, role, credential, origin })
    }
}

/// The parts of a request by an account with this role, or every problem with it.
fn checked(request: &ApiKeyRequest, role: Role) -> Result<(String, Scopes), Problems> {
    let mut problems = Problems::new();
    let at = |field: &str| Pointer::root().join(field);
    let name = checked_name(&request.name).map_err(|message| problems.add(at("name"), message));
    problems.extend(scope_problems(&request.scopes, role, &at("scopes")));
    if request.expires_at.is_some_and(|expires_at| expires_at <= Utc::now()) {
        problems.add(at("expires_at"), "must be in the future");
    }
    match name {
        Ok(name) if problems.is_empty() => Ok((name, request.scopes.iter().copied().collect())),
        _ => Err(problems),
    }
}

fn scope_problems(scopes: &[Scope], role: Role, pointer: &Pointer) -> Problems {
    let mut problems = Problems::new();
    if scopes.is_empty() {
        problems.add(pointer.clone(), "must name at least one scope");
    }
    for (index, scope) in scopes.iter().enumerate() {
        let pointer = pointer.join(index);
        if scopes[..index].contains(scope) {
            problems.add(pointer, format!("names `{scope}` a second time"));
        } else if *scope == Scope::Admin && role != Role::Admin {
            problems.add(pointer, "is for admins only");
        }
    }
    problems
}
