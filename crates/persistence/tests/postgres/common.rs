//! What the tests share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::accounts::create_account;
use async_trait::async_trait;
use diesel_async::RunQueryDsl;
use gathering_auth::RoleAtCreation;
use gathering_control::{NewDecision, NewOutcome};
use gathering_dag_engine::testing::{PortsFixture, StoreFixture};
use gathering_dag_engine::{
    BreakerStore, ChildRuns, DecidedOutcome, Decisions, NewRun, NodePermits, RunStore,
};
use gathering_domain::{
    Digest, ExposeSecret, InstanceId, NodeId, PipelineId, ProjectId, RunId, Secret, UserId,
};
use gathering_persistence::testing::TestDb;
use gathering_persistence::{
    ConnectOptions, DatabaseError, Decided, InstanceInfo, Liveness, PgAccountStore, PgRunStore, Pool,
    PoolSettings, Runs, WakeBus,
};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

/// Gives the runs that a test has written into `runs` alone their rows in `active_runs`, unless they have ended.
pub const ACTIVATE: &str = "INSERT INTO active_runs (run_id, project_id, priority, available_at, deadline_at)
    SELECT id, project_id, priority, created_at, deadline_at FROM runs WHERE ended_at IS NULL ON CONFLICT DO NOTHING";

/// Takes the statistics of this schema. `ANALYZE` alone takes those of every test's schema: it keeps a lock on each of their
/// tables, and finds them empty while they are being filled.
pub const ANALYZE: &str = "DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() LOOP
            EXECUTE format('ANALYZE %I', name);
        END LOOP;
    END $$";

/// What `ANALYZE` writes of a table whose rows are not committed yet.
pub const OF_EMPTY_TABLES: &str = "UPDATE pg_class SET reltuples = 0, relpages = greatest(relpages, 1)
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'i')";

/// A schema with a store, its project and the instances that a test begins.
pub struct World {
    pub store: PgRunStore,
    pub pool: Pool,
    pub project: ProjectId,
    approver: OnceCell<UserId>,
    pub instances: Mutex<HashMap<InstanceId, Liveness>>,
    // Dropped last: it takes the schema away.
    pub db: TestDb,
}

impl World {
    pub async fn new() -> Self {
        let db = TestDb::new().await;
        let pool = db.pool().await;
        let project = ProjectId::new();
        TestDb::execute(&db, &format!("INSERT INTO projects (id, name) VALUES ('{project}', 'tests')")).await;
        let store = PgRunStore::new(pool.clone(), WakeBus::new());
        Self { store, pool, project, approver: OnceCell::new(), instances: Mutex::default(), db }
    }

    pub async fn begin_instance(&self) -> InstanceId {
        let liveness = Liveness::begin(&self.db.options(), &info()).await.unwrap();
        let id = liveness.instance();
        self.instances.lock().await.insert(id, liveness);
        id
    }

    /// Ends the session of an instance from outside, and waits until its lock is free.
    pub async fn cut_liveness(&self, id: InstanceId) {
        let liveness = self.instances.lock().await.remove(&id).unwrap();
        let lost = liveness.lost();
        end_session_of(&self.db, id).await;
        tokio::time::timeout(Duration::from_secs(20), lost.cancelled()).await.unwrap();
    }

