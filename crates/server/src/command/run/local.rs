//! A run of the local command line: found or accepted, then driven to its end in this process.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{TimeDelta, Utc};
use gathering_control::{Control, LocalProject, Operator, Run, Scoped, StartRun, right};
use gathering_dag_engine::{NodeSpecs, RunStore as _};
use gathering_domain::{Digest, RunId, RunState};
use gathering_persistence::{PgControlStore, PgRunStore, Runs, Wake, WakeBus, find_latest_local_run};
use serde_json::Value;

use super::interrupt::Interrupt;
use crate::command::progress::tell;
use crate::config::Config;
use crate::database::Database;
use crate::instance::{Instance, Work};

/// A new run is kept from other instances for this long, until this process has claimed it.
const OWN_CLAIM_SECONDS: i64 = 10;

/// How often to poll a run that this process does not drive.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How often to poll one that it drives, in case no wake-up arrives.
const SAFETY_NET: Duration = Duration::from_secs(2);

/// After this long without driving the run, the user gets a message.
const WORTH_A_WORD: Duration = Duration::from_secs(3);

/// Which run is to be driven.
pub(super) enum Chosen {
    /// A new one, and an earlier one of the same file that has not ended.
    New { run: RunId, earlier: Option<RunId> },
    /// An earlier one.
    Unfinished(RunId),
    /// An earlier one that has ended.
    Ended(Box<Run>),
}

/// How the drive ended.
pub(super) enum Driven {
    /// It reached a terminal state.
    Ended(Box<Run>),
    /// A signal came first; the run is queued again.
    Requeued,
}

/// Runs of one definition in one workspace.
pub(super) struct LocalRuns<'a> {
    config: &'a Config,
    db: &'a Database,
    pub(super) store: Arc<PgRunStore>,
    runs: Runs,
    control: Control,
    project: Scoped<LocalProject, right::Run>,
    document: &'a Value,
}

impl<'a> LocalRuns<'a> {
    /// Stores the definition and the workspace's project in the database.
    pub(super) async fn new(
        config: &'a Config,
        db: &'a Database,
        document: &'a Value,
        workspace: &str,
    ) -> anyhow::Result<Self> {
        let wakes = WakeBus::new();
        let store =
            Arc::new(PgRunStore::new(db.pool.clone(), wakes.clone()).with_stuck_limit(config.stuck_instance));
        let control_store = Arc::new(PgControlStore::new(db.pool.clone(), wakes.clone()));
        // The definition was validated when its file was read, so no types of nodes are needed here.
        let control = Control::new(control_store, Arc::clone(&store) as _, NodeSpecs::default(), 1);
        let project = control.projects.ensure_local(Operator, workspace).await?;
        let runs = Runs::new(db.pool.clone(), wakes);
        Ok(Self { config, db, store, runs, control, project, document })
    }

    /// With `resume`, the latest run of this definition, and with this input where one is given. Otherwise, or if there is
    /// none, a new run.
    pub(super) async fn choose(&self, input: Option<Value>, resume: bool) -> anyhow::Result<Chosen> {
        // An earlier process may have been killed: this queues its run again.
        self.store.recover_dead_instances(self.config.max_recoveries).await?;
        let graph = Digest::of_json(self.document);
        let wanted = input.as_ref().filter(|_| resume);
        let latest = match find_latest_local_run(&self.db.pool, self.project.id, graph, wanted).await? {
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
        let mut start = StartRun {
            available_at: Some(Utc::now() + TimeDelta::seconds(OWN_CLAIM_SECONDS)),
            ..StartRun::default()
        };
        if let Some(input) = input {
            start.input = input;
        }
        let run = self.control.runs.start_local(&self.project, self.document, start).await;
        Ok(run.context("the run was not accepted")?.id)
    }

    /// Drives the tree of a run until the run ends or a signal comes. It survives the loss of this process's identity
    /// and of the database.
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
    async fn until_ended(&self, instance: &Instance, run: RunId) -> anyhow::Result<Run> {
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
