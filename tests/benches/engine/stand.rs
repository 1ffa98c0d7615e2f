//! What is measured: an engine of this process on a schema of its own, put together as the server does it.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use gathering_control::{Operator, ProjectControl};
use gathering_dag_engine::{
    Attempt, DriveEnd, Engine, EngineSettings, NewRun, NodeExecutor, NodeFailure, NodeSpec, NodeTypes,
    Outcome, RunStore, Runner, RunnerSettings, Signals, SystemClock,
};
use gathering_domain::{Digest, ProjectId, RunEvent, RunId, Secret};
use gathering_e2e::Database;
use gathering_persistence::{
    ConnectOptions, InstanceInfo, Liveness, Migrator, PgControlStore, PgRunStore, Pool, PoolSettings,
    WakeBus, ensure_journal_partitions,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

/// More than anything here may take, so that a benchmark fails rather than hangs.
const LIMIT: Duration = Duration::from_secs(300);

/// Where a database is.
fn url_of(database: &Database) -> Result<String> {
    let mut command = Command::new("nothing");
    database.configure(&mut command);
    let mut variables = command.get_envs();
    let url = variables.find(|(name, _)| *name == "DATABASE_URL").and_then(|(_, value)| value);
    Ok(url.and_then(|url| url.to_str()).context("this database is embedded")?.to_owned())
}

/// An engine on a schema of its own.
pub(crate) struct Stand {
    engine: Engine,
    liveness: Liveness,
    project: ProjectId,
    executed: Arc<AtomicUsize>,
    stop: CancellationToken,
    checkpointer: JoinHandle<()>,
    wakes: JoinHandle<()>,
    /// For what is measured beside it.
    pub(crate) session: Arc<Client>,
    /// Dropped last.
    database: Database,
}

/// A node that does nothing, and counts.
struct Step(Arc<AtomicUsize>);

impl NodeSpec for Step {}

#[async_trait]
impl NodeExecutor for Step {
    async fn execute(&self, _attempt: Attempt) -> Result<Outcome, NodeFailure> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Outcome::Done(Value::Null))
    }
}

impl Stand {
    pub(crate) async fn start() -> Result<Stand> {
        let database = Database::empty().await?;
        let options = ConnectOptions::parse(&Secret::from(url_of(&database)?))?;
        Migrator::new(options.clone()).run().await?;
        let pool = Pool::connect(options.clone(), PoolSettings::default()).await?;
        ensure_journal_partitions(&pool, 1).await?;
        let info =
            InstanceInfo { hostname: "bench".to_owned(), pid: std::process::id(), version: "0".to_owned() };
        let liveness = Liveness::begin(&options, &info).await?;
        let bus = WakeBus::new();
        let control = PgControlStore::new(pool.clone(), bus.clone());
        let project = ProjectControl::new(Arc::new(control)).ensure_local(Operator, "/").await?.id;
        let stop = CancellationToken::new();
        let executed = Arc::new(AtomicUsize::new(0));
        let types = NodeTypes::builtin().with("step", Step(Arc::clone(&executed)));
        let store: Arc<dyn RunStore> = Arc::new(PgRunStore::new(pool, bus.clone()));
        let (engine, service) = Engine::new(store, types, Arc::new(SystemClock), EngineSettings::default());
        let checkpointer = tokio::spawn(service.run(stop.clone()));
        let ended = stop.clone();
        let wakes = tokio::spawn(async move { bus.run(options, ended).await });
        let session = Arc::new(database.session().await?);
        Ok(Stand { engine, liveness, project, executed, stop, checkpointer, wakes, session, database })
    }

