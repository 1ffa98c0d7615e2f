//! Everything that executes runs in this process: an identity that is proven alive, the engine, the claim loop.
//!
//! Owns the tasks, each with a name, and the order in which they stop. When the proof of life is lost, everything that
//! executes under it is dropped first; then the process tries again under a new identity. Nobody exits.

mod lifecycle;
mod task;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use gathering_dag_engine::{Breakers, Engine, EngineSettings, RunnerHandle, RunnerSettings, SystemClock};
use gathering_domain::InstanceId;
use gathering_nodes::NodeServices;
use gathering_persistence::{
    Budgets, InstanceInfo, Liveness, PgRunStore, Pipelines, Pool, Runs, Wake, WakeBus, clear_expired,
    ensure_journal_partitions,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::capabilities::Capabilities;
use crate::config::Config;
use crate::database::Database;
use crate::project_pipelines::StoredPipelines;
use crate::workspaces::Workspaces;
use lifecycle::InstanceLifecycle;
use task::Task;

/// A run that is driven because somebody asked for it here is not let go of while it waits.
const NEVER_PARK: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// How often partitions of the journal are made, and how many weeks ahead.
const PARTITIONS_INTERVAL: Duration = Duration::from_secs(24 * 3600);
const PARTITIONS_WEEKS: u8 = 4;

/// How often the circuit breakers are read when nobody says that one changed.
const BREAKERS_INTERVAL: Duration = Duration::from_secs(600);

/// How often what no login depends on any more is cleared away.
const CLEARING_INTERVAL: Duration = Duration::from_secs(3600);

/// Which runs an instance executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Those of the queue.
    Queue,
    /// Only those that somebody claims for it.
    Asked,
}

/// Who this process is at the moment.
#[derive(Clone)]
pub struct Identity {
    /// The name under which runs are claimed.
    pub id: InstanceId,
    /// Cancelled when the proof of life is lost: what was claimed under this name must stop at once.
    pub fence: CancellationToken,
    /// The claim loop of this identity.
    pub runner: RunnerHandle,
}

/// Everything that executes runs in this process.
pub struct Instance {
    /// Drives claimed runs.
    pub engine: Engine,
    /// Where the runs live.
    pub store: Arc<PgRunStore>,
    /// The runs as a whole.
    pub runs: Runs,
    /// What they may use up.
    pub budgets: Budgets,
    /// Wakes this and the other instances.
    pub wakes: WakeBus,
    /// The projects' files.
    pub workspaces: Workspaces,
    identity: watch::Receiver<Identity>,
    stop: CancellationToken,
    lifecycle: JoinHandle<Option<Liveness>>,
    checkpointer: Task,
    /// In the order in which they are stopped, after all the rest.
    services: Vec<Task>,
}

impl Instance {
    /// Begins to execute runs.
    ///
    /// # Errors
    /// If the database is away or a setting cannot be used; nothing is left running.
    pub async fn start(config: &Config, db: &Database, work: Work) -> anyhow::Result<Self> {
        let capabilities = Capabilities::new(config)?;
        let workspaces = Workspaces::new(db.pool.clone(), config, capabilities.blocking.clone());
        let info = info().await;
        let liveness =
            Liveness::begin(&db.direct, &info).await.context("this instance cannot be registered")?;

        let wakes = WakeBus::new();
        let store =
            Arc::new(PgRunStore::new(db.pool.clone(), wakes.clone()).with_stuck_limit(config.stuck_instance));
        let budgets = Budgets::new(db.pool.clone(), wakes.clone());
        let node_services = NodeServices {
            files: Arc::new(workspaces.clone()),
            pipelines: Arc::new(StoredPipelines {
                pipelines: Pipelines::new(db.pool.clone()),
                children: Arc::clone(&store) as _,
            }),
            children: Arc::clone(&store) as _,
            decisions: Arc::clone(&store) as _,
            budgets: Some(Arc::new(budgets.clone())),
        };
        let types = capabilities.node_types(&node_services);
        let breakers = Breakers::new(Arc::clone(&store) as _, Arc::new(SystemClock));
        let (engine, service) =
            Engine::new(Arc::clone(&store) as _, types, Arc::new(SystemClock), engine_settings(config, work));
        let engine = engine.with_breakers(breakers.clone());
        let checkpointer = Task::start("checkpointer", |stop| service.run(stop));

        let stop = CancellationToken::new();
        let (lifecycle, identity) = InstanceLifecycle::new(
            engine.clone(),
            wakes.clone(),
            db.direct.clone(),
            info,
            work,
            runner_settings(config),
            stop.clone(),
            &liveness,
        );
        let lifecycle = tokio::spawn(lifecycle.run(liveness));
        let services = services(db, &wakes, breakers, work);
        let runs = Runs::new(db.pool.clone(), wakes.clone());
        Ok(Self {
            engine,
            store,
            runs,
            budgets,
            wakes,
            workspaces,
            identity,
            stop,
            lifecycle,
            checkpointer,
            services,
        })
    }

