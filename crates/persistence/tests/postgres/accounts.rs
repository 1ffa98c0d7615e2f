//! The account store: the cases of authentication, and what PostgreSQL adds.

use std::ops::Deref;
use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use gathering_auth::testing::InspectAccounts;
use gathering_auth::{
    Account, AccountChange, AccountStore, ApiKey, AuditEvent, AuditFilter, AuditKind, Charge, Charged,
    NewAccount, NewApiKey, NewProject, NewSession, Origin, PasswordChange, PasswordHash, RefreshRotation,
    Role, RoleAtCreation, Rotation, Scope, SessionEnd, SessionId, StoreError, TokenId, TokenRevocation,
    account_store_suite,
};
use gathering_domain::{ApiKeyId, Digest, ProjectId, UserId};
use gathering_persistence::testing::TestDb;
use gathering_persistence::{PgAccountStore, Pool};
use tokio::task::JoinSet;

use crate::common::{count, named_pool, wait_until};

/// The store with its schema, which goes when the test ends.
pub struct Fixture {
    pub store: PgAccountStore,
    pub pool: Pool,
    pub db: TestDb,
}

pub async fn empty_store() -> Fixture {
    let db = TestDb::new().await;
    let pool = warm_pool(&db).await;
    Fixture { store: PgAccountStore::new(pool.clone()), pool, db }
}

/// A pool whose connections are open, so that what a test does at once is done at once. They are named by the schema.
pub async fn warm_pool(db: &TestDb) -> Pool {
    let pool = named_pool(db, &format!("pool_of_{}", db.schema()), 4).await;
    // One ping may end before the next begins, and then they share a connection.
    wait_until("all connections are open", async || {
        let pings = tokio::join!(pool.ping(), pool.ping(), pool.ping(), pool.ping());
        assert!(matches!(pings, (Ok(()), Ok(()), Ok(()), Ok(()))));
        pool.status().n_open == 4
    })
    .await;
    pool
}

impl Deref for Fixture {
    type Target = PgAccountStore;

    fn deref(&self) -> &PgAccountStore {
        &self.store
    }
}

account_store_suite!(empty_store);

pub fn hash(text: &str) -> PasswordHash {
    PasswordHash::from(format!("$2b$04${text}"))
}

pub fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

pub fn event(kind: AuditKind) -> AuditEvent {
    AuditEvent::new(kind, None, Origin::default())
}

pub async fn create_account(
    store: &PgAccountStore,
    email: &str,
    role: RoleAtCreation,
) -> Result<Account, StoreError> {
    let id = UserId::new();
    let account = NewAccount {
        id,
        email: email.parse().unwrap(),
        name: "Somebody".to_owned(),
        password_hash: hash("first"),
        role,
    };
    let project = NewProject { id: ProjectId::new(), name: "Default".to_owned() };
    let audit = AuditEvent::new(AuditKind::AccountRegistered, Some(id), Origin::default());
    store.create_account(account, project, audit).await
}

pub async fn begin(store: &PgAccountStore, user: UserId, token: &str, lifetime: Duration) -> SessionId {
    let session = NewSession { id: SessionId::new(), user, refresh_token: digest(token), lifetime };
    let id = session.id;
    store.begin_session(session, &[], event(AuditKind::LoginSucceeded)).await.unwrap();
    id
}

pub const LONG: Duration = Duration::from_secs(3600);

