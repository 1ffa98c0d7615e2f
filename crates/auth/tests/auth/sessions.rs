//! Sessions: refresh, logout and authentication.

use std::time::Duration;

use gathering_auth::{AuthError, AuthSettings};
use gathering_domain::ExposeSecret;

use super::*;

#[tokio::test]
async fn a_refresh_issues_new_tokens_of_the_session_and_invalidates_the_old() {
    let (_store, auth) = auth_with(settings());
    register(&auth, "ada@example.org").await;
    let first = login(&auth, "ada@example.org").await;
    let second = auth.refresh(first.refresh_token.expose(), from_somewhere()).await.unwrap();
    assert!(is_accepted(&auth, &first).await, "the access token lives on until its time is over");
    assert!(is_accepted(&auth, &second).await);
    assert_ne!(first.refresh_token.expose(), second.refresh_token.expose());
}

#[tokio::test]
async fn a_refresh_token_used_twice_ends_every_token_of_its_session() {
    let (store, auth) = auth_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    let elsewhere = login(&auth, "ada@example.org").await;
    let first = login(&auth, "ada@example.org").await;
    let second = auth.refresh(first.refresh_token.expose(), from_somewhere()).await.unwrap();
    let stolen = auth.refresh(first.refresh_token.expose(), from_somewhere()).await;
    assert!(matches!(stolen, Err(AuthError::RefreshRefused)));
    assert_eq!(last_audit(&*store).await.0, "refresh_token_reused");
    assert_eq!(last_audit(&*store).await.1, Some(ada));
    assert!(!is_accepted(&auth, &first).await);
    assert!(!is_accepted(&auth, &second).await);
    let next = auth.refresh(second.refresh_token.expose(), from_somewhere()).await;
    assert!(matches!(next, Err(AuthError::RefreshRefused)));
    assert!(is_accepted(&auth, &elsewhere).await);
}

#[tokio::test]
async fn an_invalid_refresh_token_is_refused_and_recorded() {
    let (store, auth) = auth_with(settings());
    let refused = auth.refresh("hunter2", from_somewhere()).await;
    assert!(matches!(refused, Err(AuthError::RefreshRefused)));
    assert_eq!(last_audit(&*store).await, ("refresh_failed".into(), None, "malformed".into()));
}

#[tokio::test]
async fn a_logout_applies_at_once_and_can_be_repeated() {
    let (store, auth) = auth_with(settings());
    register(&auth, "ada@example.org").await;
    let pair = login(&auth, "ada@example.org").await;
    let refreshed = auth.refresh(pair.refresh_token.expose(), from_somewhere()).await.unwrap();
    let other = login(&auth, "ada@example.org").await;
    let caller = auth.authenticate(pair.access_token.expose_secret(), from_somewhere()).await.unwrap();
    auth.logout(&caller, None).await.unwrap();
    auth.logout(&caller, Some("not even a token")).await.unwrap();
    assert_eq!(last_audit(&*store).await.0, "logged_out");
    assert!(!is_accepted(&auth, &pair).await);
    assert!(!is_accepted(&auth, &refreshed).await, "another access token of the session");
    let refused = auth.refresh(refreshed.refresh_token.expose(), from_somewhere()).await;
    assert!(matches!(refused, Err(AuthError::RefreshRefused)));
    assert!(is_accepted(&auth, &other).await);
}

#[tokio::test]
async fn an_expired_access_token_is_not_accepted() {
    let (_store, auth) = auth_with(AuthSettings { access_token_lifetime: Duration::ZERO, ..settings() });
    register(&auth, "ada@example.org").await;
    assert!(!is_accepted(&auth, &login(&auth, "ada@example.org").await).await);
}

#[tokio::test]
async fn debug_output_contains_no_secrets() {
    let (_store, auth) = auth_with(settings());
    register(&auth, "ada@example.org").await;
    let pair = login(&auth, "ada@example.org").await;
    let shown = format!("{pair:?} {auth:?} {:?}", request("ada@example.org"));
    for secret in [pair.access_token.expose_secret(), pair.refresh_token.expose(), PASSWORD] {
        assert!(!shown.contains(secret));
    }
}
