//! API keys.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use std::time::Duration;

use chrono::{DateTime, Utc};
use gathering_domain::{ApiKeyId, Once, UserId};

use super::{LONG, begin, create, digest, end_of, newest_event, origin, set_active, set_role};
use crate::testing::InspectAccounts;
use crate::{
    ApiKey, AuditEvent, AuditKind, KeyStatus, NewApiKey, Role, Scope, Scopes, SessionId, StoreError, TokenId,
};

fn new_key(user: UserId, secret: &str) -> NewApiKey {
    NewApiKey {
        id: ApiKeyId::new(),
        user,
        session: SessionId::new(),
        token: TokenId::new(),
        name: format!("key of {secret}"),
        secret: digest(secret),
        scopes: Scopes::from_iter([Scope::Run, Scope::Admin]),
        expires_at: None,
        once: None,
    }
}

/// A new key, requested with this idempotency key and body.
fn keyed(user: UserId, secret: &str, key: &str, body: &str) -> NewApiKey {
    let once = Once { key: key.parse().unwrap(), digest: digest(body) };
    NewApiKey { once: Some(once), ..new_key(user, secret) }
}

async fn try_create_key<S: InspectAccounts + ?Sized>(
    store: &S,
    key: NewApiKey,
) -> Result<ApiKey, StoreError> {
    let created = AuditEvent::new(AuditKind::ApiKeyCreated, Some(key.user), origin());
    store.create_api_key(key, created).await
}

async fn create_key<S: InspectAccounts + ?Sized>(store: &S, user: UserId, secret: &str) -> ApiKey {
    try_create_key(store, new_key(user, secret)).await.unwrap()
}

async fn revoke<S: InspectAccounts + ?Sized>(store: &S, user: UserId, key: ApiKeyId) -> bool {
    let revoked = AuditEvent::new(AuditKind::ApiKeyRevoked, Some(user), origin());
    store.revoke_api_key(user, key, revoked).await.unwrap()
}

async fn status<S: InspectAccounts + ?Sized>(store: &S, secret: &str) -> Option<KeyStatus> {
    store.find_key_status(digest(secret)).await.unwrap()
}

/// A key is found by its secret only, and its use is recorded.
pub async fn an_api_key_is_found_by_its_secret<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let expires_at = "2999-12-31T23:59:59.123456Z".parse::<DateTime<Utc>>().unwrap();
    let new = NewApiKey { expires_at: Some(expires_at), ..new_key(ada.id, "secret") };
    let key = try_create_key(store, new.clone()).await.unwrap();
    assert_eq!((key.id, &key.name, key.scopes), (new.id, &new.name, new.scopes));
    assert_eq!((key.expires_at, key.last_used_at), (Some(expires_at), None));
    assert_eq!(store.list_api_keys(ada.id).await.unwrap(), std::slice::from_ref(&key));
    let found = status(store, "secret").await;
    let expected = KeyStatus {
        id: new.id,
        user: ada.id,
        role: Role::Admin,
        is_active: true,
        is_over: false,
        scopes: new.scopes,
    };
    assert_eq!(found, Some(expected));
    assert_eq!(status(store, "another secret").await, None);
    let used = store.list_api_keys(ada.id).await.unwrap().remove(0);
    assert!(used.last_used_at.is_some());
    assert_eq!(ApiKey { last_used_at: None, ..used }, key);
    assert_eq!(store.audit_trail().await.last().unwrap().kind, AuditKind::ApiKeyCreated);
}

/// Each account sees its own.
pub async fn api_keys_are_listed_newest_first<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let bob = create(store, "bob@example.org").await;
    assert_eq!(store.list_api_keys(ada.id).await.unwrap(), []);
    let keys = [create_key(store, ada.id, "one").await, create_key(store, ada.id, "two").await];
    create_key(store, bob.id, "bob's").await;
    let [one, two] = keys;
    assert_eq!(store.list_api_keys(ada.id).await.unwrap(), [two, one]);
}

