//! Changing a password.

use gathering_auth::testing::InspectAccounts;
use gathering_auth::{AccountStore, ApiKeyRequest, AuthError, Passwords, Scope};
use gathering_domain::Secret;

use super::*;

const NEXT: &str = "another horse battery";

async fn change(auth: &Auth, caller: &Caller, current: &str, new: &str) -> Result<(), AuthError> {
    auth.change_password(caller, Secret::from(current), Secret::from(new)).await
}

#[tokio::test]
async fn a_password_change_ends_every_other_session_and_keeps_api_keys() {
    let (store, auth) = auth_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    let (here, elsewhere) = (login(&auth, "ada@example.org").await, login(&auth, "ada@example.org").await);
    let caller = caller_of(&auth, &here).await;
    let key =
        ApiKeyRequest { name: "robot".to_owned(), scopes: vec![Scope::Read], expires_at: None, once: None };
    let (_, secret) = auth.create_api_key(&caller, key).await.unwrap();
    change(&auth, &caller, PASSWORD, NEXT).await.unwrap();
    assert_eq!(last_audit(&*store).await, ("password_changed".into(), Some(ada), String::new()));
    assert!(!is_accepted(&auth, &elsewhere).await && !can_refresh(&auth, &elsewhere).await);
    assert!(is_accepted(&auth, &here).await && can_refresh(&auth, &here).await);
    assert!(auth.authenticate(secret.expose(), from_somewhere()).await.is_ok());
    assert!(matches!(try_login(&auth, "ada@example.org", PASSWORD).await, Err(AuthError::LoginRefused)));
    assert!(try_login(&auth, "ada@example.org", NEXT).await.is_ok());
    let trail = format!("{:?}", store.audit_trail().await);
    assert!(!trail.contains(PASSWORD) && !trail.contains(NEXT));
}

#[tokio::test]
async fn a_wrong_current_password_changes_nothing() {
    let (store, auth) = auth_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    let elsewhere = login(&auth, "ada@example.org").await;
    let caller = logged_in(&auth, "ada@example.org").await;
    let refused = change(&auth, &caller, "wrong", NEXT).await;
    assert!(matches!(refused, Err(AuthError::WrongPassword)));
    let expected = ("password_change_failed".into(), Some(ada), "wrong_password".into());
    assert_eq!(last_audit(&*store).await, expected);
    assert!(is_accepted(&auth, &elsewhere).await);
    assert!(try_login(&auth, "ada@example.org", PASSWORD).await.is_ok());
}

#[tokio::test]
async fn a_new_password_is_validated_before_anything_is_charged() {
    let (store, auth) = watched_with(settings());
    register(&auth, "ada@example.org").await;
    let caller = logged_in(&auth, "ada@example.org").await;
    let computed = auth.passwords().n_computed();
    store.calls();
    for (bad, n_problems) in [("short", 1), (&*"x".repeat(73), 1), ("a\0", 2)] {
        let Err(AuthError::Invalid(problems)) = change(&auth, &caller, PASSWORD, bad).await else { panic!() };
        let pointers: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(pointers, vec!["/new_password"; n_problems]);
    }
    assert_eq!((store.calls(), auth.passwords().n_computed()), (Vec::new(), computed));
}

#[tokio::test]
async fn guessing_the_current_password_uses_the_login_budget() {
    let (store, auth) = auth_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    let caller = logged_in(&auth, "ada@example.org").await;
    change(&auth, &caller, PASSWORD, NEXT).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(try_login(&auth, "ada@example.org", "wrong").await, Err(AuthError::LoginRefused)));
    }
    for _ in 0..3 {
        let refused = change(&auth, &caller, "wrong", PASSWORD).await;
        assert!(matches!(refused, Err(AuthError::WrongPassword)), "the success before cost nothing");
    }
    let computed = auth.passwords().n_computed();
    let throttled = change(&auth, &caller, NEXT, PASSWORD).await;
    assert!(matches!(throttled, Err(AuthError::Throttled { .. })));
    assert_eq!(auth.passwords().n_computed(), computed);
    let expected = ("password_change_failed".into(), Some(ada), "throttled".into());
    assert_eq!(last_audit(&*store).await, expected);
    assert!(matches!(try_login(&auth, "ada@example.org", NEXT).await, Err(AuthError::Throttled { .. })));
}

#[tokio::test]
async fn the_second_of_two_changes_needs_the_password_of_the_first() {
    let (store, auth) = watched_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    let caller = logged_in(&auth, "ada@example.org").await;
    let (inner, passwords) = (store.inner.clone(), Passwords::new(settings().passwords).unwrap());
    let before = inner.find_account(ada).await.unwrap().unwrap().password_hash;
    let next = passwords.hash(Secret::from(NEXT)).await.unwrap();
    store.before("change_password", async move {
        inner.replace_password_hash(ada, before, next).await.unwrap();
    });
    let refused = change(&auth, &caller, PASSWORD, "a third horse").await;
    assert!(matches!(refused, Err(AuthError::WrongPassword)));
    let expected = ("password_change_failed".into(), Some(ada), "changed_meanwhile".into());
    assert_eq!(last_audit(&*store).await, expected);
    assert!(try_login(&auth, "ada@example.org", NEXT).await.is_ok());
}