    /// The account that decides.
    pub async fn approver(&self) -> UserId {
        let somebody = async || {
            let accounts = PgAccountStore::new(self.pool.clone());
            create_account(&accounts, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap().id
        };
        *self.approver.get_or_init(somebody).await
    }

    /// Accepts a run and answers with its id.
    pub async fn accept(&self) -> RunId {
        let new = self.new_run().await;
        let id = new.id;
        self.store.enqueue(new).await.unwrap();
        id
    }

    pub async fn new_run(&self) -> NewRun {
        // A claim begins no such node, so what is in the journal is what a test puts there.
        let definition = json!({"nodes": [{"id": "a", "type": "trigger", "idempotent": false}]});
        let graph = Digest::of_json(&definition);
        RunStore::ensure_graph(&self.store, graph, &definition).await.unwrap();
        NewRun {
            id: RunId::new(),
            project: self.project,
            graph,
            input: json!({"n": 1, "nul": "a\0b"}),
            priority: 5,
            available_at: None,
            timeout: None,
        }
    }

    /// A pipeline of the project in its version 1.
    pub async fn insert_pipeline(&self, definition: &Value) -> PipelineId {
        let (id, graph, project) = (PipelineId::new(), Digest::of_json(definition), self.project);
        RunStore::ensure_graph(&self.store, graph, definition).await.unwrap();
        let sql = format!(
            "INSERT INTO pipelines (id, project_id, name, version) VALUES ('{id}', '{project}', 'p', 1);
             INSERT INTO pipeline_versions (pipeline_id, version, graph_digest) VALUES ('{id}', 1, '\\x{graph}')"
        );
        TestDb::execute(&self.db, &sql).await;
        id
    }

    /// One number that a query in this schema answers with.
    pub async fn count(&self, sql: &str) -> i64 {
        count(&self.db, sql).await
    }
}

pub fn info() -> InstanceInfo {
    InstanceInfo { hostname: "test".into(), pid: std::process::id(), version: "0.0.0".into() }
}

pub async fn count(db: &TestDb, sql: &str) -> i64 {
    #[derive(diesel::QueryableByName)]
    struct Count {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        n: i64,
    }
    let mut conn = db.connection().await;
    let sql = format!("SELECT ({sql})::bigint AS n");
    let row: Count = diesel::sql_query(sql).get_result(&mut conn).await.unwrap();
    row.n
}

/// Ends the session that holds the lock of an instance, as the death of its process would, and waits for the lock.
pub async fn end_session_of(db: &TestDb, id: InstanceId) {
    let holders = format!(
        "FROM pg_locks JOIN instances ON (classid::bigint << 32) | objid::bigint = lock_key \
         WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND instances.id = '{id}'"
    );
    db.execute(&format!("SELECT pg_terminate_backend(pg_locks.pid) {holders}")).await;
    let n_holders = format!("SELECT count(*) {holders}");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while count(db, &n_holders).await > 0 {
        assert!(tokio::time::Instant::now() < deadline, "the session of {id} goes on");
    }
}

/// A pool whose sessions can be found by name.
pub async fn named_pool(db: &TestDb, name: &str, max_size: usize) -> Pool {
    let url = format!("{}&application_name={name}", db.url().expose_secret());
    let settings =
        PoolSettings { max_size, wait_timeout: Duration::from_secs(20), ..PoolSettings::default() };
    Pool::connect(ConnectOptions::parse(&Secret::from(url)).unwrap(), settings).await.unwrap()
}

/// Waits for a condition, up to a limit.
pub async fn wait_until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[async_trait]
impl StoreFixture for World {
    fn store(&self) -> Arc<dyn RunStore> {
        Arc::new(self.store.clone())
    }

    async fn project(&self) -> ProjectId {
        self.project
    }

    async fn instance(&self) -> InstanceId {
        self.begin_instance().await
    }

    async fn kill(&self, instance: InstanceId) {
        self.cut_liveness(instance).await;
    }
}

#[async_trait]
impl PortsFixture for World {
    fn children(&self) -> Arc<dyn ChildRuns> {
        Arc::new(self.store.clone())
    }

    fn decisions(&self) -> Arc<dyn Decisions> {
        Arc::new(self.store.clone())
    }

    fn breakers(&self) -> Arc<dyn BreakerStore> {
        Arc::new(self.store.clone())
    }

    fn permits(&self) -> Arc<dyn NodePermits> {
        Arc::new(self.store.clone())
    }

    async fn pipeline(&self) -> PipelineId {
        self.insert_pipeline(&json!({"nodes": [{"id": "call", "type": "trigger"}]})).await
    }

    async fn decide(&self, run: RunId, node: &NodeId, approve: bool) -> bool {
        let decided_by = self.approver().await;
        let decision =
            NewDecision { approve, comment: None, decided_by, decided_as: "ada@example.org".into() };
        let runs = Runs::new(self.pool.clone(), WakeBus::new());
        runs.decide(run, node, &decision).await.unwrap() == Decided::Recorded
    }

    async fn decide_outcome(
        &self,
        run: RunId,
        node: &NodeId,
        outcome: DecidedOutcome,
        output: Option<Value>,
    ) -> bool {
        let (decided_by, decided_as) = (self.approver().await, "ada@example.org".to_owned());
        let reason = "they said so".to_owned();
        let decision = NewOutcome { outcome, output, reason, decided_by, decided_as };
        let decided = Runs::new(self.pool.clone(), WakeBus::new()).decide_outcome(run, node, &decision).await;
        assert!(matches!(decided, Ok(_) | Err(DatabaseError::Missing { .. })), "{decided:?}");
        decided.unwrap_or(false)
    }
}
