//! Deleting much: hidden at once, removed in batches, and finished by any instance.

use std::sync::Arc;

use diesel_async::SimpleAsyncConnection;
use gathering_auth::{Caller, Role, RoleAtCreation};
use gathering_control::testing::session_caller;
use gathering_control::{
    ControlError, DefinePipeline, ExpectedRevision, Graphs, PipelineControl, PipelineStore as _,
    ProjectControl, right,
};
use gathering_dag_engine::NodeSpecs;
use gathering_domain::{PipelineId, ProjectId, RunId};
use gathering_persistence::{
    DatabaseError, PgAccountStore, PgControlStore, RunOrigin, Runs, WakeBus, finish_deletions,
};
use serde_json::json;

use crate::accounts::create_account;
use crate::common::{World, named_pool, wait_until};
use crate::projects::{create_project, projects};

const MANY: i64 = 50_000;

struct Place {
    world: World,
    projects: ProjectControl,
    ada: Caller,
}

impl Place {
    async fn new() -> Self {
        let world = World::new().await;
        let projects = projects(&world.pool);
        let accounts = PgAccountStore::new(world.pool.clone());
        let ada = create_account(&accounts, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
        Self { world, projects, ada: session_caller(ada.id, ada.role) }
    }

    async fn create(&self) -> ProjectId {
        create_project(&self.projects, &self.ada).await
    }

    /// Copies an ended run and two events of it into the project, so many times.
    async fn fill(&self, project: ProjectId, pipeline: Option<PipelineId>, n_runs: i64) {
        let run = self.world.accept().await;
        let pipeline = pipeline.map_or("NULL, NULL".to_owned(), |id| format!("'{id}', 1"));
        self.world
            .db
            .execute(&format!(
                "INSERT INTO runs (id, project_id, pipeline_id, pipeline_version, graph_digest, kind, state, input, ended_at)
                     SELECT gen_random_uuid(), '{project}', {pipeline}, graph_digest, kind, 'succeeded', input, now()
                     FROM all_runs, generate_series(1, {n_runs}) WHERE id = '{run}';
                 INSERT INTO events (project_id, type, subject)
                     SELECT project_id, type, id FROM all_runs, (VALUES ('run.started'), ('run.succeeded')) AS types (type)
                     WHERE project_id = '{project}';
                 DELETE FROM active_runs WHERE run_id = '{run}';
                 UPDATE runs SET state = 'failed', ended_at = now() WHERE id = '{run}';
                 ANALYZE runs;"
            ))
            .await;
    }

    /// Whether not even the row of the project is left.
    async fn is_gone(&self, project: ProjectId) -> bool {
        self.world.count(&format!("SELECT count(*) FROM projects WHERE id = '{project}'")).await == 0
    }

    async fn count_runs(&self, project: ProjectId) -> i64 {
        self.world.count(&format!("SELECT count(*) FROM all_runs WHERE project_id = '{project}'")).await
    }

    async fn delete(&self, project: ProjectId) {
        self.projects.delete(&self.ada, project).await.unwrap();
    }

    /// Accepts a run in this project.
    async fn accept(&self, project: ProjectId, pipeline: Option<PipelineId>) -> Result<RunId, DatabaseError> {
        let mut run = self.world.new_run().await;
        run.project = project;
        let origin = RunOrigin { pipeline: pipeline.map(|id| (id, 1)), ..RunOrigin::default() };
        let runs = Runs::new(self.world.pool.clone(), WakeBus::new());
        runs.accept(&run, &origin).await.map(|_| run.id)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_with_many_runs_is_hidden_at_once_and_leaves_in_short_transactions_while_others_go_on() {
    let place = Place::new().await;
    let (full, other) = (place.create().await, place.create().await);
    place.fill(full, None, MANY).await;
    place.delete(full).await;
    assert!(place.count_runs(full).await > 0, "a request does not wait for all of it");
    let hidden = place.projects.find::<right::Read>(&place.ada, full).await;
    assert!(matches!(hidden, Err(ControlError::NotFound)), "{hidden:?}");
    let listed = place.projects.list(&place.ada, None, 10).await.unwrap();
    assert!(listed.iter().all(|found| found.thing.id != full));
    let again = place.projects.delete(&place.ada, full).await;
    assert!(matches!(again, Err(ControlError::NotFound)), "{again:?}");
    let refused = place.accept(full, None).await.unwrap_err();
    assert!(matches!(refused, DatabaseError::Missing { .. }), "{refused:?}");
    let recorded = format!(
        "SELECT count(*) FROM audit_events WHERE type = 'project_deleted' AND detail->>'project' = '{full}'"
    );
    assert_eq!(place.world.count(&recorded).await, 1);

    let pool = named_pool(&place.world.db, place.world.db.schema(), 2).await;
    let began = std::time::Instant::now();
    let finishing = tokio::spawn(async move { finish_deletions(&pool).await });
    let age = format!(
        "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start) * 1000), 0) FROM pg_stat_activity \
         WHERE application_name = '{}'",
        place.world.db.schema()
    );
    let (mut oldest, mut n_accepted) = (0, 0);
    while !finishing.is_finished() {
        oldest = oldest.max(place.world.count(&age).await);
        place.accept(other, None).await.unwrap();
        n_accepted += 1;
    }
    assert_eq!(finishing.await.unwrap().unwrap(), 1);
    let took = i64::try_from(began.elapsed().as_millis()).unwrap();
    assert!(oldest <= took / 4, "a transaction was open for {oldest} ms of {took} ms");
    assert!(n_accepted > 3, "{n_accepted}");
    assert_eq!(place.count_runs(full).await, 0);
    assert_eq!(
        place.world.count(&format!("SELECT count(*) FROM events WHERE project_id = '{full}'")).await,
        0
    );
    assert!(place.is_gone(full).await);
    assert_eq!(place.count_runs(other).await, n_accepted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_was_cut_off_is_finished_by_another_instance() {
    let place = Place::new().await;
    let project = place.create().await;
    place.fill(project, None, MANY).await;
    place.delete(project).await;
    let left = place.count_runs(project).await;
    let pool = place.world.db.pool().await;
    let cut_off = tokio::spawn(async move { finish_deletions(&pool).await });
    wait_until("a batch more is gone", async || place.count_runs(project).await < left).await;
    cut_off.abort();
    assert!(cut_off.await.is_err_and(|error| error.is_cancelled()), "it was to be cut off in the middle");
    assert!(place.count_runs(project).await > 0);
    // What a killed instance held is free once its session has ended.
    let other = place.world.db.pool().await;
    wait_until("another instance finishes it", async || {
        finish_deletions(&other).await.unwrap();
        place.is_gone(project).await
    })
    .await;
    assert_eq!(place.count_runs(project).await, 0);
}

#[tokio::test]
async fn a_pipeline_with_many_runs_is_hidden_at_once_and_its_runs_stay_without_it() {
    let place = Place::new().await;
    let project = place.create().await;
    let control = PgControlStore::new(place.world.pool.clone(), WakeBus::new());
    let graphs = Graphs::new(Arc::new(place.world.store.clone()), NodeSpecs::builtin(), 1);
    let pipelines = PipelineControl::new(Arc::new(control.clone()), graphs);
    let ada = session_caller(place.ada.user, Role::Member);
    let define = DefinePipeline::new("p", json!({"nodes": [{"id": "a", "type": "trigger"}]}));
    let define = DefinePipeline { project: Some(project), ..define };
    let id = pipelines.define(&ada, define).await.unwrap().pipeline.id;
    place.fill(project, Some(id), MANY).await;
    pipelines.delete(&ada, id, ExpectedRevision::Any).await.unwrap();
    assert_eq!(control.find_pipeline(&ada, id).await.unwrap(), None);
    assert_eq!(control.find_pipeline_in(project, id).await.unwrap(), None);
    assert_eq!(control.list_pipelines(None, Some(project), None, 10).await.unwrap(), []);
    let again = pipelines.delete(&ada, id, ExpectedRevision::Any).await;
    assert!(matches!(again, Err(ControlError::NotFound)), "{again:?}");
    let refused = place.accept(project, Some(id)).await.unwrap_err();
    assert!(matches!(refused, DatabaseError::Missing { .. }), "{refused:?}");
    finish_deletions(&place.world.pool).await.unwrap();
    let named = "SELECT count(*) FROM all_runs WHERE pipeline_id IS NOT NULL OR pipeline_version IS NOT NULL";
    assert_eq!(place.world.count(named).await, 0);
    assert_eq!(place.count_runs(project).await, MANY);
    assert_eq!(place.world.count("SELECT count(*) FROM pipelines").await, 0);
}

#[tokio::test]
async fn a_start_that_meets_a_deletion_waits_for_it_and_is_refused() {
    let place = Place::new().await;
    let project = place.create().await;
    let mut deleter = place.world.db.connection().await;
    let hide = format!(
        "BEGIN; SELECT FROM projects WHERE id = '{project}' FOR UPDATE;
         UPDATE projects SET deleting_at = now() WHERE id = '{project}'"
    );
    deleter.batch_execute(&hide).await.unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INTO%runs%' \
                   AND datname = current_database()";
    let commit = async {
        wait_until("the start waits", async || place.world.count(waiting).await >= 1).await;
        deleter.batch_execute("COMMIT").await.unwrap();
    };
    let (refused, ()) = tokio::join!(place.accept(project, None), commit);
    assert!(matches!(refused, Err(DatabaseError::Missing { .. })), "{refused:?}");
    assert_eq!(place.count_runs(project).await, 0);
}
