//! Everything that executes runs in this process: an identity with its liveness lock, the engine, the claim loop.
//!
//! Owns the tasks, each with a name, and the order in which they stop. When the liveness lock is lost, everything that
//! executes under it is dropped first; then the process registers as a new instance. It never exits for that.

mod calendars;
mod lifecycle;
mod maintenance;
mod secrets;
mod task;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use gathering_control::{
    AgentsOfRuns, AskedQuestions, Control, EventFeed, EventMatching, FeedSettings, Graphs, McpRules,
    McpServerControl, ProjectControl, ProjectPipelines, ScheduleFiring, SecretControl, ToolControl,
    WorkspaceSettings, Workspaces,
};
use gathering_dag_engine::{
    Breakers, ClaimScope, Engine, EngineSettings, RunnerHandle, RunnerSettings, SystemClock,
};
use gathering_domain::{InstanceId, RunId};
use gathering_nodes::{NodeServices, People, ProjectSpecs, Questions, RunNotices};
use gathering_persistence::{
    InstanceInfo, Liveness, PgBudgetLedger, PgControlStore, PgRunStore, Runs, Wake, WakeBus, check_registered,
};
use gathering_scheduler::Firing;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::capabilities::Capabilities;
use crate::config::Config;
use crate::database::{Database, refuse};
use crate::mounts::Mounts;
use lifecycle::InstanceLifecycle;
use task::Task;

/// A run that this process drives by request is not parked while it only waits for a time.
const NEVER_PARK: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// How many runs of a tree are driven at once.
const MAX_RUNS_OF_TREE: usize = 64;

/// How often the queue is polled for runs of a tree when no wake-up arrives.
const TREE_SAFETY_NET: Duration = Duration::from_secs(2);

/// How long running nodes of a tree may go on after the stop.
const TREE_GRACE: Duration = Duration::from_secs(3);

/// How often the circuit breakers are read when no wake-up says that one changed.
const BREAKERS_INTERVAL: Duration = Duration::from_secs(600);

/// Which runs an instance executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Those of the queue.
    Queue,
    /// Only this run and its awaited descendants.
    Tree(RunId),
}

/// The current identity of this process.
#[derive(Clone)]
pub struct Identity {
    /// The instance id under which runs are claimed.
    pub id: InstanceId,
    /// Cancelled when the liveness lock is lost: every run that was claimed under this id must stop at once.
    pub fence: CancellationToken,
    /// The claim loop of this identity.
    pub runner: RunnerHandle,
}

