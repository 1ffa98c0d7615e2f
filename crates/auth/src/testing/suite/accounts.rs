//! Accounts: creation, and changes by admins.
#![expect(clippy::unwrap_used, reason = "the cases are tests")]

use gathering_domain::UserId;

use super::{
    HASH, LONG, begin, create, create_as, is_revoked, newest_event, origin, refusal, rotate, set_active,
    set_role, try_create,
};
use crate::testing::InspectAccounts;
use crate::{AccountChange, AuditKind, RefreshRefusal, Role, RoleAtCreation, SessionId, StoreError, TokenId};

/// The very first account is admin.
pub async fn the_first_account_is_admin_and_the_next_is_not<S: InspectAccounts + ?Sized>(store: &S) {
    assert_eq!(create(store, "ada@example.org").await.role, Role::Admin);
    assert_eq!(create(store, "bob@example.org").await.role, Role::Member);
}

/// Creations are serialised.
pub async fn of_two_first_accounts_at_once_one_is_admin<S: InspectAccounts + ?Sized>(store: &S) {
    let (ada, bob) = tokio::join!(create(store, "ada@example.org"), create(store, "bob@example.org"));
    let mut roles = [ada.role, bob.role];
    roles.sort();
    assert_eq!(roles, [Role::Member, Role::Admin]);
}

/// The operator may set a role.
pub async fn a_given_role_is_kept<S: InspectAccounts + ?Sized>(store: &S) {
    let given = |role| RoleAtCreation::Given(role);
    let first = try_create(store, "ada@example.org", given(Role::Member)).await.unwrap();
    let second = try_create(store, "bob@example.org", given(Role::Admin)).await.unwrap();
    assert_eq!((first.role, second.role), (Role::Member, Role::Admin));
}

/// A taken e-mail is refused, and nothing of the attempt remains.
pub async fn an_email_has_one_account_in_any_case<S: InspectAccounts + ?Sized>(store: &S) {
    let first = create(store, "ada@example.org").await;
    let again = try_create(store, "ADA@Example.org", RoleAtCreation::AdminIfFirst).await;
    assert!(matches!(again, Err(StoreError::AccountExists)), "{again:?}");
    assert_eq!(store.audit_trail().await.len(), 1, "the refused one left no audit event");
    let found = store.find_account_by_email(&first.email).await.unwrap().unwrap();
    assert_eq!(found.account, first);
}

/// A taken e-mail is refused even if both requests arrive at once.
pub async fn of_two_accounts_with_one_email_at_once_one_is_created<S: InspectAccounts + ?Sized>(store: &S) {
    let role = RoleAtCreation::AdminIfFirst;
    let (one, other) =
        tokio::join!(try_create(store, "ada@example.org", role), try_create(store, "ada@example.org", role));
    let refused =
        [&one, &other].into_iter().filter(|result| matches!(result, Err(StoreError::AccountExists)));
    assert_eq!(refused.count(), 1, "{one:?} {other:?}");
    assert!(one.is_ok() || other.is_ok());
}

/// Both lookups return the same account.
pub async fn an_account_is_found_as_it_was_created<S: InspectAccounts + ?Sized>(store: &S) {
    let account = create(store, "ada@example.org").await;
    assert!(account.is_active);
    assert_eq!(account.name, "Somebody");
    let record = store.find_account_by_email(&account.email).await.unwrap().unwrap();
    assert_eq!(store.find_account(account.id).await.unwrap().as_ref(), Some(&record));
    assert_eq!((record.account, record.password_hash.expose()), (account, HASH));
}

/// Absence is an answer, not an error.
pub async fn nothing_is_found_where_nothing_is<S: InspectAccounts + ?Sized>(store: &S) {
    let email = "nobody@example.org".parse().unwrap();
    assert_eq!(store.find_account_by_email(&email).await.unwrap(), None);
    assert_eq!(store.find_account(UserId::new()).await.unwrap(), None);
    let status = store.find_token_status(UserId::new(), SessionId::new(), TokenId::new()).await.unwrap();
    assert_eq!(status, None);
}

/// A page continues after the previous one.
pub async fn accounts_are_listed_newest_first_in_pages<S: InspectAccounts + ?Sized>(store: &S) {
    assert_eq!(store.list_accounts(None, 10).await.unwrap(), []);
    let ada = create(store, "ada@example.org").await;
    let bob = create(store, "bob@example.org").await;
    let eve = create(store, "eve@example.org").await;
    let eve = set_active(store, eve.id, ada.id, false).await.unwrap();
    assert_eq!(store.list_accounts(None, 2).await.unwrap(), [eve, bob.clone()]);
    assert_eq!(store.list_accounts(Some(bob.id), 2).await.unwrap(), std::slice::from_ref(&ada));
    assert_eq!(store.list_accounts(Some(ada.id), 2).await.unwrap(), []);
}

/// Each field that really changed is recorded, and no other.
pub async fn an_account_is_changed_and_what_changed_is_recorded<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let bob = create(store, "bob@example.org").await;
    let before = store.audit_trail().await.len();
    let from = origin();
    let change = AccountChange { role: Some(Role::Admin), is_active: Some(false), by: ada.id };
    let changed = store.update_account(bob.id, change, from).await.unwrap();
    assert_eq!((changed.role, changed.is_active), (Role::Admin, false));
    assert_eq!(store.find_account(bob.id).await.unwrap().unwrap().account, changed);
    assert_eq!(store.update_account(bob.id, change, from).await.unwrap(), changed);
    let trail = store.audit_trail().await.split_off(before);
    assert_eq!(trail, change.audit_events(&bob, from), "the repetition changed nothing");
    let kinds: Vec<AuditKind> = trail.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [AuditKind::RoleChanged, AuditKind::AccountDisabled]);
    assert_eq!(store.find_account(ada.id).await.unwrap().unwrap().account, ada);
}

