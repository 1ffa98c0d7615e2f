//! A run of the local command line: found or accepted, then driven to its end in this process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{TimeDelta, Utc};
use gathering_dag_engine::{NewRun, RunStore as _};
use gathering_domain::{Digest, ProjectId, RunId, RunState};
use gathering_persistence::{
    PgRunStore, Projects, RunOrigin, RunRow, Runs, Wake, WakeBus, find_latest_local_run,
};
use serde_json::{Map, Value, json};

use super::interrupt::Interrupt;
use crate::command::progress::tell;
use crate::config::Config;
use crate::database::Database;
use crate::instance::{Instance, Work};

/// A new run is kept from other instances for this long, until this process has claimed it.
const OWN_CLAIM_SECONDS: i64 = 10;

/// How often to look at a run that this process does not drive.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How often to look at one that it drives, in case no wake-up arrives.
const SAFETY_NET: Duration = Duration::from_secs(2);

/// After how long without driving the run the user is told.
const WORTH_A_WORD: Duration = Duration::from_secs(3);

/// Which run is to be driven.
pub(super) enum Chosen {
    /// A new one, and an earlier one of the same file that has not ended.
    New { run: RunId, earlier: Option<RunId> },
    /// An earlier one.
    Unfinished(RunId),
    /// An earlier one that has ended.
    Ended(Box<RunRow>),
}

/// What became of the run.
pub(super) enum Driven {
    /// It reached a terminal state.
    Ended(Box<RunRow>),
    /// A signal came first; the run is queued again.
    Requeued,
}

/// Runs of one definition in one workspace.
pub(super) struct LocalRuns<'a> {
    config: &'a Config,
    db: &'a Database,
    pub(super) store: Arc<PgRunStore>,
    runs: Runs,
    project: ProjectId,
    graph: Digest,
    timeout: Option<Duration>,
}

impl<'a> LocalRuns<'a> {
    /// Stores the definition and the workspace's project in the database.
    pub(super) async fn new(
        config: &'a Config,
        db: &'a Database,
        document: &Value,
        workspace: &str,
    ) -> anyhow::Result<Self> {
        let wakes = WakeBus::new();
        let store =
            Arc::new(PgRunStore::new(db.pool.clone(), wakes.clone()).with_stuck_limit(config.stuck_instance));
        let name = Path::new(workspace).file_name().and_then(|name| name.to_str()).unwrap_or("workspace");
        let project = Projects::new(db.pool.clone()).ensure_local(name, workspace).await?;
        let graph = Digest::of_json(document);
        store.ensure_graph(graph, document).await?;
        let timeout = document["timeout_seconds"]
            .as_f64()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let runs = Runs::new(db.pool.clone(), wakes);
        Ok(Self { config, db, store, runs, project: project.id, graph, timeout })
    }

    /// With `resume`, the latest run of this definition, and with this input where one is given. Otherwise, or if there is
    /// none, a new run.
    pub(super) async fn choose(&self, input: Option<Value>, resume: bool) -> anyhow::Result<Chosen> {
        // An earlier process may have been killed: this queues its run again.
        self.store.recover_dead_instances(self.config.max_recoveries).await?;
        let wanted = input.as_ref().filter(|_| resume);
        let latest = match find_latest_local_run(&self.db.pool, self.project, self.graph, wanted).await? {
            Some(run) => self.runs.find(run).await?,
            None => None,
        };
        match latest {
            Some(row) if resume && row.state.is_terminal() => Ok(Chosen::Ended(Box::new(row))),
            Some(row) if resume => Ok(Chosen::Unfinished(row.id)),
            other => {
                let earlier = other.filter(|row| !row.state.is_terminal()).map(|row| row.id);
                Ok(Chosen::New { run: self.accept(input).await?, earlier })
            }
        }
    }

    async fn accept(&self, input: Option<Value>) -> anyhow::Result<RunId> {
        let run = NewRun {
            id: RunId::new(),
            project: self.project,
            graph: self.graph,
            input: input.unwrap_or_else(|| Value::Object(Map::new())),
            priority: 5,
            available_at: Some(Utc::now() + TimeDelta::seconds(OWN_CLAIM_SECONDS)),
            timeout: self.timeout,
        };
        let origin = RunOrigin { trigger: json!({"type": "local"}), ..RunOrigin::default() };
        self.runs.accept(&run, &origin).await.context("the run was not accepted")?;
        Ok(run.id)
    }

    /// Drives the tree of a run until the run ends or a signal comes, through the loss of this process's identity and of
    /// the database.
    pub(super) async fn drive(&self, run: RunId, interrupt: &Interrupt) -> anyhow::Result<Driven> {
        let instance = Instance::start(self.config, self.db, Work::Tree(run)).await?;
        let ended = tokio::select! {
            ended = self.until_ended(&instance, run) => Some(ended),
            () = interrupt.drain().cancelled() => None,
        };
        instance.stop().await;
        match ended {
            Some(ended) => Ok(Driven::Ended(Box::new(ended?))),
            // It may have ended within the grace period.
            None => Ok(match self.runs.find(run).await {
                Ok(Some(row)) if row.state.is_terminal() => Driven::Ended(Box::new(row)),
                _ => Driven::Requeued,
            }),
        }
    }

    /// Waits for the end of the run.
    async fn until_ended(&self, instance: &Instance, run: RunId) -> anyhow::Result<RunRow> {
        let mut changes = instance.wakes.subscribe(Wake::Events);
        let mut undriven = Duration::ZERO;
        loop {
            let is_driven = instance.identity().runner.n_driven() > 0;
            let found = self.runs.find(run).await;
            let is_parked = matches!(&found, Ok(Some(row)) if row.state == RunState::Waiting);
            match found {
                Ok(Some(row)) if row.state.is_terminal() => return Ok(row),
                Ok(Some(_)) => {}
                Ok(None) => anyhow::bail!("run {run} no longer exists"),
                // No other process restarts an embedded database.
                Err(error) if self.db.is_embedded() && undriven > WORTH_A_WORD => {
                    return Err(error)
                        .context("the embedded database has stopped; `--resume` finishes the run");
                }
                Err(error) => tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "cannot look up run {run}; retrying: {error}"
                ),
            }
            let pause = if is_driven || is_parked { SAFETY_NET } else { LOOK_AGAIN };
            if is_driven || is_parked {
                undriven = Duration::ZERO;
            } else if undriven < WORTH_A_WORD && undriven + pause >= WORTH_A_WORD {
                tell(&format!("waiting for run {run}: another process drives it, or the database is away"));
            }
            tokio::select! {
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep(pause) => {
                    if !(is_driven || is_parked) {
                        undriven += pause;
                    }
                }
            }
        }
    }
}
