//! The caches: revoked tokens, and the owners of API keys.

use std::time::Duration;

use gathering_auth::{ApiKeyRequest, AuthError, Scope};

use super::*;

fn remembering_one() -> AuthSettings {
    AuthSettings { n_cached_revocations: 1, n_cached_key_owners: 1, ..settings() }
}

async fn key_of(auth: &Auth, caller: &Caller) -> String {
    let request =
        ApiKeyRequest { name: "robot".to_owned(), scopes: vec![Scope::Read], expires_at: None, once: None };
    auth.create_api_key(caller, request).await.unwrap().1.expose().to_owned()
}

#[tokio::test]
async fn a_revoked_token_costs_one_query_and_then_none() {
    let (store, auth) = watched_with(settings());
    register(&auth, "ada@example.org").await;
    let pair = login(&auth, "ada@example.org").await;
    let other = auth.refresh(pair.refresh_token.expose(), from_somewhere()).await.unwrap();
    let caller = caller_of(&auth, &pair).await;
    auth.logout(&caller, None).await.unwrap();
    store.calls();
    assert!(!is_accepted(&auth, &pair).await);
    assert_eq!(store.calls(), Vec::<&str>::new(), "this instance revoked it itself");
    for expected in [vec!["find_token_status"], vec![], vec![]] {
        assert!(!is_accepted(&auth, &other).await, "another token of the session");
        assert_eq!(store.calls(), expected);
    }
}

#[tokio::test]
async fn a_token_revoked_by_another_instance_is_refused_at_once() {
    let (store, auth) = watched_with(settings());
    register(&auth, "ada@example.org").await;
    let pair = login(&auth, "ada@example.org").await;
    let caller = caller_of(&auth, &pair).await;
    let keys = KeyRing::generate().unwrap();
    let elsewhere = Auth::new(store.clone(), keys, settings()).unwrap();
    elsewhere.logout(&caller, None).await.unwrap();
    assert!(!is_accepted(&auth, &pair).await);
}

#[tokio::test]
async fn revocations_hold_with_a_cache_of_size_one() {
    let (store, auth) = watched_with(remembering_one());
    register(&auth, "ada@example.org").await;
    let valid = login(&auth, "ada@example.org").await;
    let mut revoked = Vec::new();
    for _ in 0..3 {
        let pair = login(&auth, "ada@example.org").await;
        auth.logout(&caller_of(&auth, &pair).await, None).await.unwrap();
        revoked.push(pair);
    }
    for _ in 0..3 {
        for pair in &revoked {
            assert!(!is_accepted(&auth, pair).await);
            store.calls();
            assert!(!is_accepted(&auth, pair).await);
            assert_eq!(store.calls(), Vec::<&str>::new());
            assert!(is_accepted(&auth, &valid).await);
            assert_eq!(store.calls(), ["find_token_status"], "an accepted token is checked each time");
        }
    }
}

#[tokio::test]
async fn a_disabled_account_is_not_cached_as_revoked() {
    let (store, auth) = watched_with(settings());
    register(&auth, "ada@example.org").await;
    let pair = login(&auth, "ada@example.org").await;
    store.disable_next_standing();
    assert!(!is_accepted(&auth, &pair).await);
    assert!(is_accepted(&auth, &pair).await, "only permanent facts are cached");
}

#[tokio::test]
async fn the_probable_owner_of_a_credential_costs_no_query() {
    let (store, auth) = watched_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    let pair = login(&auth, "ada@example.org").await;
    let caller = caller_of(&auth, &pair).await;
    let key = key_of(&auth, &caller).await;
    store.calls();
    assert_eq!(auth.verified_user(pair.access_token.expose_secret()), Some(ada));
    assert_eq!(auth.verified_user(&key), None, "the key was not used yet");
    let unknown = format!("grk_{}", "A".repeat(43));
    for garbage in ["", "grk_", "v4.local.AAAA", &unknown, pair.refresh_token.expose()] {
        assert_eq!(auth.verified_user(garbage), None, "{garbage}");
    }
    assert_eq!(store.calls(), Vec::<&str>::new());
    auth.authenticate(&key, from_somewhere()).await.unwrap();
    assert!(auth.authenticate(&unknown, from_somewhere()).await.is_err());
    store.calls();
    assert_eq!((auth.verified_user(&key), auth.verified_user(&unknown)), (Some(ada), None));
    assert_eq!(store.calls(), Vec::<&str>::new());
}

#[tokio::test]
async fn a_stolen_revoked_credential_does_not_use_its_owners_budget() {
    let (_store, auth) = auth_with(settings());
    register(&auth, "ada@example.org").await;
    let pair = login(&auth, "ada@example.org").await;
    let stolen = login(&auth, "ada@example.org").await;
    let caller = caller_of(&auth, &pair).await;
    let key = key_of(&auth, &caller).await;
    auth.authenticate(&key, from_somewhere()).await.unwrap();
    let id = auth.list_api_keys(&caller).await.unwrap()[0].id;
    auth.revoke_api_key(&caller, id).await.unwrap();
    auth.logout(&caller_of(&auth, &stolen).await, None).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(auth.authenticate(&key, from_somewhere()).await, Err(AuthError::Revoked)));
        assert_eq!(auth.verified_user(&key), None);
        assert_eq!(auth.verified_user(stolen.access_token.expose_secret()), None);
    }
}

#[tokio::test]
async fn an_expired_token_has_no_probable_owner() {
    let (_store, auth) = auth_with(AuthSettings { access_token_lifetime: Duration::ZERO, ..settings() });
    register(&auth, "ada@example.org").await;
    let pair = login(&auth, "ada@example.org").await;
    assert_eq!(auth.verified_user(pair.access_token.expose_secret()), None);
}

#[tokio::test]
async fn key_owners_are_correct_with_a_cache_of_size_one() {
    let (_store, auth) = auth_with(remembering_one());
    let mut keys = Vec::new();
    for email in ["ada@example.org", "bob@example.org"] {
        let user = register(&auth, email).await;
        keys.push((key_of(&auth, &logged_in(&auth, email).await).await, user));
    }
    for index in [0, 1, 0] {
        let (shown, other) = (&keys[index], &keys[1 - index]);
        assert_eq!(auth.authenticate(&shown.0, from_somewhere()).await.unwrap().user, shown.1);
        assert_eq!((auth.verified_user(&shown.0), auth.verified_user(&other.0)), (Some(shown.1), None));
    }
}
