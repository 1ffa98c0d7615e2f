//! The cases, each for one guarantee of [`AccountStore`](crate::AccountStore). Every case needs an empty store.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

mod accounts;
mod api_keys;
mod audit;
mod passwords;
mod sessions;
mod throttle;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use gathering_domain::{AuditEventId, Digest, ProjectId, RequestId, UserId};

use super::InspectAccounts;
use crate::{
    Account, AccountChange, AuditEvent, AuditFilter, AuditKind, Charge, NewAccount, NewProject, NewSession,
    Origin, PasswordHash, RefreshRefusal, RefreshRotation, Role, RoleAtCreation, Rotation, SessionEnd,
    SessionId, StoreError, TokenId, TokenRevocation,
};

pub use accounts::*;
pub use api_keys::*;
pub use audit::*;
pub use passwords::*;
pub use sessions::*;
pub use throttle::*;

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
    begin_and_refund(store, user, token, lifetime, &[]).await
}

async fn begin_and_refund<S: InspectAccounts + ?Sized>(
    store: &S,
    user: UserId,
    token: &str,
    lifetime: Duration,
    refund: &[Charge],
) -> SessionId {
    let session = NewSession { id: SessionId::new(), user, refresh_token: digest(token), lifetime };
    let id = session.id;
    let began = AuditEvent::new(AuditKind::LoginSucceeded, Some(user), origin());
    store.begin_session(session, refund, began).await.unwrap();
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
    store.find_token_status(user, session, TokenId::new()).await.unwrap().unwrap().is_revoked
}

fn end_of(user: UserId, session: SessionId) -> SessionEnd {
    let token = TokenRevocation { id: TokenId::new(), remaining: LONG };
    SessionEnd { user, session, token, refresh_token: None }
}

/// An account with this role, whatever other accounts exist.
async fn create_as<S: InspectAccounts + ?Sized>(store: &S, email: &str, role: Role) -> Account {
    try_create(store, email, RoleAtCreation::Given(role)).await.unwrap()
}

async fn set_active<S: InspectAccounts + ?Sized>(
    store: &S,
    user: UserId,
    by: UserId,
    is_active: bool,
) -> Result<Account, StoreError> {
    let change = AccountChange { role: None, is_active: Some(is_active), by };
    store.update_account(user, change, origin()).await
}

async fn set_role<S: InspectAccounts + ?Sized>(
    store: &S,
    user: UserId,
    by: UserId,
    role: Role,
) -> Result<Account, StoreError> {
    let change = AccountChange { role: Some(role), is_active: None, by };
    store.update_account(user, change, origin()).await
}

/// The last recorded event, to check that nothing was recorded since.
async fn newest_event<S: InspectAccounts + ?Sized>(store: &S) -> Option<AuditEventId> {
    let page = store.list_audit_events(&AuditFilter::default(), 1).await.unwrap();
    page.first().map(|record| record.id)
}
