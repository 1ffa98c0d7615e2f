//! Projects and their members: who sees what, what may not happen, and what is recorded.

use chrono::Utc;
use gathering_auth::testing::InspectAccounts;
use gathering_auth::{
    Account, AccountChange, AccountStore as _, AuditKind, Caller, Credential, Denied, Origin, ProjectRole,
    Role, RoleAtCreation, SessionId, TokenId,
};
use gathering_dag_engine::{NewRun, RunStore};
use gathering_domain::{Digest, ProjectId, RequestId, RunId, UserId};
use gathering_persistence::{
    DatabaseError, MemberPut, PgRunStore, ProjectError, ProjectRefusal, Projects, Viewer, WakeBus,
    finish_deletions,
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::accounts::{Fixture, create_account, empty_store, warm_pool};
use crate::common::count;

struct World {
    fixture: Fixture,
    projects: Projects,
    ada: Account,
    bob: Account,
    origin: Origin,
}

impl World {
    async fn new() -> Self {
        let fixture = empty_store().await;
        let projects = Projects::new(fixture.pool.clone());
        let ada = create_account(&fixture, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
        let bob = create_account(&fixture, "bob@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
        let origin = Origin { request_id: Some(RequestId::new()), ..Origin::default() };
        Self { fixture, projects, ada, bob, origin }
    }

    async fn create(&self) -> ProjectId {
        let (id, ada) = (ProjectId::new(), self.ada.id);
        self.projects.create(id, "Sales", "", ada, self.origin).await.unwrap().id
    }

    /// The caller of an account, with its current role.
    fn caller(&self, account: &Account) -> Caller {
        let (session, token) = (SessionId::new(), TokenId::new());
        let credential = Credential::Session { session, token, expires_at: Utc::now() };
        Caller { user: account.id, role: account.role, credential, origin: self.origin }
    }

    async fn put(
        &self,
        project: ProjectId,
        user: UserId,
        role: ProjectRole,
    ) -> Result<MemberPut, ProjectError> {
        self.projects.put_member(project, user, role, &self.caller(&self.ada)).await
    }

    async fn remove(&self, project: ProjectId, user: UserId) -> Result<bool, ProjectError> {
        self.projects.remove_member(project, user, &self.caller(&self.ada)).await
    }

    async fn delete(&self, project: ProjectId) -> Result<bool, ProjectError> {
        self.projects.delete(project, self.ada.id, self.origin).await
    }

    /// What was recorded after the accounts were made.
    async fn recorded(&self) -> Vec<(AuditKind, Option<UserId>, serde_json::Value)> {
        let trail = self.fixture.audit_trail().await.into_iter().skip(2);
        trail
            .map(|event| {
                assert_eq!(event.origin, self.origin);
                (event.kind, event.user, event.detail)
            })
            .collect()
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, ProjectError>) -> ProjectRefusal {
    match answer {
        Err(ProjectError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_account_owns_its_default_project_and_sees_no_other() {
    let world = World::new().await;
    let World { projects, ada, bob, .. } = &world;
    let adas = projects.find_default(ada.id).await.unwrap().unwrap();
    let bobs = projects.find_default(bob.id).await.unwrap().unwrap();
    assert_eq!(projects.find_role(adas, ada.id).await.unwrap(), Some(ProjectRole::Owner));
    assert_eq!(projects.find_role(bobs, ada.id).await.unwrap(), None);
    let listed = async |viewer, before| -> Vec<(ProjectId, Option<ProjectRole>)> {
        let seen = projects.list(viewer, before, 10).await.unwrap();
        seen.into_iter().map(|seen| (seen.project.id, seen.role)).collect()
    };
    let owner = Some(ProjectRole::Owner);
    assert_eq!(listed(Viewer::Member(ada.id), None).await, [(adas, owner)]);
    assert_eq!(listed(Viewer::Member(ada.id), Some(adas)).await, []);
    assert_eq!(listed(Viewer::Admin(ada.id), None).await, [(bobs, None), (adas, owner)]);
    assert_eq!(listed(Viewer::Admin(ada.id), Some(bobs)).await, [(adas, owner)]);
    assert_eq!(projects.find_for(bobs, bob.id).await.unwrap().unwrap().role, owner);
    assert_eq!(projects.find_for(bobs, ada.id).await.unwrap().unwrap().role, None);
    assert_eq!(projects.find_for(ProjectId::new(), ada.id).await.unwrap(), None);
}

#[tokio::test]
async fn what_changes_of_a_project_is_recorded_and_nothing_else() {
    let world = World::new().await;
    let (ada, bob) = (world.ada.id, world.bob.id);
    let project = world.create().await;
    world.projects.update(project, Some("Sales"), None).await.unwrap();
    for (role, put) in [
        (ProjectRole::Viewer, MemberPut::Added),
        (ProjectRole::Editor, MemberPut::RoleChanged),
        (ProjectRole::Editor, MemberPut::Unchanged),
    ] {
        assert_eq!(world.put(project, bob, role).await.unwrap(), put);
    }
    assert!(world.remove(project, bob).await.unwrap());
    assert!(!world.remove(project, bob).await.unwrap());
    assert!(world.delete(project).await.unwrap());
    assert!(!world.delete(project).await.unwrap());
    let detail = |role: &str| json!({ "project": project, "role": role, "by": ada });
    assert_eq!(
        world.recorded().await,
        [
            (AuditKind::ProjectCreated, Some(ada), detail("owner")),
            (AuditKind::MemberAdded, Some(bob), detail("viewer")),
            (AuditKind::MemberRoleChanged, Some(bob), detail("editor")),
            (AuditKind::MemberRemoved, Some(bob), detail("editor")),
            (AuditKind::ProjectDeleted, Some(ada), json!({ "project": project, "by": ada })),
        ]
    );
}

#[tokio::test]
async fn nothing_is_recorded_of_what_is_refused_or_missing() {
    let world = World::new().await;
    let default = world.projects.find_default(world.ada.id).await.unwrap().unwrap();
    assert_eq!(refused(world.delete(default).await), ProjectRefusal::DefaultProject);
    assert_eq!(refused(world.remove(default, world.ada.id).await), ProjectRefusal::LastOwner);
    for role in [ProjectRole::Editor, ProjectRole::Viewer] {
        assert_eq!(refused(world.put(default, world.ada.id, role).await), ProjectRefusal::LastOwner);
    }
    let nobody = world.put(default, UserId::new(), ProjectRole::Viewer).await;
    assert!(
        matches!(nobody, Err(ProjectError::Database(DatabaseError::Missing { what: "the user" }))),
        "{nobody:?}"
    );
    let nowhere = world.put(ProjectId::new(), world.bob.id, ProjectRole::Viewer).await;
    assert!(
        matches!(nowhere, Err(ProjectError::Database(DatabaseError::Missing { what: "the project" }))),
        "{nowhere:?}"
    );
    assert!(!world.remove(ProjectId::new(), world.bob.id).await.unwrap());
    let unowned = world.projects.create(ProjectId::new(), "p", "", UserId::new(), world.origin).await;
    assert!(matches!(unowned, Err(DatabaseError::Missing { what: "the user" })), "{unowned:?}");
    assert_eq!(world.recorded().await, []);
    assert_eq!(world.projects.find_role(default, world.ada.id).await.unwrap(), Some(ProjectRole::Owner));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_owners_who_all_leave_at_once_one_remains() {
    let world = World::new().await;
    let project = world.create().await;
    let mut owners = vec![world.ada.clone(), world.bob.clone()];
    for n in 0..6 {
        let email = format!("o{n}@example.org");
        owners.push(create_account(&world.fixture, &email, RoleAtCreation::AdminIfFirst).await.unwrap());
    }
    for owner in &owners[1..] {
        world.put(project, owner.id, ProjectRole::Owner).await.unwrap();
    }
    let other = Projects::new(warm_pool(&world.fixture.db).await);
    let mut changes = JoinSet::new();
    for (n, owner) in owners.into_iter().enumerate() {
        let projects = if n < 4 { world.projects.clone() } else { other.clone() };
        let caller = world.caller(&owner);
        changes.spawn(async move {
            if n % 2 == 0 {
                projects.remove_member(project, owner.id, &caller).await.is_ok()
            } else {
                projects.put_member(project, owner.id, ProjectRole::Viewer, &caller).await.is_ok()
            }
        });
    }
    let n_left = changes.join_all().await.into_iter().filter(|has_left| *has_left).count();
    assert_eq!(n_left, 7);
    let owners =
        format!("SELECT count(*) FROM project_members WHERE project_id = '{project}' AND role = 'owner'");
    assert_eq!(count(&world.fixture.db, &owners).await, 1);
}

/// What counts is what they are when the change is made, not when they asked.
#[tokio::test]
async fn who_may_not_any_more_changes_no_members() {
    let world = World::new().await;
    let (fixture, projects, bob) = (&world.fixture, &world.projects, &world.bob);
    let project = world.create().await;
    let eve = create_account(fixture, "eve@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
    let change = async |by: &Caller| {
        let put = projects.put_member(project, eve.id, ProjectRole::Owner, by).await.map(drop);
        let removed = projects.remove_member(project, world.ada.id, by).await.map(drop);
        [put, removed].map(|result| match result {
            Err(ProjectError::Denied(denied)) => Some(denied),
            Err(ProjectError::Revoked) => None,
            other => panic!("{other:?}"),
        })
    };
    let asked = world.caller(bob);
    assert_eq!(change(&asked).await, [Some(Denied::Invisible); 2], "no member");
    world.put(project, bob.id, ProjectRole::Editor).await.unwrap();
    assert_eq!(change(&asked).await, [Some(Denied::Forbidden); 2], "no owner");
    // An admin when they asked, and a member's API key of an admin.
    let asked_as_admin = Caller { role: Role::Admin, ..asked.clone() };
    assert_eq!(change(&asked_as_admin).await, [Some(Denied::Forbidden); 2], "no admin any more");
    set_role_and_activity(&world, bob.id, Some(Role::Admin), None).await;
    assert_eq!(change(&asked).await, [Some(Denied::Forbidden); 2], "asked as a member");
    set_role_and_activity(&world, bob.id, None, Some(false)).await;
    assert_eq!(change(&asked_as_admin).await, [None; 2], "disabled");
    assert_eq!(projects.list_members(project, None, 10).await.unwrap().len(), 2);
    set_role_and_activity(&world, bob.id, Some(Role::Member), Some(true)).await;
    assert!(projects.remove_member(project, bob.id, &asked).await.unwrap(), "everybody may leave");
}

async fn set_role_and_activity(world: &World, user: UserId, role: Option<Role>, is_active: Option<bool>) {
    let change = AccountChange { role, is_active, by: world.ada.id };
    world.fixture.update_account(user, change, world.origin).await.unwrap();
}

#[tokio::test]
async fn members_are_listed_with_their_accounts_in_pages() {
    let world = World::new().await;
    let project = world.create().await;
    world.put(project, world.bob.id, ProjectRole::Viewer).await.unwrap();
    let page = async |after, limit| world.projects.list_members(project, after, limit).await.unwrap();
    let members = page(None, 10).await;
    let shown: Vec<_> = members.iter().map(|member| (member.user, &member.email, member.role)).collect();
    let (ada, bob) = (&world.ada, &world.bob);
    assert_eq!(shown, [(ada.id, &ada.email, ProjectRole::Owner), (bob.id, &bob.email, ProjectRole::Viewer)]);
    assert_eq!(members[1].name, bob.name);
    assert_eq!(page(None, 1).await, members[..1]);
    assert_eq!(page(Some(ada.id), 10).await, members[1..]);
}

async fn accept(world: &World, project: ProjectId) -> Result<RunId, gathering_dag_engine::StoreError> {
    let store = PgRunStore::new(world.fixture.pool.clone(), WakeBus::new());
    let definition = json!({"nodes": [{"id": "a", "type": "trigger"}]});
    let graph = Digest::of_json(&definition);
    store.ensure_graph(graph, &definition).await.unwrap();
    let id = RunId::new();
    let run = NewRun { id, project, graph, input: json!(1), priority: 5, available_at: None, timeout: None };
    store.enqueue(run).await.map(|_| id)
}

#[tokio::test]
async fn a_project_is_deleted_only_when_its_runs_have_ended() {
    let world = World::new().await;
    let project = world.create().await;
    let run = accept(&world, project).await.unwrap();
    let db = &world.fixture.db;
    for change in ["state = 'queued'", "state = 'waiting', waiting_for = 'timer'"] {
        db.execute(&format!("UPDATE runs SET {change}")).await;
        assert_eq!(refused(world.delete(project).await), ProjectRefusal::RunsActive, "{change}");
    }
    db.execute("UPDATE runs SET state = 'failed', waiting_for = NULL, ended_at = now()").await;
    // More than one batch.
    db.execute(&format!(
        "INSERT INTO runs (id, project_id, graph_digest, kind, state, input, ended_at, rerun_of) \
         SELECT gen_random_uuid(), project_id, graph_digest, kind, 'succeeded', input, now(), id \
         FROM runs, generate_series(1, 5100) WHERE id = '{run}'"
    ))
    .await;
    assert!(world.delete(project).await.unwrap());
    finish_deletions(&world.fixture.pool).await.unwrap();
    assert_eq!(count(db, "SELECT count(*) FROM runs").await, 0);
    assert!(accept(&world, project).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_accepted_while_its_project_is_deleted_keeps_it() {
    let world = World::new().await;
    for _ in 0..10 {
        let project = world.create().await;
        let (accepted, deleted) = tokio::join!(accept(&world, project), world.delete(project));
        let is_there = world.projects.find(project).await.unwrap().is_some();
        let n_runs =
            count(&world.fixture.db, &format!("SELECT count(*) FROM runs WHERE project_id = '{project}'"))
                .await;
        match (accepted.is_ok(), deleted) {
            (true, Err(ProjectError::Refused(ProjectRefusal::RunsActive))) => {
                assert!(is_there && n_runs == 1)
            }
            (false, Ok(true)) => assert!(!is_there && n_runs == 0),
            other => panic!("{other:?}"),
        }
    }
}
