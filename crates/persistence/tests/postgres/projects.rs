//! Projects and their members, many at once. What one caller sees and may do are cases of control's suite.

use std::sync::Arc;

use gathering_auth::{Caller, ProjectRole, Role, RoleAtCreation};
use gathering_control::testing::session_caller;
use gathering_control::{Conflict, ControlError, CreateProject, ProjectControl};
use gathering_dag_engine::{NewRun, RunStore};
use gathering_domain::{Digest, ProjectId, RunId};
use gathering_persistence::{PgControlStore, PgRunStore, Pool, WakeBus, finish_deletions};
use serde_json::json;
use tokio::task::JoinSet;

use crate::accounts::{Fixture, create_account, empty_store, warm_pool};
use crate::common::count;

/// The projects where `pool` leads.
pub fn projects(pool: &Pool) -> ProjectControl {
    ProjectControl::new(Arc::new(PgControlStore::new(pool.clone(), WakeBus::new())))
}

/// A new project with this owner.
pub async fn create_project(projects: &ProjectControl, owner: &Caller) -> ProjectId {
    let create = CreateProject { name: "Sales".to_owned(), description: String::new(), once: None };
    projects.create(owner, create).await.unwrap().id
}

struct World {
    fixture: Fixture,
    projects: ProjectControl,
    ada: Caller,
}

impl World {
    async fn new() -> Self {
        let fixture = empty_store().await;
        let projects = projects(&fixture.pool);
        let ada = member(&fixture, "ada@example.org").await;
        Self { fixture, projects, ada }
    }

    async fn create(&self) -> ProjectId {
        create_project(&self.projects, &self.ada).await
    }

    async fn delete(&self, project: ProjectId) -> Result<(), ControlError> {
        self.projects.delete(&self.ada, project).await
    }

    async fn accept(&self, project: ProjectId) -> Result<RunId, gathering_dag_engine::StoreError> {
        let store = PgRunStore::new(self.fixture.pool.clone(), WakeBus::new());
        let definition = json!({"nodes": [{"id": "a", "type": "trigger"}]});
        let graph = Digest::of_json(&definition);
        store.ensure_graph(graph, &definition).await.unwrap();
        let id = RunId::new();
        let run =
            NewRun { id, project, graph, input: json!(1), priority: 5, available_at: None, timeout: None };
        store.enqueue(run).await.map(|_| id)
    }
}

async fn member(fixture: &Fixture, email: &str) -> Caller {
    let account = create_account(fixture, email, RoleAtCreation::Given(Role::Member)).await.unwrap();
    session_caller(account.id, account.role)
}

fn is_runs_active(refused: &ControlError) -> bool {
    matches!(refused, ControlError::Conflict(Conflict::RunsActive))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_owners_who_all_leave_at_once_one_remains() {
    let world = World::new().await;
    let project = world.create().await;
    let mut owners = vec![world.ada.clone()];
    for n in 0..7 {
        owners.push(member(&world.fixture, &format!("o{n}@example.org")).await);
    }
    for owner in &owners[1..] {
        world.projects.put_member(&world.ada, project, owner.user, ProjectRole::Owner).await.unwrap();
    }
    let other = projects(&warm_pool(&world.fixture.db).await);
    let mut changes = JoinSet::new();
    for (n, owner) in owners.into_iter().enumerate() {
        let projects = if n < 4 { world.projects.clone() } else { other.clone() };
        changes.spawn(async move {
            if n % 2 == 0 {
                projects.remove_member(&owner, project, owner.user).await
            } else {
                projects.put_member(&owner, project, owner.user, ProjectRole::Viewer).await
            }
        });
    }
    let left = changes.join_all().await;
    let (left, stayed): (Vec<_>, Vec<_>) = left.into_iter().partition(Result::is_ok);
    assert_eq!((left.len(), stayed.len()), (7, 1));
    for refused in stayed {
        assert!(matches!(refused, Err(ControlError::Conflict(Conflict::LastOwner))), "{refused:?}");
    }
    let owners =
        format!("SELECT count(*) FROM project_members WHERE project_id = '{project}' AND role = 'owner'");
    assert_eq!(count(&world.fixture.db, &owners).await, 1);
}

#[tokio::test]
async fn a_project_is_deleted_only_when_its_runs_have_ended() {
    let world = World::new().await;
    let project = world.create().await;
    let run = world.accept(project).await.unwrap();
    let db = &world.fixture.db;
    for change in ["state = 'queued'", "state = 'waiting', waiting_for = 'timer'"] {
        db.execute(&format!("UPDATE active_runs SET {change}")).await;
        let refused = world.delete(project).await;
        assert!(refused.as_ref().is_err_and(is_runs_active), "{change}: {refused:?}");
    }
    db.execute("DELETE FROM active_runs; UPDATE runs SET state = 'failed', ended_at = now()").await;
    // More than one batch.
    db.execute(&format!(
        "INSERT INTO runs (id, project_id, graph_digest, kind, state, input, ended_at, rerun_of) \
         SELECT gen_random_uuid(), project_id, graph_digest, kind, 'succeeded', input, now(), id \
         FROM all_runs, generate_series(1, 5100) WHERE id = '{run}'"
    ))
    .await;
    world.delete(project).await.unwrap();
    finish_deletions(&world.fixture.pool).await.unwrap();
    assert_eq!(count(db, "SELECT count(*) FROM all_runs").await, 0);
    assert!(world.accept(project).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_accepted_while_its_project_is_deleted_keeps_it() {
    let world = World::new().await;
    for _ in 0..10 {
        let project = world.create().await;
        let (accepted, deleted) = tokio::join!(world.accept(project), world.delete(project));
        let is_there = world.projects.find_files_root(project).await.unwrap().is_some();
        let n_runs = count(
            &world.fixture.db,
            &format!("SELECT count(*) FROM all_runs WHERE project_id = '{project}'"),
        )
        .await;
        match (accepted.is_ok(), deleted) {
            (true, Err(refused)) if is_runs_active(&refused) => assert!(is_there && n_runs == 1),
            (false, Ok(())) => assert!(!is_there && n_runs == 0),
            other => panic!("{other:?}"),
        }
    }
}