    /// Who this process is now.
    pub fn identity(&self) -> Identity {
        self.identity.borrow().clone()
    }

    /// Changes when this process gets another identity.
    pub fn identities(&self) -> watch::Receiver<Identity> {
        self.identity.clone()
    }

    /// Claims nothing more from now on; what is driven goes on until [`Instance::stop`] has waited its grace period.
    pub fn drain(&self) {
        self.stop.cancel();
    }

    /// Stops in order: the claim loop hands back what does not end within the grace period; then the checkpointer,
    /// which those hand-backs go through; then the proof of life; then the rest.
    pub async fn stop(self) {
        self.stop.cancel();
        let liveness = match self.lifecycle.await {
            Ok(liveness) => liveness,
            Err(error) => {
                tracing::error!(error = %error, "the task that drives runs ended abnormally");
                None
            }
        };
        self.checkpointer.end().await;
        if let Some(liveness) = liveness
            && let Err(error) = liveness.close().await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "this instance could not sign off: {error}"
            );
        }
        for service in self.services {
            service.end().await;
        }
    }
}

fn engine_settings(config: &Config, work: Work) -> EngineSettings {
    let defaults =
        EngineSettings { graph_cache_entries: config.cache_graphs_entries, ..EngineSettings::default() };
    match work {
        Work::Queue => defaults,
        Work::Asked => EngineSettings { park_after: NEVER_PARK, ..defaults },
    }
}

fn runner_settings(config: &Config) -> RunnerSettings {
    RunnerSettings {
        max_concurrent_runs: config.max_concurrent_runs,
        max_recoveries: config.max_recoveries,
        grace: config.shutdown_grace,
        ..RunnerSettings::default()
    }
}

async fn info() -> InstanceInfo {
    let hostname = tokio::fs::read_to_string("/proc/sys/kernel/hostname").await.ok();
    let hostname = hostname.or_else(|| std::env::var("HOSTNAME").ok());
    InstanceInfo {
        hostname: hostname.map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned()),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn services(db: &Database, wakes: &WakeBus, breakers: Breakers, work: Work) -> Vec<Task> {
    let mut services = Vec::new();
    if work == Work::Queue {
        let pool = db.pool.clone();
        services.push(Task::start("journal partitions", move |stop| make_partitions(pool, stop)));
        let pool = db.pool.clone();
        services.push(Task::start("clearing away", move |stop| clear_away(pool, stop)));
        let wakes = wakes.clone();
        services.push(Task::start("circuit breakers", move |stop| follow_breakers(breakers, wakes, stop)));
    }
    // Nobody else is to be woken on a database that belongs to this process alone, unless the queue is served.
    if work == Work::Queue || !db.is_embedded() {
        let (wakes, direct) = (wakes.clone(), db.direct.clone());
        services.push(Task::start("wake-ups", move |stop| async move { wakes.run(direct, stop).await }));
    }
    services
}

/// Takes in how the circuit breakers stand, whenever another instance says that one changed.
async fn follow_breakers(breakers: Breakers, wakes: WakeBus, stop: CancellationToken) {
    let mut changes = wakes.subscribe(Wake::Breakers);
    loop {
        if let Err(error) = breakers.reload().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the circuit breakers cannot be read: {error}"
            );
        }
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = changes.changed() => {}
            () = tokio::time::sleep(BREAKERS_INTERVAL) => {}
        }
    }
}

async fn make_partitions(pool: Pool, stop: CancellationToken) {
    loop {
        if let Err(error) = ensure_journal_partitions(&pool, PARTITIONS_WEEKS).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "partitions of the journal cannot be made: {error}"
            );
        }
        if is_stopped_after(PARTITIONS_INTERVAL, &stop).await {
            return;
        }
    }
}

async fn clear_away(pool: Pool, stop: CancellationToken) {
    loop {
        // There may be much of it, and a stop does not wait: a dropped batch is rolled back, with its connection.
        let cleared = tokio::select! {
            () = stop.cancelled() => return,
            cleared = clear_expired(&pool) => cleared,
        };
        if let Err(error) = cleared {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "expired sessions cannot be cleared away: {error}"
            );
        }
        if is_stopped_after(CLEARING_INTERVAL, &stop).await {
            return;
        }
    }
}

/// Waits, and answers whether the stop came meanwhile.
async fn is_stopped_after(interval: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        () = tokio::time::sleep(interval) => false,
    }
}
