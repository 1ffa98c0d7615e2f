//! The cases, one promise of [`AccountStore`](crate::AccountStore) each. Every case wants an empty store.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use gathering_domain::{Digest, ProjectId, RequestId, UserId};

use super::InspectAccounts;
use crate::{
    Account, AuditEvent, AuditKind, NewAccount, NewProject, NewSession, Origin, PasswordHash, RefreshRefusal,
    RefreshRotation, Role, RoleAtCreation, Rotation, SessionEnd, SessionId, Standing, StoreError, TokenId,
    TokenRevocation,
};

const LONG: Duration = Duration::from_secs(3600);
const HASH: &str = "$2b$04$abcdefghijklmnopqrstuuMHCtmCWWkUOcYTtkPGuzVvcjwrVzV0a";

fn origin() -> Origin {
    Origin { address: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))), request_id: Some(RequestId::new()) }
}

fn audit(kind: AuditKind) -> AuditEvent {
    AuditEvent::new(kind, None, origin())
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

async fn try_create<S: InspectAccounts + ?Sized>(
    store: &S,
    email: &str,
    role: RoleAtCreation,
) -> Result<Account, StoreError> {
    let account = NewAccount {
        id: UserId::new(),
        email: email.parse().unwrap(),
        name: "Somebody".to_owned(),
        password_hash: PasswordHash::from(HASH.to_owned()),
        role,
    };
    let project = NewProject { id: ProjectId::new(), name: "Default".to_owned() };
    let registered = AuditEvent::new(AuditKind::AccountRegistered, Some(account.id), origin());
    store.create_account(account, project, registered).await
}

async fn create<S: InspectAccounts + ?Sized>(store: &S, email: &str) -> Account {
    try_create(store, email, RoleAtCreation::AdminIfFirst).await.unwrap()
}

async fn begin<S: InspectAccounts + ?Sized>(
    store: &S,
    user: UserId,
    token: &str,
    lifetime: Duration,
) -> SessionId {
    let session = NewSession { id: SessionId::new(), user, refresh_token: digest(token), lifetime };
    let id = session.id;
    let began = AuditEvent::new(AuditKind::LoginSucceeded, Some(user), origin());
    store.begin_session(session, began).await.unwrap();
    id
}

async fn rotate<S: InspectAccounts + ?Sized>(store: &S, spent: &str, next: &str) -> Rotation {
    let rotation = RefreshRotation { spent: digest(spent), next: digest(next), lifetime: LONG };
    store.rotate_refresh_token(rotation, origin()).await.unwrap()
}

fn refusal(rotation: Rotation) -> RefreshRefusal {
    match rotation {
        Rotation::Refused { refusal, .. } => refusal,
        Rotation::Rotated { .. } => panic!("it was rotated"),
    }
}

fn is_rotated(rotation: &Rotation) -> bool {
    matches!(rotation, Rotation::Rotated { .. })
}

async fn is_revoked<S: InspectAccounts + ?Sized>(store: &S, user: UserId, session: SessionId) -> bool {
    store.find_standing(user, session, TokenId::new()).await.unwrap().unwrap().is_revoked
}

fn end_of(user: UserId, session: SessionId) -> SessionEnd {
    let token = TokenRevocation { id: TokenId::new(), remaining: LONG };
    SessionEnd { user, session, token, refresh_token: None }
}

/// The first account of all is admin.
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

/// The operator may give a role.
pub async fn a_given_role_is_kept<S: InspectAccounts + ?Sized>(store: &S) {
    let given = |role| RoleAtCreation::Given(role);
    let first = try_create(store, "ada@example.org", given(Role::Member)).await.unwrap();
    let second = try_create(store, "bob@example.org", given(Role::Admin)).await.unwrap();
    assert_eq!((first.role, second.role), (Role::Member, Role::Admin));
}

/// A taken e-mail is refused, and nothing of the attempt is left.
pub async fn an_email_has_one_account_in_any_case<S: InspectAccounts + ?Sized>(store: &S) {
    let first = create(store, "ada@example.org").await;
    let again = try_create(store, "ADA@Example.org", RoleAtCreation::AdminIfFirst).await;
    assert!(matches!(again, Err(StoreError::AccountExists)), "{again:?}");
    assert_eq!(store.audit_trail().await.len(), 1, "the refused one left no audit event");
    let found = store.find_account_by_email(&first.email).await.unwrap().unwrap();
    assert_eq!(found.account, first);
}

/// A taken e-mail is refused even when both come at once.
pub async fn of_two_accounts_with_one_email_at_once_one_is_created<S: InspectAccounts + ?Sized>(store: &S) {
    let role = RoleAtCreation::AdminIfFirst;
    let (one, other) =
        tokio::join!(try_create(store, "ada@example.org", role), try_create(store, "ada@example.org", role));
    let refused =
        [&one, &other].into_iter().filter(|result| matches!(result, Err(StoreError::AccountExists)));
    assert_eq!(refused.count(), 1, "{one:?} {other:?}");
    assert!(one.is_ok() || other.is_ok());
}

/// Both look-ups give the same account.
pub async fn an_account_is_found_as_it_was_created<S: InspectAccounts + ?Sized>(store: &S) {
    let account = create(store, "ada@example.org").await;
    assert!(account.is_active);
    assert_eq!(account.name, "Somebody");
    assert_eq!(store.find_account(account.id).await.unwrap().as_ref(), Some(&account));
    let record = store.find_account_by_email(&account.email).await.unwrap().unwrap();
    assert_eq!((record.account, record.password_hash.expose()), (account, HASH));
}

/// Absent is an answer, not an error.
pub async fn nothing_is_found_where_nothing_is<S: InspectAccounts + ?Sized>(store: &S) {
    let email = "nobody@example.org".parse().unwrap();
    assert_eq!(store.find_account_by_email(&email).await.unwrap(), None);
    assert_eq!(store.find_account(UserId::new()).await.unwrap(), None);
    let standing = store.find_standing(UserId::new(), SessionId::new(), TokenId::new()).await.unwrap();
    assert_eq!(standing, None);
}

/// A token gives the next one of the same session, which gives the next.
pub async fn a_refresh_token_is_spent_once<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let session = begin(store, ada.id, "first", LONG).await;
    assert_eq!(rotate(store, "first", "second").await, Rotation::Rotated { account: ada.clone(), session });
    assert_eq!(rotate(store, "second", "third").await, Rotation::Rotated { account: ada.clone(), session });
    assert!(!is_revoked(store, ada.id, session).await);
}

