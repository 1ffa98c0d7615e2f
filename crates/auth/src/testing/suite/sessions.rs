//! Sessions: refresh tokens and logouts.
#![expect(clippy::unwrap_used, reason = "the cases are tests")]

use std::time::Duration;

use serde_json::json;

use super::{LONG, audit, begin, create, digest, end_of, is_revoked, is_rotated, refusal, rotate};
use crate::testing::InspectAccounts;
use crate::{AuditKind, RefreshRefusal, Role, Rotation, SessionEnd, SessionId, TokenStatus};

/// A token gives the next one of the same session, which gives the next.
pub async fn a_refresh_token_is_spent_once<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let session = begin(store, ada.id, "first", LONG).await;
    assert_eq!(rotate(store, "first", "second").await, Rotation::Rotated { account: ada.clone(), session });
    assert_eq!(rotate(store, "second", "third").await, Rotation::Rotated { account: ada.clone(), session });
    assert!(!is_revoked(store, ada.id, session).await);
}

/// Using a token twice ends the session: its refresh tokens and its access tokens.
pub async fn a_token_spent_twice_revokes_its_session_and_no_other<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let session = begin(store, ada.id, "first", LONG).await;
    let other = begin(store, ada.id, "elsewhere", LONG).await;
    assert!(is_rotated(&rotate(store, "first", "second").await));
    let again = rotate(store, "first", "stolen").await;
    assert_eq!(again, Rotation::Refused { user: Some(ada.id), refusal: RefreshRefusal::Reused });
    assert!(is_revoked(store, ada.id, session).await);
    assert_eq!(refusal(rotate(store, "second", "third").await), RefreshRefusal::Revoked);
    assert_eq!(refusal(rotate(store, "first", "third").await), RefreshRefusal::Revoked);
    assert_eq!(refusal(rotate(store, "stolen", "third").await), RefreshRefusal::Unknown);
    assert!(!is_revoked(store, ada.id, other).await);
    assert!(is_rotated(&rotate(store, "elsewhere", "further").await));
}

/// A token is never rotated twice.
pub async fn of_two_who_spend_a_token_at_once_one_gets_the_next<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let session = begin(store, ada.id, "first", LONG).await;
    let (one, other) = tokio::join!(rotate(store, "first", "second"), rotate(store, "first", "stolen"));
    assert_eq!(
        [&one, &other].into_iter().filter(|rotation| is_rotated(rotation)).count(),
        1,
        "{one:?} {other:?}"
    );
    assert!(is_revoked(store, ada.id, session).await);
}

/// The lifetime is added to the store's clock, and `expires_at` itself is too late.
pub async fn an_expired_refresh_token_is_refused<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let session = begin(store, ada.id, "first", Duration::ZERO).await;
    assert_eq!(refusal(rotate(store, "first", "second").await), RefreshRefusal::Expired);
    assert_eq!(refusal(rotate(store, "second", "third").await), RefreshRefusal::Unknown);
    assert!(!is_revoked(store, ada.id, session).await);
}

/// An unknown token is refused.
pub async fn an_unknown_refresh_token_is_refused<S: InspectAccounts + ?Sized>(store: &S) {
    let unknown = rotate(store, "made up", "next").await;
    assert_eq!(unknown, Rotation::Refused { user: None, refusal: RefreshRefusal::Unknown });
}

/// After a logout, the access token, other tokens of its session and its refresh token are invalid.
pub async fn a_logout_ends_its_session_and_may_be_repeated<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let session = begin(store, ada.id, "first", LONG).await;
    let other = begin(store, ada.id, "elsewhere", LONG).await;
    let end = end_of(ada.id, session);
    for _ in 0..2 {
        store.end_session(end.clone(), audit(AuditKind::LoggedOut)).await.unwrap();
        let status = store.find_token_status(ada.id, session, end.token.id).await.unwrap();
        assert_eq!(status, Some(TokenStatus { role: Role::Admin, is_active: true, is_revoked: true }));
        assert!(is_revoked(store, ada.id, session).await);
        assert_eq!(refusal(rotate(store, "first", "second").await), RefreshRefusal::Revoked);
    }
    assert!(!is_revoked(store, ada.id, other).await);
}

/// A revoked token stays revoked, whatever session it is checked with.
pub async fn a_logout_forgets_no_token_before_its_time<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let session = begin(store, ada.id, "first", LONG).await;
    let end = end_of(ada.id, session);
    store.end_session(end.clone(), audit(AuditKind::LoggedOut)).await.unwrap();
    let status = store.find_token_status(ada.id, SessionId::new(), end.token.id).await.unwrap().unwrap();
    assert!(status.is_revoked);
}

/// The refresh token of another login of the same account ends that login too, and the record names both.
pub async fn a_logout_ends_the_named_refresh_tokens_session<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let session = begin(store, ada.id, "first", LONG).await;
    let other = begin(store, ada.id, "elsewhere", LONG).await;
    let end = SessionEnd { refresh_token: Some(digest("elsewhere")), ..end_of(ada.id, session) };
    let event = audit(AuditKind::LoggedOut).with_detail(json!({ "session": session }));
    store.end_session(end, event).await.unwrap();
    let recorded = store.audit_trail().await.pop().unwrap().detail;
    assert_eq!(recorded, json!({ "session": session, "other_session": other }));
    assert!(is_revoked(store, ada.id, session).await);
    assert!(is_revoked(store, ada.id, other).await);
    assert_eq!(refusal(rotate(store, "elsewhere", "next").await), RefreshRefusal::Revoked);
}

/// Nobody can log out somebody else, even with their refresh token.
pub async fn a_logout_leaves_other_accounts_alone<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let bob = create(store, "bob@example.org").await;
    let adas = begin(store, ada.id, "ada's", LONG).await;
    let bobs = begin(store, bob.id, "bob's", LONG).await;
    let end = SessionEnd { refresh_token: Some(digest("bob's")), ..end_of(ada.id, adas) };
    store.end_session(end, audit(AuditKind::LoggedOut)).await.unwrap();
    assert!(store.audit_trail().await.pop().unwrap().detail["other_session"].is_null());
    assert!(!is_revoked(store, bob.id, bobs).await);
    assert!(is_rotated(&rotate(store, "bob's", "next").await));
}
