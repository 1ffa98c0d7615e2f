//! Passwords: replacing a hash, and what ends with it.
#![expect(clippy::unwrap_used, reason = "the cases are tests")]

use gathering_domain::UserId;

use super::{
    HASH, LONG, audit, begin, create, is_revoked, is_rotated, newest_event, origin, refusal, rotate,
};
use crate::testing::InspectAccounts;
use crate::{AuditEvent, AuditKind, PasswordChange, PasswordHash, RefreshRefusal, SessionId};

const NEXT: &str = "$2b$04$abcdefghijklmnopqrstuuMHCtmCWWkUOcYTtkPGuzVvcjwrVzV0b";
const OTHER: &str = "$2b$05$abcdefghijklmnopqrstuuMHCtmCWWkUOcYTtkPGuzVvcjwrVzV0c";

fn hash(text: &str) -> PasswordHash {
    PasswordHash::from(text.to_owned())
}

fn change(user: UserId, expected: &str, next: &str, keep: SessionId) -> PasswordChange {
    PasswordChange { user, expected: hash(expected), hash: hash(next), keep, refund: Vec::new() }
}

async fn hash_of<S: InspectAccounts + ?Sized>(store: &S, user: UserId) -> String {
    store.find_account(user).await.unwrap().unwrap().password_hash.expose().to_owned()
}

/// All other sessions end.
pub async fn a_changed_password_ends_every_session_but_one<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let bob = create(store, "bob@example.org").await;
    let here = begin(store, ada.id, "here", LONG).await;
    let elsewhere = begin(store, ada.id, "elsewhere", LONG).await;
    let bobs = begin(store, bob.id, "bob's", LONG).await;
    let changed = AuditEvent::new(AuditKind::PasswordChanged, Some(ada.id), origin());
    assert!(store.change_password(change(ada.id, HASH, NEXT, here), changed.clone()).await.unwrap());
    assert_eq!((hash_of(store, ada.id).await, hash_of(store, bob.id).await), (NEXT.into(), HASH.into()));
    assert!(is_revoked(store, ada.id, elsewhere).await);
    assert_eq!(refusal(rotate(store, "elsewhere", "next").await), RefreshRefusal::Revoked);
    assert!(!is_revoked(store, ada.id, here).await && !is_revoked(store, bob.id, bobs).await);
    assert!(is_rotated(&rotate(store, "here", "further").await));
    assert!(store.audit_trail().await.contains(&changed));
}

/// If the hash has already changed, nothing happens.
pub async fn a_password_is_changed_only_from_the_expected_one<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let here = begin(store, ada.id, "here", LONG).await;
    let elsewhere = begin(store, ada.id, "elsewhere", LONG).await;
    let before = newest_event(store).await;
    for user in [ada.id, UserId::new()] {
        let refused = change(user, OTHER, NEXT, here);
        assert!(!store.change_password(refused, audit(AuditKind::PasswordChanged)).await.unwrap());
    }
    assert_eq!((hash_of(store, ada.id).await, newest_event(store).await), (HASH.into(), before));
    assert!(!is_revoked(store, ada.id, elsewhere).await);
}

/// The second change finds another hash than it expects.
pub async fn of_two_password_changes_at_once_one_holds<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let one = begin(store, ada.id, "one", LONG).await;
    let other = begin(store, ada.id, "other", LONG).await;
    let (first, second) = tokio::join!(
        store.change_password(change(ada.id, HASH, NEXT, one), audit(AuditKind::PasswordChanged)),
        store.change_password(change(ada.id, HASH, OTHER, other), audit(AuditKind::PasswordChanged))
    );
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(first != second, "{first} {second}");
    assert_eq!(hash_of(store, ada.id).await, if first { NEXT } else { OTHER });
    assert_eq!(
        (is_revoked(store, ada.id, one).await, is_revoked(store, ada.id, other).await),
        (second, first),
        "the session that made the change continues"
    );
}

/// The same password at another cost is not a new password.
pub async fn a_hash_made_anew_leaves_sessions_alone<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let session = begin(store, ada.id, "here", LONG).await;
    let before = newest_event(store).await;
    store.replace_password_hash(ada.id, hash(OTHER), hash(NEXT)).await.unwrap();
    assert_eq!(hash_of(store, ada.id).await, HASH, "the expected hash was another one");
    store.replace_password_hash(ada.id, hash(HASH), hash(OTHER)).await.unwrap();
    assert_eq!((hash_of(store, ada.id).await, newest_event(store).await), (OTHER.into(), before));
    assert!(!is_revoked(store, ada.id, session).await);
}