/// A revoked key is permanently invalid and not listed. Nobody but its owner can revoke it.
pub async fn an_api_key_is_revoked_by_its_owner_once<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let bob = create(store, "bob@example.org").await;
    let key = create_key(store, ada.id, "secret").await;
    let other = create_key(store, ada.id, "other").await;
    let before = newest_event(store).await;
    assert!(!revoke(store, bob.id, key.id).await);
    assert!(!revoke(store, ada.id, ApiKeyId::new()).await);
    assert_eq!(newest_event(store).await, before);
    assert!(!status(store, "secret").await.unwrap().is_over);

    assert!(revoke(store, ada.id, key.id).await);
    assert!(status(store, "secret").await.unwrap().is_over);
    assert!(!status(store, "other").await.unwrap().is_over);
    let listed: Vec<ApiKeyId> =
        store.list_api_keys(ada.id).await.unwrap().into_iter().map(|key| key.id).collect();
    assert_eq!(listed, [other.id]);
    let revoked = newest_event(store).await;
    assert_ne!(revoked, before);
    assert!(!revoke(store, ada.id, key.id).await, "it is already revoked");
    assert_eq!(newest_event(store).await, revoked);
}

/// Expiry follows the store's clock. An expired key is still listed, so that its owner sees why it fails.
pub async fn an_expired_api_key_is_over_and_listed<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let soon = Utc::now() + Duration::from_millis(50);
    let key = NewApiKey { expires_at: Some(soon), ..new_key(ada.id, "secret") };
    try_create_key(store, key).await.unwrap();
    let mut n_looks = 0;
    while !status(store, "secret").await.unwrap().is_over {
        n_looks += 1;
        assert!(n_looks < 1000, "it has not expired at {}", Utc::now());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(Utc::now() >= soon);
    assert_eq!(store.list_api_keys(ada.id).await.unwrap().len(), 1);
}

/// The current permissions of the account count.
pub async fn an_api_key_stands_as_its_account_does<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let bob = create(store, "bob@example.org").await;
    create_key(store, bob.id, "secret").await;
    let role_and_activity = async || {
        let status = status(store, "secret").await.unwrap();
        (status.role, status.is_active, status.is_over)
    };
    assert_eq!(role_and_activity().await, (Role::Member, true, false));
    set_role(store, bob.id, ada.id, Role::Admin).await.unwrap();
    assert_eq!(role_and_activity().await, (Role::Admin, true, false));
    set_active(store, bob.id, ada.id, false).await.unwrap();
    assert_eq!(role_and_activity().await, (Role::Admin, false, false));
    set_active(store, bob.id, ada.id, true).await.unwrap();
    assert_eq!(role_and_activity().await, (Role::Admin, true, false), "keys are not sessions");
}

/// One key too many is refused, even to concurrent requests, until one is revoked. Each account has its own limit.
pub async fn an_account_has_so_many_api_keys_and_no_more<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let bob = create(store, "bob@example.org").await;
    let first = create_key(store, ada.id, "0").await;
    for index in 1..ApiKey::MAX_PER_ACCOUNT - 1 {
        create_key(store, ada.id, &index.to_string()).await;
    }
    let (one, other) = tokio::join!(
        try_create_key(store, new_key(ada.id, "one")),
        try_create_key(store, new_key(ada.id, "other"))
    );
    let refused = [&one, &other].into_iter().filter(|result| matches!(result, Err(StoreError::TooManyKeys)));
    assert_eq!(refused.count(), 1, "{one:?} {other:?}");
    assert!(one.is_ok() || other.is_ok());
    let before = newest_event(store).await;
    let refused = try_create_key(store, new_key(ada.id, "too many")).await;
    assert!(matches!(refused, Err(StoreError::TooManyKeys)), "{refused:?}");
    assert_eq!((newest_event(store).await, status(store, "too many").await), (before, None));
    assert_eq!(store.list_api_keys(ada.id).await.unwrap().len(), ApiKey::MAX_PER_ACCOUNT);
    create_key(store, bob.id, "bob's").await;
    assert!(revoke(store, ada.id, first.id).await);
    create_key(store, ada.id, "in its place").await;
}

