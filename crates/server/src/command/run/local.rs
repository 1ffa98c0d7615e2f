//! A run of the local command line: found or accepted, then driven to its end in this process.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use gathering_auth::KeyRing;
use gathering_control::{
    AcceptedRerun, Conflict, Control, ControlError, LocalFile, LocalProject, Operator, RerunLocal, Run,
    Scoped, StartRun, right,
};
use gathering_dag_engine::{NodeSpecs, RerunPlan, RunStore as _};
use gathering_domain::{Digest, RunId, RunState};
use gathering_persistence::{PgControlStore, PgRunStore, Runs, Wake, WakeBus};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::interrupt::Interrupt;
use crate::command::progress::tell;
use crate::config::Config;
use crate::database::Database;
use crate::instance::{Instance, Work};

/// A new run is kept from other instances for this long, until this process has claimed it.
const OWN_CLAIM_SECONDS: i64 = 10;

fn own_claim_time() -> DateTime<Utc> {
    Utc::now() + TimeDelta::seconds(OWN_CLAIM_SECONDS)
}

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
    /// An earlier one that has succeeded, with the same definition and input.
    Succeeded(Box<Run>),
    /// A new one, which continues an earlier one that ended otherwise or was corrected.
    Continued { run: RunId, earlier: Box<Run>, plan: RerunPlan },
    /// None: a signal came first.
    Interrupted,
}

/// Why no run is resumed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CannotResume {
    #[error("there is no run of this file here: start one without `--resume`")]
    NoRun,
    #[error(
        "another process drives run {0} with the definition or input that it began with: wait for it, or stop it"
    )]
    DrivenElsewhere(RunId),
    #[error("run {0} cannot be continued: {1}")]
    Refused(RunId, Conflict),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// How the drive ended.
pub(in crate::command) enum Driven {
    /// It reached a terminal state.
    Ended(Box<Run>),
    /// The stop came first; the run is queued again.
    Requeued,
}

/// Runs of one file in one workspace.
pub(in crate::command) struct LocalRuns<'a> {
    config: &'a Config,
    db: &'a Database,
    pub(super) store: Arc<PgRunStore>,
    runs: Runs,
    control: Control,
    project: Scoped<LocalProject, right::Run>,
    file: LocalFile,
    document: &'a Value,
}