/// Who spends a spent token ends the session: the refresh tokens and the access tokens of it.
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

/// What nobody was given is refused.
pub async fn an_unknown_refresh_token_is_refused<S: InspectAccounts + ?Sized>(store: &S) {
    let unknown = rotate(store, "made up", "next").await;
    assert_eq!(unknown, Rotation::Refused { user: None, refusal: RefreshRefusal::Unknown });
}

/// After a logout neither its access token, nor another of its session, nor its refresh token holds.
pub async fn a_logout_ends_its_session_and_may_be_repeated<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let session = begin(store, ada.id, "first", LONG).await;
    let other = begin(store, ada.id, "elsewhere", LONG).await;
    let end = end_of(ada.id, session);
    for _ in 0..2 {
        store.end_session(end.clone(), audit(AuditKind::LoggedOut)).await.unwrap();
        let standing = store.find_standing(ada.id, session, end.token.id).await.unwrap();
        assert_eq!(standing, Some(Standing { role: Role::Admin, is_active: true, is_revoked: true }));
        assert!(is_revoked(store, ada.id, session).await);
        assert_eq!(refusal(rotate(store, "first", "second").await), RefreshRefusal::Revoked);
    }
    assert!(!is_revoked(store, ada.id, other).await);
}

/// A revoked token stays revoked whatever session it is asked with.
pub async fn a_logout_forgets_no_token_before_its_time<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let session = begin(store, ada.id, "first", LONG).await;
    let end = end_of(ada.id, session);
    store.end_session(end.clone(), audit(AuditKind::LoggedOut)).await.unwrap();
    let standing = store.find_standing(ada.id, SessionId::new(), end.token.id).await.unwrap().unwrap();
    assert!(standing.is_revoked);
}

/// The refresh token of another login of the same account ends that login too.
pub async fn a_logout_ends_the_named_refresh_tokens_session<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let session = begin(store, ada.id, "first", LONG).await;
    let other = begin(store, ada.id, "elsewhere", LONG).await;
    let end = SessionEnd { refresh_token: Some(digest("elsewhere")), ..end_of(ada.id, session) };
    store.end_session(end, audit(AuditKind::LoggedOut)).await.unwrap();
    assert!(is_revoked(store, ada.id, session).await);
    assert!(is_revoked(store, ada.id, other).await);
    assert_eq!(refusal(rotate(store, "elsewhere", "next").await), RefreshRefusal::Revoked);
}

/// Nobody is logged out by somebody else, even if they know the refresh token.
pub async fn a_logout_leaves_other_accounts_alone<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let bob = create(store, "bob@example.org").await;
    let adas = begin(store, ada.id, "ada's", LONG).await;
    let bobs = begin(store, bob.id, "bob's", LONG).await;
    let end = SessionEnd { refresh_token: Some(digest("bob's")), ..end_of(ada.id, adas) };
    store.end_session(end, audit(AuditKind::LoggedOut)).await.unwrap();
    assert!(!is_revoked(store, bob.id, bobs).await);
    assert!(is_rotated(&rotate(store, "bob's", "next").await));
}

/// A disabled account is still found, but nothing that it was given holds.
pub async fn a_disabled_account_is_refused_everywhere<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let session = begin(store, ada.id, "first", LONG).await;
    store.disable_account(ada.id).await;
    let standing = store.find_standing(ada.id, session, TokenId::new()).await.unwrap().unwrap();
    assert!(!standing.is_active);
    assert!(!store.find_account_by_email(&ada.email).await.unwrap().unwrap().account.is_active);
    assert_eq!(refusal(rotate(store, "first", "second").await), RefreshRefusal::AccountDisabled);
}

/// What changes is recorded by the same transaction, with address, request and detail as they were given.
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