/// The status of session, token and account at the creation counts, not at the request.
pub async fn a_session_that_is_over_makes_no_api_key<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let bob = create(store, "bob@example.org").await;
    let [over, holds] = [begin(store, bob.id, "over", LONG).await, begin(store, bob.id, "holds", LONG).await];
    let by = |session, token| NewApiKey { session, token, ..new_key(bob.id, &TokenId::new().to_string()) };
    let end = end_of(bob.id, over);
    let token = end.token.id;
    store.end_session(end, AuditEvent::new(AuditKind::LoggedOut, Some(bob.id), origin())).await.unwrap();
    let before = newest_event(store).await;
    for key in [by(over, TokenId::new()), by(SessionId::new(), token)] {
        let refused = try_create_key(store, key).await;
        assert!(matches!(refused, Err(StoreError::Revoked)), "{refused:?}");
    }
    assert_eq!((newest_event(store).await, store.list_api_keys(bob.id).await.unwrap()), (before, Vec::new()));
    try_create_key(store, by(holds, TokenId::new())).await.unwrap();
    set_active(store, bob.id, ada.id, false).await.unwrap();
    let refused = try_create_key(store, by(SessionId::new(), TokenId::new())).await;
    assert!(matches!(refused, Err(StoreError::Revoked)), "{refused:?}");
}

/// The secret was shown once, so the second answer names the key and creates none.
pub async fn the_same_request_makes_one_api_key<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let bob = create(store, "bob@example.org").await;
    let first = try_create_key(store, keyed(ada.id, "one", "k", "body")).await.unwrap();
    let before = newest_event(store).await;
    let repeated = try_create_key(store, keyed(ada.id, "two", "k", "body")).await;
    assert!(matches!(repeated, Err(StoreError::KeyCreatedBefore(id)) if id == first.id), "{repeated:?}");
    let other = try_create_key(store, keyed(ada.id, "three", "k", "another body")).await;
    assert!(matches!(other, Err(StoreError::OtherRequest)), "{other:?}");
    assert_eq!(store.list_api_keys(ada.id).await.unwrap(), std::slice::from_ref(&first));
    assert_eq!(newest_event(store).await, before);
    try_create_key(store, keyed(ada.id, "four", "l", "body")).await.unwrap();
    try_create_key(store, keyed(bob.id, "five", "k", "another body")).await.unwrap();
    assert!(revoke(store, ada.id, first.id).await);
    let repeated = try_create_key(store, keyed(ada.id, "six", "k", "body")).await;
    assert!(matches!(repeated, Err(StoreError::KeyCreatedBefore(id)) if id == first.id), "{repeated:?}");
}

/// Which of the two it is does not matter.
pub async fn of_two_same_requests_at_once_one_makes_an_api_key<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let make = |secret| try_create_key(store, keyed(ada.id, secret, "k", "body"));
    let (one, two) = tokio::join!(make("one"), make("two"));
    let ((Ok(made), Err(refused)) | (Err(refused), Ok(made))) = (one, two) else { panic!("not one") };
    assert!(matches!(refused, StoreError::KeyCreatedBefore(id) if id == made.id), "{refused:?}");
    assert_eq!(store.list_api_keys(ada.id).await.unwrap(), [made]);
}

/// The request may be repeated once there is room.
pub async fn a_refused_request_uses_no_idempotency_key<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let mut last = None;
    for number in 0..ApiKey::MAX_PER_ACCOUNT {
        last = Some(create_key(store, ada.id, &format!("secret {number}")).await.id);
    }
    let refused = try_create_key(store, keyed(ada.id, "over", "k", "body")).await;
    assert!(matches!(refused, Err(StoreError::TooManyKeys)), "{refused:?}");
    assert!(revoke(store, ada.id, last.unwrap()).await);
    let key = try_create_key(store, keyed(ada.id, "over", "k", "body")).await.unwrap();
    // The account is full again, and the repeated request is still told which key it created.
    let repeated = try_create_key(store, keyed(ada.id, "again", "k", "body")).await;
    assert!(matches!(repeated, Err(StoreError::KeyCreatedBefore(id)) if id == key.id), "{repeated:?}");
}