/// Everything that executes runs in this process.
pub struct Instance {
    /// The operations on projects, pipelines and runs.
    pub control: Control,
    /// Tools, called by themselves.
    pub tools: ToolControl,
    /// The secrets of projects.
    pub secrets: SecretControl,
    /// The mounted MCP servers of projects.
    pub mounts: Mounts,
    /// The runs as a whole.
    pub runs: Runs,
    /// Wakes this and the other instances.
    pub wakes: WakeBus,
    /// What the tools of runs tell that this process drives.
    pub notices: RunNotices,
    questions: Option<Questions>,
    /// The log of events, for those who follow it. It is read where the queue is served.
    pub feed: EventFeed,
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
    /// If the database is unavailable or a setting is invalid; nothing is left running.
    pub async fn start(config: &Config, db: &Database, work: Work) -> anyhow::Result<Self> {
        let capabilities = Capabilities::new(config)?;
        let info = info().await;
        let liveness = Liveness::begin(&db.direct, &info).await.context("cannot register this instance")?;
        check_registered(&db.pool, liveness.instance()).await.map_err(refuse)?;

        let wakes = WakeBus::new();
        let store =
            Arc::new(PgRunStore::new(db.pool.clone(), wakes.clone()).with_stuck_limit(config.stuck_instance));
        let control_store = Arc::new(PgControlStore::new(db.pool.clone(), wakes.clone()));
        let projects = ProjectControl::new(control_store.clone());
        let workspaces = Workspaces::new(projects, workspace_settings(config), capabilities.blocking.clone());
        let secrets = secrets::open(config, Arc::clone(&control_store) as _, work).await?;
        let pipelines =
            ProjectPipelines::new(control_store.clone(), Arc::clone(&store) as _, Arc::clone(&store) as _);
        let pipelines = match work {
            Work::Queue => pipelines,
            Work::Tree(_) => pipelines.without_limits(),
        };
        let mcp_servers = McpServerControl::new(Arc::clone(&control_store) as _, mcp_rules(config));
        let (own_tools, outbound) = (capabilities.tools.clone(), capabilities.outbound.clone());
        let mounts = Mounts::new(own_tools, mcp_servers, secrets.clone(), outbound);
        let notices = RunNotices::default();
        let asked = AskedQuestions::new(Arc::clone(&control_store) as _, wakes.subscribe(Wake::Signals));
        // Nobody reaches a process that drives one run alone.
        let questions = (work == Work::Queue).then(|| Questions::new(Arc::new(asked)));
        let node_services = NodeServices {
            files: Arc::new(workspaces.clone()),
            pipelines: Arc::new(pipelines),
            children: Arc::clone(&store) as _,
            decisions: Arc::clone(&store) as _,
            secrets: Arc::new(secrets.clone()),
            agents: Arc::new(AgentsOfRuns::new(Arc::clone(&control_store) as _)),
            tools: Arc::new(mounts.clone()),
            budgets: Some(Arc::new(PgBudgetLedger::new(db.pool.clone(), wakes.clone()))),
            people: People { notices: notices.clone(), questions: questions.clone() },
        };
        let types = capabilities.node_types(&node_services);
        let firing = ScheduleFiring::new(Arc::clone(&control_store) as _);
        let log_wakes = || [Wake::Events, Wake::Log].map(|what| wakes.subscribe(what));
        let matching =
            EventMatching::new(control_store.clone(), log_wakes(), wakes.subscribe(Wake::Schedules));
        let feed_settings =
            FeedSettings { n_cached_projects: config.cache_events_entries, ..FeedSettings::default() };
        let (feed, feed_service) = EventFeed::new(control_store.clone(), log_wakes(), feed_settings);
        let graphs = Graphs::new(Arc::clone(&store) as _, types.specs().clone(), config.cache_graphs_entries)
            .with_project_specs(ProjectSpecs::new(capabilities.providers.clone(), Arc::new(mounts.clone())));
        let control = Control::over(control_store, graphs, secrets.keys()).with_files(workspaces.clone());
        let breakers = Breakers::new(Arc::clone(&store) as _, Arc::new(SystemClock));
        let (engine, service) =
            Engine::new(Arc::clone(&store) as _, types, Arc::new(SystemClock), engine_settings(config, work));
        let engine = engine.with_breakers(breakers.clone()).with_node_permits(Arc::clone(&store) as _);
        let checkpointer = Task::start("checkpointer", |stop| service.run(stop));

        let stop = CancellationToken::new();
        let (lifecycle, identity) = InstanceLifecycle::new(
            engine,
            wakes.clone(),
            db.direct.clone(),
            info,
            runner_settings(config, work),
            stop.clone(),
            &liveness,
        );
        let lifecycle = tokio::spawn(lifecycle.run(liveness));
        let mut services = services(config, db, &wakes, breakers, work);
        let connections = mounts.clone();
        services.push(Task::start("MCP servers", |stop| connections.run(stop)));
        services.extend(secrets::tasks(&secrets, &control.hooks, work));
        if work == Work::Queue {
            // What draws near its end starts nothing more: another instance fires instead.
            let (firing, draining) =
                (Firing::new(Arc::new(firing), wakes.subscribe(Wake::Schedules)), stop.clone());
            services.push(Task::start("schedules", move |_| firing.run(draining)));
            let schedules = control.schedules.clone();
            services.push(Task::start("calendars", move |stop| calendars::renew(schedules, stop)));
            let draining = stop.clone();
            services.push(Task::start("event schedules", move |_| matching.run(draining)));
            let refusals = control.hooks.refusal_log();
            services.push(Task::start("refused calls of hooks", |stop| refusals.run(stop)));
            services.push(Task::start("feed of events", |stop| feed_service.run(stop)));
        }
        let tools =
            ToolControl::new(control.projects.clone(), control.runs.clone(), capabilities.tools.clone())
                .with_project_tools(Arc::new(mounts.clone()));
        let runs = Runs::new(db.pool.clone(), wakes.clone());
        Ok(Self {
            control,
            tools,
            secrets,
            mounts,
            runs,
            wakes,
            notices,
            questions,
            feed,
            workspaces,
            identity,
            stop,
            lifecycle,
            checkpointer,
            services,
        })
    }

