//! The audit record.
#![expect(clippy::unwrap_used, reason = "the cases are tests")]

use gathering_domain::UserId;

use super::{LONG, audit, begin, create, digest, end_of, origin, set_active};
use crate::testing::InspectAccounts;
use crate::{AuditEvent, AuditFilter, AuditKind, AuditRecord, RefreshRotation};

/// The transaction of a change records it, with address, request and detail as given.
pub async fn every_change_is_in_the_audit_trail_with_its_origin<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let session = begin(store, ada.id, "first", LONG).await;
    let from = origin();
    for (spent, next) in [("first", "second"), ("made up", "third"), ("first", "fourth")] {
        let rotation = RefreshRotation { spent: digest(spent), next: digest(next), lifetime: LONG };
        store.rotate_refresh_token(rotation, from).await.unwrap();
    }
    let ended = audit(AuditKind::LoggedOut);
    store.end_session(end_of(ada.id, session), ended.clone()).await.unwrap();
    let alone = audit(AuditKind::LoginFailed).because("wrong_password");
    store.record_audit(alone.clone()).await.unwrap();
    let trail = store.audit_trail().await;
    let kinds: Vec<&str> = trail.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "account_registered",
            "login_succeeded",
            "token_refreshed",
            "refresh_failed",
            "refresh_token_reused",
            "logged_out",
            "login_failed",
        ]
    );
    assert_eq!((trail[2].user, trail[2].origin), (Some(ada.id), from));
    assert_eq!((trail[3].user, trail[4].user), (None, Some(ada.id)));
    assert_eq!(trail[5..], [ended, alone]);
}

async fn list<S: InspectAccounts + ?Sized>(
    store: &S,
    filter: &AuditFilter,
    limit: usize,
) -> Vec<AuditRecord> {
    store.list_audit_events(filter, limit).await.unwrap()
}

/// A page continues after the previous one, and no event is listed twice.
pub async fn audit_events_are_listed_newest_first_in_pages<S: InspectAccounts + ?Sized>(store: &S) {
    assert_eq!(list(store, &AuditFilter::default(), 10).await, []);
    let reasons = ["one", "two", "three", "four", "five"];
    for reason in reasons {
        store.record_audit(audit(AuditKind::LoginFailed).because(reason)).await.unwrap();
    }
    let mut read = Vec::new();
    let mut filter = AuditFilter::default();
    loop {
        let page = list(store, &filter, 2).await;
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        filter.before = Some(last.id);
        read.extend(page);
        assert!(read.len() <= reasons.len(), "a page began where the previous one did");
    }
    let mut as_read: Vec<String> =
        read.iter().map(|record| record.event.detail["reason"].as_str().unwrap().to_owned()).collect();
    as_read.reverse();
    assert_eq!(as_read, reasons);
    assert!(read.is_sorted_by(|newer, older| newer.id > older.id && newer.at >= older.at));
}

type Passes<'a> = &'a dyn Fn(&AuditRecord) -> bool;

/// Each filter restricts alone and together with others. `from` is inclusive, `to` is exclusive.
pub async fn audit_events_are_listed_by_account_kind_and_time<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let bob = create(store, "bob@example.org").await;
    begin(store, ada.id, "ada's", LONG).await;
    begin(store, bob.id, "bob's", LONG).await;
    set_active(store, bob.id, ada.id, false).await.unwrap();
    store.record_audit(audit(AuditKind::LoginFailed)).await.unwrap();
    let all = list(store, &AuditFilter::default(), 100).await;
    assert_eq!(all.len(), 6);
    let (middle, any) = (all[3].at, AuditFilter::default());
    let of = |event: &AuditEvent, user: UserId| event.user == Some(user);
    let is_login = |event: &AuditEvent| event.kind == AuditKind::LoginSucceeded;
    let cases: [(AuditFilter, Passes<'_>); 8] = [
        (AuditFilter { user: Some(bob.id), ..any.clone() }, &|record| of(&record.event, bob.id)),
        (AuditFilter { user: Some(UserId::new()), ..any.clone() }, &|_| false),
        (AuditFilter { kind: Some(AuditKind::LoginSucceeded), ..any.clone() }, &|record| {
            is_login(&record.event)
        }),
        (AuditFilter { kind: Some(AuditKind::ProjectDeleted), ..any.clone() }, &|_| false),
        (AuditFilter { from: Some(middle), ..any.clone() }, &|record| record.at >= middle),
        (AuditFilter { to: Some(middle), ..any.clone() }, &|record| record.at < middle),
        (AuditFilter { from: Some(middle), to: Some(middle), ..any.clone() }, &|_| false),
        (
            AuditFilter { user: Some(ada.id), kind: Some(AuditKind::LoginSucceeded), ..any.clone() },
            &|record| of(&record.event, ada.id) && is_login(&record.event),
        ),
    ];
    for (filter, passes) in cases {
        let expected: Vec<AuditRecord> = all.iter().filter(|record| passes(record)).cloned().collect();
        assert_eq!(list(store, &filter, 100).await, expected, "{filter:?}");
        let older = AuditFilter { before: expected.first().map(|record| record.id), ..filter };
        assert_eq!(list(store, &older, 100).await, expected.get(1..).unwrap_or_default(), "{older:?}");
    }
}
