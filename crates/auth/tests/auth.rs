//! The promises of the service, over the in-memory store.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests are tests too")]

use std::sync::Arc;
use std::time::Duration;

use gathering_auth::testing::{InspectAccounts, MemoryAccounts};
use gathering_auth::{
    Auth, AuthError, AuthSettings, KeyRing, Origin, PasswordSettings, Registration, RegistrationRequest,
    Role, RoleAtCreation, TokenPair,
};
use gathering_domain::{ExposeSecret, RequestId, Secret, UserId};

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

fn request(email: &str) -> RegistrationRequest {
    RegistrationRequest { email: email.to_owned(), name: "Ada".to_owned(), password: Secret::from(PASSWORD) }
}

fn from_somewhere() -> Origin {
    Origin { address: Some("192.0.2.1".parse().unwrap()), request_id: Some(RequestId::new()) }
}

async fn register(auth: &Auth, email: &str) -> UserId {
    auth.register(request(email), from_somewhere()).await.unwrap().id
}

async fn login(auth: &Auth, email: &str) -> TokenPair {
    auth.login(email, Secret::from(PASSWORD), from_somewhere()).await.unwrap()
}

async fn is_believed(auth: &Auth, pair: &TokenPair) -> bool {
    match auth.authenticate(pair.access_token.expose_secret(), from_somewhere()).await {
        Ok(_) => true,
        Err(AuthError::Revoked | AuthError::NotAuthenticated(_)) => false,
        Err(other) => panic!("{other}"),
    }
}

