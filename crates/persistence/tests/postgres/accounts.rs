//! The account store: the cases of authentication, and what PostgreSQL adds.

use std::ops::Deref;

use async_trait::async_trait;
use gathering_auth::testing::InspectAccounts;
use gathering_auth::{
    Account, AccountRecord, AccountStore, AuditEvent, AuditKind, NewAccount, NewProject, NewSession, Origin,
    PasswordHash, ProjectRole, RefreshRotation, Role, RoleAtCreation, Rotation, SessionEnd, SessionId,
    Standing, StoreError, TokenId, account_store_suite,
};
use gathering_domain::{Email, ProjectId, UserId};
use gathering_persistence::testing::TestDb;
use gathering_persistence::{AuditFilter, DatabaseError, PgAccountStore, Pool, Projects, list_audit_events};

/// The store with its schema, which goes when the test ends.
struct Fixture {
    store: PgAccountStore,
    pool: Pool,
    db: TestDb,
}

async fn empty_store() -> Box<Fixture> {
    let db = TestDb::new().await;
    let pool = db.pool().await;
    Box::new(Fixture { store: PgAccountStore::new(pool.clone()), pool, db })
}

impl Deref for Fixture {
    type Target = PgAccountStore;

    fn deref(&self) -> &PgAccountStore {
        &self.store
    }
}

#[async_trait]
impl InspectAccounts for Fixture {
    async fn audit_trail(&self) -> Vec<AuditEvent> {
        let mut rows = list_audit_events(&self.pool, &AuditFilter::default(), 100).await.unwrap();
        rows.reverse();
        rows.into_iter().map(|row| row.event).collect()
    }

    async fn disable_account(&self, user: UserId) {
        self.db.execute(&format!("UPDATE users SET is_active = false WHERE id = '{user}'")).await;
    }
}

/// The cases want one value that is the store and can be inspected.
#[async_trait]
impl AccountStore for Fixture {
    async fn create_account(
        &self,
        account: NewAccount,
        project: NewProject,
        audit: AuditEvent,
    ) -> Result<Account, StoreError> {
        self.store.create_account(account, project, audit).await
    }

    async fn find_account_by_email(&self, email: &Email) -> Result<Option<AccountRecord>, StoreError> {
        self.store.find_account_by_email(email).await
    }

    async fn find_account(&self, user: UserId) -> Result<Option<Account>, StoreError> {
        self.store.find_account(user).await
    }

    async fn begin_session(&self, session: NewSession, audit: AuditEvent) -> Result<(), StoreError> {
        self.store.begin_session(session, audit).await
    }

    async fn rotate_refresh_token(
        &self,
        rotation: RefreshRotation,
        origin: Origin,
    ) -> Result<Rotation, StoreError> {
        self.store.rotate_refresh_token(rotation, origin).await
    }

    async fn end_session(&self, end: SessionEnd, audit: AuditEvent) -> Result<(), StoreError> {
        self.store.end_session(end, audit).await
    }

    async fn find_standing(
        &self,
        user: UserId,
        session: SessionId,
        token: TokenId,
    ) -> Result<Option<Standing>, StoreError> {
        self.store.find_standing(user, session, token).await
    }

    async fn record_audit(&self, audit: AuditEvent) -> Result<(), StoreError> {
        self.store.record_audit(audit).await
    }
}

account_store_suite!(empty_store);

async fn create(fixture: &Fixture, email: &str) -> (Account, ProjectId) {
    let id = UserId::new();
    let account = NewAccount {
        id,
        email: email.parse().unwrap(),
        name: "Somebody".to_owned(),
        password_hash: PasswordHash::from("$2b$04$hash".to_owned()),
        role: RoleAtCreation::Given(Role::Member),
    };
    let project = NewProject { id: ProjectId::new(), name: "Default".to_owned() };
    let project_id = project.id;
    let audit = AuditEvent::new(AuditKind::AccountRegistered, Some(id), Origin::default());
    (fixture.store.create_account(account, project, audit).await.unwrap(), project_id)
}

#[tokio::test]
async fn an_account_owns_its_default_project_and_sees_no_other() {
    let fixture = empty_store().await;
    let (ada, adas) = create(&fixture, "ada@example.org").await;
    let (bob, bobs) = create(&fixture, "bob@example.org").await;
    let projects = Projects::new(fixture.pool.clone());
    assert_eq!(projects.find_default(ada.id).await.unwrap(), Some(adas));
    assert_eq!(projects.find_role(adas, ada.id).await.unwrap(), Some(ProjectRole::Owner));
    assert_eq!(projects.find_role(bobs, ada.id).await.unwrap(), None);
    let seen = projects.list(Some(ada.id), None, 10).await.unwrap();
    assert_eq!(seen.iter().map(|project| project.id).collect::<Vec<_>>(), [adas]);
    projects.put_member(adas, bob.id, ProjectRole::Viewer).await.unwrap();
    projects.put_member(adas, bob.id, ProjectRole::Editor).await.unwrap();
    assert_eq!(projects.find_role(adas, bob.id).await.unwrap(), Some(ProjectRole::Editor));
    assert_eq!(projects.list_members(adas).await.unwrap().len(), 2);
    let nobody = projects.put_member(adas, UserId::new(), ProjectRole::Viewer).await;
    assert!(matches!(nobody, Err(DatabaseError::Missing { what: "the user" })), "{nobody:?}");
    assert!(projects.remove_member(adas, bob.id).await.unwrap());
    assert!(!projects.remove_member(adas, bob.id).await.unwrap());
}

#[tokio::test]
async fn the_audit_record_cannot_be_changed() {
    use diesel_async::SimpleAsyncConnection;

    let fixture = empty_store().await;
    create(&fixture, "ada@example.org").await;
    let mut conn = fixture.db.connection().await;
    for sql in
        ["UPDATE audit_events SET type = 'nothing'", "DELETE FROM audit_events", "TRUNCATE audit_events"]
    {
        assert!(conn.batch_execute(sql).await.is_err(), "{sql}");
    }
    assert_eq!(fixture.audit_trail().await.len(), 1);
}
