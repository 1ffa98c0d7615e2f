//! The guarantees of the service, over the in-memory store. Each file holds those of one noun.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests are tests too")]

mod accounts;
mod api_keys;
mod keys;
mod logins;
mod memory_store;
mod passwords;
mod revocations;
mod sessions;
mod watched;

use std::sync::Arc;

use gathering_auth::testing::{InspectAccounts, MemoryAccounts};
use gathering_auth::{
    Auth, AuthError, AuthSettings, Caller, KeyRing, Origin, PasswordSettings, RegistrationRequest, Role,
    RoleAtCreation, TokenPair,
};
use gathering_domain::{ExposeSecret, RequestId, Secret, UserId};

use watched::Watched;

const PASSWORD: &str = "correct horse battery";

fn settings() -> AuthSettings {
    let passwords = PasswordSettings { cost: 4, n_threads: 2, n_waiting: 16 };
    AuthSettings { passwords, ..AuthSettings::default() }
}

fn auth_with(settings: AuthSettings) -> (Arc<MemoryAccounts>, Auth) {
    let store = Arc::new(MemoryAccounts::new());
    let auth = Auth::new(store.clone(), KeyRing::generate().unwrap(), settings).unwrap();
    (store, auth)
}

/// The same over a store whose calls are recorded.
fn watched_with(settings: AuthSettings) -> (Arc<Watched>, Auth) {
    let store = Arc::new(Watched::new());
    let auth = Auth::new(store.clone(), KeyRing::generate().unwrap(), settings).unwrap();
    (store, auth)
}

fn request(email: &str) -> RegistrationRequest {
    RegistrationRequest { email: email.to_owned(), name: "Ada".to_owned(), password: Secret::from(PASSWORD) }
}

fn from_address(address: &str) -> Origin {
    Origin { address: Some(address.parse().unwrap()), request_id: Some(RequestId::new()) }
}

fn from_somewhere() -> Origin {
    from_address("192.0.2.1")
}

async fn register(auth: &Auth, email: &str) -> UserId {
    auth.register(request(email), from_somewhere()).await.unwrap().id
}

async fn register_as(auth: &Auth, email: &str, role: Role) -> UserId {
    let role = RoleAtCreation::Given(role);
    auth.create_account(request(email), role, from_somewhere()).await.unwrap().id
}

async fn try_login(auth: &Auth, email: &str, password: &str) -> Result<TokenPair, AuthError> {
    auth.login(email, Secret::from(password), from_somewhere()).await
}

async fn login(auth: &Auth, email: &str) -> TokenPair {
    try_login(auth, email, PASSWORD).await.unwrap()
}

async fn caller_of(auth: &Auth, pair: &TokenPair) -> Caller {
    auth.authenticate(pair.access_token.expose_secret(), from_somewhere()).await.unwrap()
}

/// A caller with a session of their own.
async fn logged_in(auth: &Auth, email: &str) -> Caller {
    caller_of(auth, &login(auth, email).await).await
}

async fn is_accepted(auth: &Auth, pair: &TokenPair) -> bool {
    match auth.authenticate(pair.access_token.expose_secret(), from_somewhere()).await {
        Ok(_) => true,
        Err(AuthError::Revoked | AuthError::NotAuthenticated(_)) => false,
        Err(other) => panic!("{other}"),
    }
}

async fn can_refresh(auth: &Auth, pair: &TokenPair) -> bool {
    match auth.refresh(pair.refresh_token.expose(), from_somewhere()).await {
        Ok(_) => true,
        Err(AuthError::RefreshRefused) => false,
        Err(other) => panic!("{other}"),
    }
}

async fn last_audit(store: &impl InspectAccounts) -> (String, Option<UserId>, String) {
    let event = store.audit_trail().await.pop().unwrap();
    (event.kind.to_string(), event.user, event.detail["reason"].as_str().unwrap_or_default().to_owned())
}