async fn last_audit(store: &MemoryAccounts) -> (String, Option<UserId>, String) {
    let event = store.audit_trail().await.pop().unwrap();
    (event.kind.to_string(), event.user, event.detail["reason"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn who_registered_can_log_in_and_is_known() {
    let (store, auth) = auth_with(settings());
    let ada = auth.register(request(" Ada@Example.org"), from_somewhere()).await.unwrap();
    assert_eq!((ada.email.as_str(), ada.role), ("ada@example.org", Role::Admin));
    assert_eq!(store.projects().len(), 1);
    assert_eq!(store.projects()[0].0, ada.id);

    let pair = login(&auth, "ADA@example.org").await;
    assert_eq!(pair.expires_in, Duration::from_secs(900));
    let origin = from_somewhere();
    let caller = auth.authenticate(pair.access_token.expose_secret(), origin).await.unwrap();
    assert_eq!((caller.user, caller.role, caller.origin), (ada.id, Role::Admin, origin));
    assert_eq!(auth.me(&caller).await.unwrap(), ada);
}

#[tokio::test]
async fn every_problem_of_a_registration_is_named() {
    let (store, auth) = auth_with(settings());
    let bad = RegistrationRequest { email: "x".into(), name: " ".into(), password: Secret::from("short") };
    let Err(AuthError::Invalid(problems)) = auth.register(bad, from_somewhere()).await else { panic!() };
    let pointers: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
    assert_eq!(pointers, ["/email", "/name", "/password"]);
    assert_eq!((store.audit_trail().await.len(), auth.passwords().n_computed()), (0, 0));
}

#[tokio::test]
async fn a_taken_email_costs_a_hash_like_a_free_one() {
    let (store, auth) = auth_with(settings());
    register(&auth, "ada@example.org").await;
    let before = auth.passwords().n_computed();
    let again = auth.register(request("ada@example.org"), from_somewhere()).await;
    assert!(matches!(again, Err(AuthError::AccountExists)));
    assert_eq!(auth.passwords().n_computed(), before + 1);
    assert_eq!(last_audit(&store).await, ("registration_failed".into(), None, "account_exists".into()));
}

#[tokio::test]
async fn closed_registration_is_closed_to_all_but_the_operator() {
    let (_store, auth) = auth_with(AuthSettings { registration: Registration::Closed, ..settings() });
    let refused = auth.register(request("ada@example.org"), from_somewhere()).await;
    assert!(matches!(refused, Err(AuthError::RegistrationClosed)));
    let role = RoleAtCreation::Given(Role::Admin);
    let ada = auth.create_account(request("ada@example.org"), role, Origin::default()).await.unwrap();
    assert_eq!(ada.role, Role::Admin);
    assert!(is_believed(&auth, &login(&auth, "ada@example.org").await).await);
}

#[tokio::test]
async fn every_refused_login_takes_the_same_steps_and_gets_the_same_answer() {
    let (store, auth) = auth_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    let bob = register(&auth, "bob@example.org").await;
    store.disable_account(bob).await;
    let long = "x".repeat(100);
    for (email, password, user, reason) in [
        ("nobody@example.org", PASSWORD, None, "unknown_email"),
        ("no address", PASSWORD, None, "unknown_email"),
        ("ada@example.org", "wrong", Some(ada), "wrong_password"),
        ("ada@example.org", &long, Some(ada), "wrong_password"),
        ("ada@example.org", "", Some(ada), "wrong_password"),
        ("bob@example.org", PASSWORD, Some(bob), "account_disabled"),
        ("bob@example.org", "wrong", Some(bob), "wrong_password"),
    ] {
        let (computed, recorded) = (auth.passwords().n_computed(), store.audit_trail().await.len());
        let refused = auth.login(email, Secret::from(password), from_somewhere()).await;
        assert!(matches!(refused, Err(AuthError::LoginRefused)), "{email}");
        assert_eq!(refused.unwrap_err().to_string(), "the login was refused");
        assert_eq!(auth.passwords().n_computed(), computed + 1, "{email}");
        assert_eq!(store.audit_trail().await.len(), recorded + 1);
        assert_eq!(last_audit(&store).await, ("login_failed".into(), user, reason.into()), "{email}");
    }
    let trail = format!("{:?}", store.audit_trail().await);
    assert!(!trail.contains("nobody@example.org") && !trail.contains(PASSWORD));
}

#[tokio::test]
async fn a_refresh_gives_new_tokens_of_the_same_session_and_spends_the_old() {
    let (_store, auth) = auth_with(settings());
    register(&auth, "ada@example.org").await;
    let first = login(&auth, "ada@example.org").await;
    let second = auth.refresh(first.refresh_token.expose(), from_somewhere()).await.unwrap();
    assert!(is_believed(&auth, &first).await, "the access token lives on until its time is over");
    assert!(is_believed(&auth, &second).await);
    assert_ne!(first.refresh_token.expose(), second.refresh_token.expose());
}

#[tokio::test]
async fn a_refresh_token_spent_twice_ends_every_token_of_its_session() {
    let (store, auth) = auth_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    let elsewhere = login(&auth, "ada@example.org").await;
    let first = login(&auth, "ada@example.org").await;
    let second = auth.refresh(first.refresh_token.expose(), from_somewhere()).await.unwrap();
    let stolen = auth.refresh(first.refresh_token.expose(), from_somewhere()).await;
    assert!(matches!(stolen, Err(AuthError::RefreshRefused)));
    assert_eq!(last_audit(&store).await.0, "refresh_token_reused");
    assert_eq!(last_audit(&store).await.1, Some(ada));
    assert!(!is_believed(&auth, &first).await);
    assert!(!is_believed(&auth, &second).await);
    let next = auth.refresh(second.refresh_token.expose(), from_somewhere()).await;
    assert!(matches!(next, Err(AuthError::RefreshRefused)));
    assert!(is_believed(&auth, &elsewhere).await);
}

#[tokio::test]
async fn what_is_no_refresh_token_is_refused_and_recorded() {
    let (store, auth) = auth_with(settings());
    let refused = auth.refresh("hunter2", from_somewhere()).await;
    assert!(matches!(refused, Err(AuthError::RefreshRefused)));
    assert_eq!(last_audit(&store).await, ("refresh_failed".into(), None, "malformed".into()));
}

#[tokio::test]
async fn a_logout_holds_at_once_and_may_be_repeated() {
    let (store, auth) = auth_with(settings());
    register(&auth, "ada@example.org").await;
    let pair = login(&auth, "ada@example.org").await;
    let refreshed = auth.refresh(pair.refresh_token.expose(), from_somewhere()).await.unwrap();
    let other = login(&auth, "ada@example.org").await;
    let caller = auth.authenticate(pair.access_token.expose_secret(), from_somewhere()).await.unwrap();
    auth.logout(&caller, None).await.unwrap();
    auth.logout(&caller, Some("not even a token")).await.unwrap();
    assert_eq!(last_audit(&store).await.0, "logged_out");
    assert!(!is_believed(&auth, &pair).await);
    assert!(!is_believed(&auth, &refreshed).await, "another access token of the session");
    let refused = auth.refresh(refreshed.refresh_token.expose(), from_somewhere()).await;
    assert!(matches!(refused, Err(AuthError::RefreshRefused)));
    assert!(is_believed(&auth, &other).await);
}

#[tokio::test]
async fn a_disabled_account_is_not_believed_any_more() {
    let (store, auth) = auth_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    let pair = login(&auth, "ada@example.org").await;
    store.disable_account(ada).await;
    assert!(!is_believed(&auth, &pair).await);
    let refused = auth.refresh(pair.refresh_token.expose(), from_somewhere()).await;
    assert!(matches!(refused, Err(AuthError::RefreshRefused)));
}

#[tokio::test]
async fn an_expired_access_token_is_not_believed() {
    let (_store, auth) = auth_with(AuthSettings { access_token_lifetime: Duration::ZERO, ..settings() });
    register(&auth, "ada@example.org").await;
    assert!(!is_believed(&auth, &login(&auth, "ada@example.org").await).await);
}

#[tokio::test]
async fn nothing_secret_shows_in_debug() {
    let (_store, auth) = auth_with(settings());
    register(&auth, "ada@example.org").await;
    let pair = login(&auth, "ada@example.org").await;
    let shown = format!("{pair:?} {auth:?} {:?}", request("ada@example.org"));
    for secret in [pair.access_token.expose_secret(), pair.refresh_token.expose(), PASSWORD] {
        assert!(!shown.contains(secret));
    }
}