pub async fn rotate(store: &PgAccountStore, spent: &str, next: &str) -> Rotation {
    let rotation = RefreshRotation { spent: digest(spent), next: digest(next), lifetime: LONG };
    store.rotate_refresh_token(rotation, Origin::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_equal_registrations_at_once_one_makes_an_account() {
    let fixture = empty_store().await;
    let other = PgAccountStore::new(warm_pool(&fixture.db).await);
    let mut registrations = JoinSet::new();
    for n in 0..50 {
        let store = if n % 2 == 0 { fixture.store.clone() } else { other.clone() };
        registrations.spawn(async move {
            create_account(&store, "ada@example.org", RoleAtCreation::AdminIfFirst).await
        });
    }
    let answers = registrations.join_all().await;
    let created: Vec<&Account> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    assert_eq!(created.iter().map(|account| account.role).collect::<Vec<_>>(), [Role::Admin]);
    for answer in answers.iter().filter(|answer| answer.is_err()) {
        assert!(matches!(answer, Err(StoreError::AccountExists)), "{answer:?}");
    }
    for table in ["users", "projects", "project_members", "audit_events"] {
        assert_eq!(count(&fixture.db, &format!("SELECT count(*) FROM {table}")).await, 1, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_admins_who_all_give_it_up_at_once_on_several_instances_one_remains() {
    let fixture = empty_store().await;
    let other = PgAccountStore::new(warm_pool(&fixture.db).await);
    let mut admins = Vec::new();
    for n in 0..8 {
        let email = format!("a{n}@example.org");
        admins.push(create_account(&fixture, &email, RoleAtCreation::Given(Role::Admin)).await.unwrap().id);
    }
    // So that all of them have begun before one can end.
    let mut blocker = fixture.db.connection().await;
    blocker.batch_execute("BEGIN; SELECT FROM users FOR UPDATE").await.unwrap();
    let mut changes = JoinSet::new();
    for (n, admin) in admins.into_iter().enumerate() {
        let store = if n % 2 == 0 { fixture.store.clone() } else { other.clone() };
        let (role, is_active) = if n < 4 { (Some(Role::Member), None) } else { (None, Some(false)) };
        let change = AccountChange { role, is_active, by: admin };
        changes.spawn(async move { store.update_account(admin, change, Origin::default()).await });
    }
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'pool_of_{}'",
        fixture.db.schema()
    );
    wait_until("all changes wait", async || count(&fixture.db, &waiting).await == 8).await;
    blocker.batch_execute("COMMIT").await.unwrap();
    let answers = changes.join_all().await;
    let refused = answers.iter().filter(|answer| matches!(answer, Err(StoreError::LastAdmin)));
    assert_eq!(refused.count(), 1, "{answers:?}");
    let active = "SELECT count(*) FROM users WHERE role = 'admin' AND is_active";
    assert_eq!(count(&fixture.db, active).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn charges_of_several_instances_at_once_never_exceed_the_burst_and_never_deadlock() {
    let fixture = empty_store().await;
    let other = PgAccountStore::new(warm_pool(&fixture.db).await);
    let share = |key: &str, burst| Charge { key: digest(key), burst, interval: LONG };
    let mut attempts = JoinSet::new();
    for n in 0..60 {
        let store = if n % 2 == 0 { fixture.store.clone() } else { other.clone() };
        let mut charges = vec![share("network", 20), share(&format!("account {}", n % 3), 9)];
        if n % 4 < 2 {
            charges.reverse();
        }
        attempts.spawn(async move { store.charge(&charges).await.unwrap() });
    }
    let paid = attempts.join_all().await.into_iter().filter(|charged| *charged == Charged::Paid).count();
    assert_eq!(paid, 20);
    // What was refused took nothing from the budget that would have paid.
    let spent = "SELECT sum(round(extract(epoch FROM spent_until - now()) / 3600)) FROM login_throttles \
                 WHERE key <> (SELECT key FROM login_throttles ORDER BY spent_until DESC LIMIT 1)";
    assert_eq!(count(&fixture.db, spent).await, 20);
}

#[tokio::test]
async fn a_refused_charge_says_when_it_can_be_paid() {
    let fixture = empty_store().await;
    let charge = Charge { key: digest("k"), burst: 2, interval: Duration::from_secs(60) };
    assert_eq!(fixture.charge(&[charge]).await.unwrap(), Charged::Paid);
    fixture.db.execute("UPDATE login_throttles SET spent_until = clock_timestamp() + interval '100 s'").await;
    let Charged::Refused { retry_after } = fixture.charge(&[charge]).await.unwrap() else { panic!("paid") };
    assert!((35..=40).contains(&retry_after.as_secs()), "{retry_after:?}");
    fixture.db.execute("UPDATE login_throttles SET spent_until = clock_timestamp() + interval '60 s'").await;
    assert_eq!(fixture.charge(&[charge]).await.unwrap(), Charged::Paid);
}

/// Whatever happens to the sessions of one account at the same time, everybody gets an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_one_accounts_sessions_at_once_never_deadlock() {
    let fixture = empty_store().await;
    let ada = create_account(&fixture, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
    let bob = create_account(&fixture, "bob@example.org", RoleAtCreation::Given(Role::Admin)).await.unwrap();
    for round in 0..10 {
        let name = |n: usize| format!("{round} {n}");
        let session = begin(&fixture, ada.id, &name(0), LONG).await;
        for n in 0..8 {
            assert!(matches!(rotate(&fixture, &name(n), &name(n + 1)).await, Rotation::Rotated { .. }));
        }
        let mut changes = JoinSet::new();
        for n in 0..9 {
            let (store, spent, next) = (fixture.store.clone(), name(n), format!("{round} next {n}"));
            changes.spawn(async move {
                rotate(&store, &spent, &next).await;
            });
        }
        let store = fixture.store.clone();
        changes.spawn(async move {
            let token = TokenRevocation { id: TokenId::new(), remaining: LONG };
            let end = SessionEnd { user: ada.id, session, token, refresh_token: None };
            store.end_session(end, event(AuditKind::LoggedOut)).await.unwrap();
        });
        let store = fixture.store.clone();
        changes.spawn(async move {
            for is_active in [Some(false), Some(true)] {
                let change = AccountChange { role: None, is_active, by: bob.id };
                store.update_account(ada.id, change, Origin::default()).await.unwrap();
            }
        });
        changes.join_all().await;
        let alive = "SELECT count(*) FROM refresh_tokens AS t WHERE NOT EXISTS \
                     (SELECT FROM refresh_tokens AS r WHERE r.session_id = t.session_id AND r.revoked_at IS NOT NULL)";
        assert_eq!(count(&fixture.db, alive).await, 0, "no session of {round} is left");
    }
}

#[tokio::test]
async fn a_login_that_ended_while_its_account_was_disabled_does_not_come_to_life() {
    let fixture = empty_store().await;
    let ada = create_account(&fixture, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
    let bob = create_account(&fixture, "bob@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
    let set = async |is_active| {
        let change = AccountChange { role: None, is_active: Some(is_active), by: ada.id };
        fixture.update_account(bob.id, change, Origin::default()).await.unwrap();
    };
    set(false).await;
    let session = begin(&fixture, bob.id, "late", LONG).await;
    set(true).await;
    let status = fixture.find_token_status(bob.id, session, TokenId::new()).await.unwrap().unwrap();
    assert!(status.is_active && status.is_revoked);
    assert!(matches!(rotate(&fixture, "late", "next").await, Rotation::Refused { .. }));
}

#[tokio::test]
async fn a_password_is_not_changed_without_its_record() {
    let fixture = empty_store().await;
    let ada = create_account(&fixture, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
    let session = begin(&fixture, ada.id, "first", LONG).await;
    fixture.db.execute("ALTER TABLE audit_events ADD CHECK (type <> 'password_changed')").await;
    let change = PasswordChange {
        user: ada.id,
        expected: hash("first"),
        hash: hash("second"),
        keep: SessionId::new(),
        refund: Vec::new(),
    };
    assert!(fixture.change_password(change, event(AuditKind::PasswordChanged)).await.is_err());
    let record = fixture.find_account(ada.id).await.unwrap().unwrap();
    assert_eq!(record.password_hash, hash("first"));
    let status = fixture.find_token_status(ada.id, session, TokenId::new()).await.unwrap().unwrap();
    assert!(!status.is_revoked);
}

fn new_key(user: UserId, secret: &str) -> NewApiKey {
    NewApiKey {
        id: ApiKeyId::new(),
        user,
        session: SessionId::new(),
        token: TokenId::new(),
        name: "ci".to_owned(),
        secret: digest(secret),
        scopes: [Scope::Read, Scope::Run].into_iter().collect(),
        expires_at: None,
        once: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_keys_created_at_once_never_exceed_the_limit() {
    let fixture = empty_store().await;
    let ada = create_account(&fixture, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
    for n in 0..ApiKey::MAX_PER_ACCOUNT - 1 {
        let key = new_key(ada.id, &n.to_string());
        fixture.create_api_key(key, event(AuditKind::ApiKeyCreated)).await.unwrap();
    }
    let mut creations = JoinSet::new();
    for n in 0..8 {
        let (store, key) = (fixture.store.clone(), new_key(ada.id, &format!("late {n}")));
        creations.spawn(async move { store.create_api_key(key, event(AuditKind::ApiKeyCreated)).await });
    }
    let answers = creations.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    assert_eq!(fixture.list_api_keys(ada.id).await.unwrap().len(), ApiKey::MAX_PER_ACCOUNT);
    let nobody = fixture.create_api_key(new_key(UserId::new(), "x"), event(AuditKind::ApiKeyCreated)).await;
    assert!(matches!(nobody, Err(StoreError::NoAccount)), "{nobody:?}");
}

#[tokio::test]
async fn the_use_of_an_api_key_is_noted_once_a_minute() {
    let fixture = empty_store().await;
    let ada = create_account(&fixture, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
    fixture.create_api_key(new_key(ada.id, "s"), event(AuditKind::ApiKeyCreated)).await.unwrap();
    let last_use = async || fixture.list_api_keys(ada.id).await.unwrap()[0].last_used_at;
    assert_eq!(last_use().await, None);
    let status = fixture.find_key_status(digest("s")).await.unwrap().unwrap();
    assert_eq!(status.scopes.iter().collect::<Vec<_>>(), [Scope::Read, Scope::Run]);
    let first = last_use().await.unwrap();
    fixture.find_key_status(digest("s")).await.unwrap().unwrap();
    assert_eq!(last_use().await, Some(first));
    fixture.db.execute("UPDATE api_keys SET last_used_at = last_used_at - interval '61 s'").await;
    fixture.find_key_status(digest("s")).await.unwrap().unwrap();
    assert!(last_use().await.unwrap() > first);
    fixture.db.execute("UPDATE api_keys SET last_used_at = NULL, revoked_at = now()").await;
    assert!(fixture.find_key_status(digest("s")).await.unwrap().unwrap().is_over);
    assert_eq!(count(&fixture.db, "SELECT count(last_used_at) FROM api_keys").await, 0, "it was refused");
}

#[tokio::test]
async fn the_audit_record_cannot_be_changed_even_by_its_owner() {
    let fixture = empty_store().await;
    create_account(&fixture, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
    let mut conn = fixture.db.connection().await;
    let owned = "SELECT count(*) FROM pg_class WHERE oid = 'audit_events'::regclass AND relowner = current_user::regrole";
    assert_eq!(count(&fixture.db, owned).await, 1);
    for role in ["origin", "replica"] {
        conn.batch_execute(&format!("SET session_replication_role = {role}")).await.unwrap();
        for sql in [
            "UPDATE audit_events SET type = 'nothing'",
            "DELETE FROM audit_events",
            "TRUNCATE audit_events",
            "INSERT INTO audit_events SELECT * FROM audit_events ON CONFLICT (id) DO UPDATE SET type = 'nothing'",
        ] {
            let refused = conn.batch_execute(sql).await.map_err(|error| error.to_string());
            assert!(refused.as_ref().is_err_and(|text| text.contains("append-only")), "{sql}: {refused:?}");
        }
    }
    // Nor does it go with what it is about.
    conn.batch_execute("SET session_replication_role = origin; DELETE FROM users").await.unwrap();
    assert_eq!(fixture.audit_trail().await.len(), 1);
}

#[tokio::test]
async fn audit_events_are_found_by_their_time_whatever_time_is_asked_for() {
    let fixture = empty_store().await;
    fixture.record_audit(event(AuditKind::LoginFailed)).await.unwrap();
    let at = fixture.list_audit_events(&AuditFilter::default(), 1).await.unwrap()[0].at;
    let n_found = async |from, to| {
        let filter = AuditFilter { from, to, ..AuditFilter::default() };
        fixture.list_audit_events(&filter, 10).await.unwrap().len()
    };
    let micro = chrono::TimeDelta::microseconds(1);
    assert_eq!(n_found(Some(at), Some(at + micro)).await, 1);
    assert_eq!(n_found(Some(at + micro), None).await, 0);
    assert_eq!(n_found(None, Some(at)).await, 0);
    let (min, max) = (chrono::DateTime::<chrono::Utc>::MIN_UTC, chrono::DateTime::<chrono::Utc>::MAX_UTC);
    assert_eq!((n_found(Some(min), Some(max)).await, n_found(Some(max), Some(min)).await), (1, 0));
    // An instance whose clock is wrong by the time zone made the id.
    let insert = "INSERT INTO audit_events (id, type) VALUES \
                  ((SELECT uuid_v7_floor(now() + interval '14 hours')), 'login_failed')";
    fixture.db.execute(insert).await;
    assert_eq!(n_found(Some(at), Some(at + chrono::TimeDelta::minutes(5))).await, 2);
}