    /// The current identity of this process.
    pub fn identity(&self) -> Identity {
        self.identity.borrow().clone()
    }

    /// Changes when this process gets another identity.
    pub fn identities(&self) -> watch::Receiver<Identity> {
        self.identity.clone()
    }

    /// Claims nothing more from now on; driven runs go on until the grace period of [`Instance::stop`] is over.
    pub fn drain(&self) {
        self.stop.cancel();
    }

    /// Stops in order: the claim loop releases what does not end within the grace period; then the checkpointer, which
    /// writes those releases; then the liveness session; then the rest.
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
        if let Some(questions) = &self.questions {
            questions.settle().await;
        }
        if let Some(liveness) = liveness
            && let Err(error) = liveness.close().await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot end this instance in order: {error}"
            );
        }
        for service in self.services {
            service.end().await;
        }
    }
}

fn mcp_rules(config: &Config) -> McpRules {
    McpRules { commands: config.mcp_commands.clone(), allowance: config.mcp_allowance }
}

fn workspace_settings(config: &Config) -> WorkspaceSettings {
    WorkspaceSettings {
        root: config.workspace_root.clone(),
        data_dir: config.data_dir.clone(),
        n_cached_directories: config.cache_directories_entries,
        n_cached_workspaces: config.cache_workspaces_entries,
    }
}

fn engine_settings(config: &Config, work: Work) -> EngineSettings {
    let defaults =
        EngineSettings { graph_cache_entries: config.cache_graphs_entries, ..EngineSettings::default() };
    match work {
        Work::Queue => defaults,
        Work::Tree(_) => EngineSettings { park_after: NEVER_PARK, ..defaults },
    }
}

fn runner_settings(config: &Config, work: Work) -> RunnerSettings {
    let defaults = RunnerSettings { max_recoveries: config.max_recoveries, ..RunnerSettings::default() };
    match work {
        Work::Queue => RunnerSettings {
            max_concurrent_runs: config.max_concurrent_runs,
            grace: config.shutdown_grace,
            ..defaults
        },
        Work::Tree(root) => RunnerSettings {
            max_concurrent_runs: MAX_RUNS_OF_TREE,
            claim_batch: MAX_RUNS_OF_TREE,
            safety_net: TREE_SAFETY_NET,
            grace: TREE_GRACE,
            scope: ClaimScope::Tree(root),
            ..defaults
        },
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

fn services(config: &Config, db: &Database, wakes: &WakeBus, breakers: Breakers, work: Work) -> Vec<Task> {
    let mut services = Vec::new();
    if work == Work::Queue {
        services.extend(maintenance::start(&db.pool, config));
        let wakes = wakes.clone();
        services.push(Task::start("circuit breakers", move |stop| follow_breakers(breakers, wakes, stop)));
    }
    // A database of this process alone has no other instance to wake, unless the queue is served.
    if work == Work::Queue || !db.is_embedded() {
        let (wakes, direct) = (wakes.clone(), db.direct.clone());
        services.push(Task::start("wake-ups", move |stop| async move { wakes.run(direct, stop).await }));
    }
    services
}

/// Reloads the circuit breakers whenever another instance says that one changed.
async fn follow_breakers(breakers: Breakers, wakes: WakeBus, stop: CancellationToken) {
    let mut changes = wakes.subscribe(Wake::Breakers);
    loop {
        if let Err(error) = breakers.reload().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot read the circuit breakers: {error}"
            );
        }
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = changes.changed() => {}
            () = tokio::time::sleep(BREAKERS_INTERVAL) => {}
        }
    }
}