    /// Ends everything in order.
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.checkpointer.await?;
        self.wakes.await?;
        Ok(self.liveness.close().await?)
    }

    pub(crate) fn store(&self) -> &Arc<dyn RunStore> {
        self.engine.store()
    }

    /// The identity in whose name runs are claimed.
    pub(crate) fn liveness(&self) -> &Liveness {
        &self.liveness
    }

    /// Stores a graph.
    pub(crate) async fn graph(&self, definition: &Value) -> Result<Digest> {
        let digest = Digest::of_json(definition);
        self.store().ensure_graph(digest, definition).await?;
        Ok(digest)
    }

    /// A run that may be accepted.
    pub(crate) fn new_run(&self, graph: Digest) -> NewRun {
        let (id, project, input) = (RunId::new(), self.project, json!({}));
        NewRun { id, project, graph, input, priority: 5, available_at: None, timeout: None }
    }

    /// What drives runs.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// How many nodes were executed so far, since the last drain began.
    pub(crate) fn n_executed(&self) -> usize {
        self.executed.load(Ordering::Relaxed)
    }

    /// A store on connections of its own, and a session.
    pub(crate) async fn beside(&self) -> Result<(PgRunStore, Client)> {
        let options = ConnectOptions::parse(&Secret::from(self.database.url()?))?;
        let pool = Pool::connect(options, PoolSettings { max_size: 1, ..PoolSettings::default() }).await?;
        Ok((PgRunStore::new(pool, WakeBus::new()), self.database.session().await?))
    }

    /// Accepts one run, claims it and drives it to its end; answers how long claiming and driving took.
    pub(crate) async fn drive_one(&self, graph: Digest) -> Result<Duration> {
        let run = self.new_run(graph);
        let id = run.id;
        self.store().enqueue(run).await?;
        // On a task of its own, as the claim loop does it.
        let (engine, owner) = (self.engine.clone(), self.liveness.instance());
        tokio::spawn(async move {
            let start = Instant::now();
            let claimed = engine.store().claim_run(owner, id).await?.context("another owner claimed it")?;
            let end = engine.drive(claimed, Signals::default()).await;
            let time = start.elapsed();
            ensure!(end == DriveEnd::Ended(RunEvent::Succeeded), "a run ended as {end:?}");
            Ok(time)
        })
        .await?
    }

    /// Puts runs into the queue while no instance claims.
    pub(crate) async fn enqueue(&self, graph: Digest, n_runs: usize) -> Result<()> {
        let ids: Vec<_> = (0..n_runs).map(|_| RunId::new().as_uuid()).collect();
        let sql = "WITH queued AS (
                INSERT INTO runs (id, project_id, graph_digest, kind, input)
                SELECT unnest($1::uuid[]), $2, $3, 'pipeline', '{}' RETURNING id, project_id, priority)
            INSERT INTO active_runs (run_id, project_id, priority) SELECT id, project_id, priority FROM queued";
        let graph = graph.as_bytes().as_slice();
        self.session.execute(sql, &[&ids, &self.project.as_uuid(), &graph]).await?;
        Ok(())
    }

    /// Puts runs into the lines of `n_keys` keys, one key after the other, while no instance claims.
    pub(crate) async fn enqueue_in_lines(
        &self,
        graph: Digest,
        n_runs: usize,
        n_keys: usize,
        permits: i32,
    ) -> Result<()> {
        let ids: Vec<_> = (0..n_runs).map(|_| RunId::new().as_uuid()).collect();
        let keys: Vec<_> = (0..n_keys).map(|_| RunId::new().as_uuid()).collect();
        let sql = "WITH run AS (
                SELECT id, ($2::uuid[])[1 + (n - 1) % cardinality($2)] AS key
                FROM unnest($1::uuid[]) WITH ORDINALITY AS run (id, n)
            ), inserted AS (
                INSERT INTO runs (id, project_id, graph_digest, kind, input)
                SELECT id, $3, $4, 'pipeline', '{}' FROM run
            ), waiting AS (
                INSERT INTO active_runs (run_id, project_id, priority, state, waiting_for, available_at, permit_key)
                SELECT id, $3, 5, 'waiting', 'concurrency', NULL, key FROM run)
            INSERT INTO permit_requests (run_id, key_id, pipeline_id, key, permits, on_limit, priority, available_at)
            SELECT id, key, key, key::text, $5, 'queue', 5, now() FROM run";
        let graph = graph.as_bytes().as_slice();
        self.session.execute(sql, &[&ids, &keys, &self.project.as_uuid(), &graph, &permits]).await?;
        Ok(())
    }

    /// Lets a claim loop loose on a queue of runs with `n_nodes` trivial nodes in all; answers how long it took until it
    /// had driven them all to their ends.
    pub(crate) async fn drain(&self, n_nodes: usize) -> Result<Duration> {
        self.executed.store(0, Ordering::Relaxed);
        let settings = RunnerSettings::default();
        let runner = Runner::new(self.engine.clone(), self.liveness.instance(), settings);
        let (handle, stop) = (runner.handle(), CancellationToken::new());
        let start = Instant::now();
        let running = tokio::spawn(runner.run(stop.clone(), self.liveness.lost()));
        while self.executed.load(Ordering::Relaxed) < n_nodes || handle.n_driven() > 0 {
            ensure!(start.elapsed() < LIMIT && !running.is_finished(), "the queue is not drained");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let time = start.elapsed();
        stop.cancel();
        running.await?;
        let sql = "SELECT count(*) FROM all_runs WHERE state <> 'succeeded'";
        let n_left: i64 = self.session.query_one(sql, &[]).await?.get(0);
        ensure!(n_left == 0, "{n_left} runs did not succeed");
        Ok(time)
    }

    /// The position of the database's log, in bytes.
    pub(crate) async fn log_position(&self) -> Result<f64> {
        let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8";
        Ok(self.session.query_one(sql, &[]).await?.get(0))
    }

    /// The machine and the settings, in one sentence.
    pub(crate) async fn machine(&self) -> Result<String> {
        let n_processors = std::thread::available_parallelism()?;
        let sql = "SELECT split_part(current_setting('server_version'), ' ', 1), current_setting('fsync'),
                          current_setting('synchronous_commit')";
        let row = self.session.query_one(sql, &[]).await?;
        let (version, fsync, commit): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        Ok(format!(
            "{n_processors} processors, shared by the engine and PostgreSQL {version} (fsync {fsync}, \
             synchronous_commit {commit})."
        ))
    }
}