/// An unknown account is not changed.
pub async fn an_unknown_account_is_not_changed<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let before = newest_event(store).await;
    let unknown = set_active(store, UserId::new(), ada.id, false).await;
    assert!(matches!(unknown, Err(StoreError::NoAccount)), "{unknown:?}");
    assert_eq!(newest_event(store).await, before);
}

/// A disabled account is still found, but its credentials are permanently invalid.
pub async fn disabling_ends_every_session_for_good<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let bob = create(store, "bob@example.org").await;
    let adas = begin(store, ada.id, "ada's", LONG).await;
    let bobs = [begin(store, bob.id, "bob's", LONG).await, begin(store, bob.id, "bob's other", LONG).await];
    set_active(store, bob.id, ada.id, false).await.unwrap();
    let status = store.find_token_status(bob.id, bobs[0], TokenId::new()).await.unwrap().unwrap();
    assert_eq!((status.is_active, status.is_revoked), (false, true));
    assert!(!store.find_account_by_email(&bob.email).await.unwrap().unwrap().account.is_active);
    set_active(store, bob.id, ada.id, true).await.unwrap();
    let status = store.find_token_status(bob.id, SessionId::new(), TokenId::new()).await.unwrap().unwrap();
    assert_eq!((status.is_active, status.is_revoked), (true, false));
    assert!(is_revoked(store, bob.id, bobs[0]).await && is_revoked(store, bob.id, bobs[1]).await);
    assert_eq!(refusal(rotate(store, "bob's", "next").await), RefreshRefusal::Revoked);
    assert!(!is_revoked(store, ada.id, adas).await);
}

/// A session that started while its account was being disabled gives no tokens.
pub async fn a_disabled_account_gets_no_tokens<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let bob = create(store, "bob@example.org").await;
    set_active(store, bob.id, ada.id, false).await.unwrap();
    begin(store, bob.id, "late", LONG).await;
    assert_eq!(refusal(rotate(store, "late", "next").await), RefreshRefusal::AccountDisabled);
}

/// The last active admin keeps role and activity; a disabled admin does not count.
pub async fn the_last_active_admin_stays_one<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create_as(store, "ada@example.org", Role::Admin).await;
    let bob = create_as(store, "bob@example.org", Role::Admin).await;
    create_as(store, "eve@example.org", Role::Member).await;
    set_active(store, bob.id, ada.id, false).await.unwrap();
    let session = begin(store, ada.id, "first", LONG).await;
    let before = newest_event(store).await;
    for refused in [
        set_role(store, ada.id, ada.id, Role::Member).await,
        set_active(store, ada.id, ada.id, false).await,
        store
            .update_account(
                ada.id,
                AccountChange { role: Some(Role::Admin), is_active: Some(false), by: ada.id },
                origin(),
            )
            .await,
    ] {
        assert!(matches!(refused, Err(StoreError::LastAdmin)), "{refused:?}");
    }
    assert_eq!(newest_event(store).await, before);
    assert_eq!(store.find_account(ada.id).await.unwrap().unwrap().account, ada);
    assert!(!is_revoked(store, ada.id, session).await);
    // A change that takes nothing from her succeeds, and with another admin she may go.
    assert_eq!(set_role(store, ada.id, ada.id, Role::Admin).await.unwrap(), ada);
    set_active(store, bob.id, ada.id, true).await.unwrap();
    assert_eq!(set_role(store, ada.id, ada.id, Role::Member).await.unwrap().role, Role::Member);
}

/// The permissions at the moment of the change count, not those at the moment of the request.
pub async fn who_is_no_active_admin_any_more_changes_no_account<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create_as(store, "ada@example.org", Role::Admin).await;
    let bob = create_as(store, "bob@example.org", Role::Admin).await;
    let eve = create_as(store, "eve@example.org", Role::Member).await;
    set_role(store, bob.id, ada.id, Role::Member).await.unwrap();
    let before = newest_event(store).await;
    for user in [eve.id, bob.id, UserId::new()] {
        let refused = set_role(store, user, bob.id, Role::Admin).await;
        assert!(matches!(refused, Err(StoreError::Denied)), "{refused:?}");
    }
    assert_eq!(newest_event(store).await, before);
    set_role(store, bob.id, ada.id, Role::Admin).await.unwrap();
    set_active(store, bob.id, ada.id, false).await.unwrap();
    let before = newest_event(store).await;
    for by in [bob.id, UserId::new()] {
        let refused = set_role(store, eve.id, by, Role::Admin).await;
        assert!(matches!(refused, Err(StoreError::Revoked)), "{refused:?}");
    }
    assert_eq!(newest_event(store).await, before);
    assert_eq!(store.find_account(eve.id).await.unwrap().unwrap().account, eve);
}

/// Such changes are serialised.
pub async fn of_two_admins_who_demote_each_other_at_once_one_remains<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create_as(store, "ada@example.org", Role::Admin).await;
    let bob = create_as(store, "bob@example.org", Role::Admin).await;
    let (one, other) =
        tokio::join!(set_role(store, bob.id, ada.id, Role::Member), set_active(store, ada.id, bob.id, false));
    // The second one was an admin at the request, but not at the change.
    let refused = |result: &_| matches!(result, Err(StoreError::Denied | StoreError::Revoked));
    assert_eq!([&one, &other].into_iter().filter(|result| refused(result)).count(), 1, "{one:?} {other:?}");
    let accounts = store.list_accounts(None, 10).await.unwrap();
    let admins = accounts.iter().filter(|account| account.is_active && account.role == Role::Admin);
    assert_eq!(admins.count(), 1, "{accounts:?}");
}