impl<'a> LocalRuns<'a> {
    /// Stores the workspace's project in the database.
    pub(in crate::command) async fn new(
        config: &'a Config,
        db: &'a Database,
        specs: NodeSpecs,
        (file, document): (LocalFile, &'a Value),
        workspace: &str,
    ) -> anyhow::Result<Self> {
        let wakes = WakeBus::new();
        let store =
            Arc::new(PgRunStore::new(db.pool.clone(), wakes.clone()).with_stuck_limit(config.stuck_instance));
        let control_store = Arc::new(PgControlStore::new(db.pool.clone(), wakes.clone()));
        // Nothing is stored for the operator's local projects, so no key is of use.
        let keys = Arc::new(KeyRing::generate()?);
        let control = Control::new(control_store, Arc::clone(&store) as _, specs, 1, keys);
        let project = control.projects.ensure_local(Operator, workspace).await?;
        let runs = Runs::new(db.pool.clone(), wakes);
        // An earlier process may have been killed: this queues its run again.
        store.recover_dead_instances(config.max_recoveries).await?;
        Ok(Self { config, db, store, runs, control, project, file, document })
    }

    /// Starts a new run.
    pub(super) async fn start(&self, input: Option<Value>) -> anyhow::Result<Chosen> {
        let latest = self.control.runs.find_local(&self.project, &self.file).await?;
        let earlier = latest.filter(|run| !run.state.is_terminal()).map(|run| run.id);
        let mut start = StartRun { available_at: Some(own_claim_time()), ..StartRun::default() };
        if let Some(input) = input {
            start.input = input;
        }
        let run = self.control.runs.start_local(&self.project, &self.file, self.document, start).await;
        Ok(Chosen::New { run: run.context("the run was not accepted")?.id, earlier })
    }

    /// Accepts a new run, which [`LocalRuns::drive`] then drives.
    pub(in crate::command) async fn accept(
        &self,
        input: Value,
    ) -> Result<Scoped<Run, right::Run>, ControlError> {
        let start = StartRun { input, available_at: Some(own_claim_time()), ..StartRun::default() };
        self.control.runs.start_local(&self.project, &self.file, self.document, start).await
    }

    /// The run as it is stored; `None` if it cannot be read now.
    pub(in crate::command) async fn find(&self, run: RunId) -> Option<Run> {
        self.runs.find(run).await.ok().flatten()
    }

    /// Chooses the latest run of the file, or a run that continues it: one that was corrected, or ended without success.
    pub(super) async fn resume(
        &self,
        input: Option<Value>,
        interrupt: &Interrupt,
    ) -> Result<Chosen, CannotResume> {
        let mut earlier = self.find_latest().await?;
        let is_corrected = earlier.graph != Digest::of_json(self.document)
            || input.as_ref().is_some_and(|input| *input != earlier.input);
        match (earlier.state, is_corrected) {
            (RunState::Succeeded, false) => return Ok(Chosen::Succeeded(Box::new(earlier.into_thing()))),
            (state, false) if !state.is_terminal() => return Ok(Chosen::Unfinished(earlier.id)),
            (RunState::Running, true) => return Err(CannotResume::DrivenElsewhere(earlier.id)),
            (state, true) if !state.is_terminal() => {
                tell(&format!("cancelling run {}, to continue it as it was corrected", earlier.id));
                let cancelled = self.control.runs.cancel_local(&earlier).await;
                cancelled.map_err(anyhow::Error::from)?;
                match self.drive(earlier.id, interrupt.drain()).await? {
                    Driven::Ended(_) => earlier = self.find_latest().await?,
                    Driven::Requeued => return Ok(Chosen::Interrupted),
                }
            }
            _ => {}
        }
        let (file, definition, available_at) = (&self.file, self.document, Some(own_claim_time()));
        let rerun = RerunLocal { file, definition, input, available_at };
        match self.control.runs.rerun_local(&earlier, rerun).await {
            Ok(AcceptedRerun { run, plan }) => {
                let earlier = Box::new(earlier.into_thing());
                Ok(Chosen::Continued { run: run.id, earlier, plan: plan.unwrap_or_default() })
            }
            Err(ControlError::Conflict(conflict)) => Err(CannotResume::Refused(earlier.id, conflict)),
            Err(error) => Err(anyhow::Error::from(error).context("the run was not accepted").into()),
        }
    }

    async fn find_latest(&self) -> Result<Scoped<Run, right::Run>, CannotResume> {
        let latest = self.control.runs.find_local(&self.project, &self.file).await;
        latest.map_err(anyhow::Error::from)?.ok_or(CannotResume::NoRun)
    }

    /// Drives the tree of a run until the run ends or `stop`. It survives the loss of this process's identity and of the
    /// database.
    pub(super) async fn drive(&self, run: RunId, stop: &CancellationToken) -> anyhow::Result<Driven> {
        self.drive_beside(run, stop, async |_| std::future::pending().await).await
    }

    /// As [`LocalRuns::drive`]; the run is cancelled when `cancel` is.
    pub(in crate::command) async fn drive_cancellable(
        &self,
        run: &Scoped<Run, right::Run>,
        stop: &CancellationToken,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Driven> {
        let cancelling = async |instance: &Instance| {
            cancel.cancelled().await;
            if let Err(error) = instance.control.runs.cancel_local(run).await {
                tracing::error!(run.id = %run.id, error = &error as &dyn std::error::Error, "cannot cancel a run: {error}");
            }
            std::future::pending().await
        };
        self.drive_beside(run.id, stop, cancelling).await
    }

    /// Drives a run beside something that has no end.
    async fn drive_beside(
        &self,
        run: RunId,
        stop: &CancellationToken,
        beside: impl AsyncFnOnce(&Instance) -> Infallible,
    ) -> anyhow::Result<Driven> {
        let instance = Instance::start(self.config, self.db, Work::Tree(run)).await?;
        let ended = tokio::select! {
            ended = self.until_ended(&instance, run) => Some(ended),
            () = stop.cancelled() => None,
            never = beside(&instance) => match never {},
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
