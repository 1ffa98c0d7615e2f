//! Accounts: registration, and changes by admins.

use std::time::{Duration, Instant};

use gathering_auth::testing::InspectAccounts;
use gathering_auth::{
    ApiKeyRequest, AuditFilter, AuditKind, AuthError, AuthSettings, Caller, Denied, Origin, Registration,
    RegistrationRequest, Role, RoleAtCreation, Scope,
};
use gathering_domain::{Secret, UserId};

use super::*;

#[tokio::test]
async fn a_registered_user_can_log_in_and_is_authenticated() {
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
async fn every_problem_of_a_registration_is_reported() {
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
    assert_eq!(last_audit(&*store).await, ("registration_failed".into(), None, "account_exists".into()));
}

#[tokio::test]
async fn with_closed_registration_only_the_operator_creates_accounts() {
    let (_store, auth) = auth_with(AuthSettings { registration: Registration::Closed, ..settings() });
    let refused = auth.register(request("ada@example.org"), from_somewhere()).await;
    assert!(matches!(refused, Err(AuthError::RegistrationClosed)));
    let role = RoleAtCreation::Given(Role::Admin);
    let ada = auth.create_account(request("ada@example.org"), role, Origin::default()).await.unwrap();
    assert_eq!(ada.role, Role::Admin);
    assert!(is_accepted(&auth, &login(&auth, "ada@example.org").await).await);
}

#[tokio::test]
async fn the_time_of_a_registration_does_not_reveal_its_writes() {
    let (_store, auth) = auth_with(settings());
    for is_free in [true, false] {
        let before = Instant::now();
        let answer = auth.register(request("ada@example.org"), from_somewhere()).await;
        assert_eq!(answer.is_ok(), is_free);
        assert!(before.elapsed() >= Duration::from_millis(25), "{:?}", before.elapsed());
    }
}

/// Everybody who is not an admin, by credential.
async fn not_admins(auth: &Auth) -> [Caller; 3] {
    register_as(auth, "bob@example.org", Role::Member).await;
    let bob = logged_in(auth, "bob@example.org").await;
    let admin = logged_in(auth, "ada@example.org").await;
    let key_of = async |caller: &Caller| {
        let scopes = vec![Scope::Read, Scope::Write, Scope::Run, Scope::Manage];
        let request = ApiKeyRequest { name: "robot".to_owned(), scopes, expires_at: None, once: None };
        let (_, secret) = auth.create_api_key(caller, request).await.unwrap();
        auth.authenticate(secret.expose(), from_somewhere()).await.unwrap()
    };
    [key_of(&admin).await, key_of(&bob).await, bob]
}

#[tokio::test]
async fn only_admins_read_and_change_accounts_and_read_the_audit_record() {
    let (store, auth) = watched_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    for caller in not_admins(&auth).await {
        store.calls();
        let forbidden = |error| matches!(error, AuthError::Denied(Denied::Forbidden));
        assert!(forbidden(auth.list_accounts(&caller, None, 10).await.unwrap_err()));
        let demoted = auth.change_account(&caller, ada, Some(Role::Member), None).await;
        assert!(forbidden(demoted.unwrap_err()));
        let record = auth.audit_events(&caller, &AuditFilter::default(), 10).await;
        assert!(forbidden(record.unwrap_err()));
        assert_eq!(store.calls(), Vec::<&str>::new(), "the store was not called");
    }
    let caller = logged_in(&auth, "ada@example.org").await;
    let accounts = auth.list_accounts(&caller, None, 10).await.unwrap();
    assert_eq!(
        accounts.iter().map(|account| account.email.as_str()).collect::<Vec<_>>(),
        ["bob@example.org", "ada@example.org"]
    );
    assert_eq!(auth.list_accounts(&caller, Some(accounts[0].id), 10).await.unwrap(), accounts[1..]);
    let filter = AuditFilter { kind: Some(AuditKind::AccountRegistered), ..AuditFilter::default() };
    let events = auth.audit_events(&caller, &filter, 1).await.unwrap();
    assert_eq!(events.iter().map(|record| record.event.user).collect::<Vec<_>>(), [Some(accounts[0].id)]);
}

#[tokio::test]
async fn a_change_by_an_admin_is_recorded_with_the_admins_id() {
    let (store, auth) = auth_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    let bob = register(&auth, "bob@example.org").await;
    let caller = logged_in(&auth, "ada@example.org").await;
    let changed = auth.change_account(&caller, bob, Some(Role::Admin), None).await.unwrap();
    assert_eq!((changed.id, changed.role, changed.is_active), (bob, Role::Admin, true));
    let event = store.audit_trail().await.pop().unwrap();
    assert_eq!((event.kind, event.user), (AuditKind::RoleChanged, Some(bob)));
    assert_eq!((event.detail["by"].as_str(), event.origin), (Some(&*ada.to_string()), caller.origin));
    let nobody = auth.change_account(&caller, UserId::new(), None, Some(false)).await;
    assert!(matches!(nobody, Err(AuthError::NoAccount)));
}

#[tokio::test]
async fn the_last_active_admin_cannot_be_demoted_or_disabled() {
    let (_store, auth) = auth_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    let caller = logged_in(&auth, "ada@example.org").await;
    for (role, is_active) in [(Some(Role::Member), None), (None, Some(false))] {
        let refused = auth.change_account(&caller, ada, role, is_active).await;
        assert!(matches!(refused, Err(AuthError::LastAdmin)), "{refused:?}");
    }
    assert_eq!(logged_in(&auth, "ada@example.org").await.role, Role::Admin);
}

#[tokio::test]
async fn a_role_counts_from_the_next_request_on() {
    let (_store, auth) = auth_with(settings());
    register(&auth, "ada@example.org").await;
    let bob = register(&auth, "bob@example.org").await;
    let ada = logged_in(&auth, "ada@example.org").await;
    let pair = login(&auth, "bob@example.org").await;
    for role in [Role::Admin, Role::Member] {
        auth.change_account(&ada, bob, Some(role), None).await.unwrap();
        assert_eq!(caller_of(&auth, &pair).await.role, role);
    }
}

#[tokio::test]
async fn a_disabled_account_loses_its_credentials_permanently() {
    let (_store, auth) = auth_with(settings());
    register(&auth, "ada@example.org").await;
    let bob = register(&auth, "bob@example.org").await;
    let ada = logged_in(&auth, "ada@example.org").await;
    let pair = login(&auth, "bob@example.org").await;
    auth.change_account(&ada, bob, None, Some(false)).await.unwrap();
    for is_active in [false, true] {
        auth.change_account(&ada, bob, None, Some(is_active)).await.unwrap();
        assert!(!is_accepted(&auth, &pair).await);
        assert!(!can_refresh(&auth, &pair).await);
        assert_eq!(try_login(&auth, "bob@example.org", PASSWORD).await.is_ok(), is_active);
    }
}
