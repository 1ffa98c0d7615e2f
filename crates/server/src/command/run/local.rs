//! A run of the local command line: found or started, then driven to its end in this process.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{TimeDelta, Utc};
use gathering_dag_engine::{ClaimedRun, DriveEnd, NewRun, Signals};
use gathering_domain::{Digest, ProjectId, RunId};
use gathering_persistence::{Pool, Projects, RunOrigin, RunRow, find_latest_local_run};
use serde_json::{Map, Value, json};

use super::below::Tree;
use super::interrupt::Interrupt;
use crate::command::progress::tell;
use crate::config::Config;
use crate::database::Database;
use crate::instance::{Identity, Instance};

/// A new run is kept from other instances until this process has claimed it; if it dies before, they may have it.
const OWN_CLAIM_SECONDS: i64 = 10;

/// How long to wait before looking again for a run that somebody else holds, or that died just now.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// From when on a run that another process holds is worth a word.
const WORTH_A_WORD: Duration = Duration::from_secs(3);

/// Which run is to be finished.
pub(super) enum Chosen {
    /// One that is new, and an earlier one of the same file that was not finished.
    New { run: RunId, earlier: Option<RunId> },
    /// An earlier one.
    Unfinished(RunId),
    /// An earlier one that has ended.
    Ended(Box<RunRow>),
}

/// How driving ended.
pub(super) enum Driven {
    /// The run reached a terminal state.
    Ended(Box<RunRow>),
    /// A signal came; the run is queued again.
    Requeued,
}

/// Runs of one definition in one workspace.
pub(super) struct LocalRun<'a> {
    instance: &'a Instance,
    pool: &'a Pool,
    is_embedded: bool,
    max_recoveries: i32,
    project: ProjectId,
    graph: Digest,
    timeout: Option<Duration>,
}

impl<'a> LocalRun<'a> {
    /// Makes the definition and the workspace's project known to the database.
    pub(super) async fn new(
        instance: &'a Instance,
        config: &Config,
        db: &'a Database,
        document: &Value,
        workspace: &str,
    ) -> anyhow::Result<Self> {
        let name = Path::new(workspace).file_name().and_then(|name| name.to_str()).unwrap_or("workspace");
        let project = Projects::new(db.pool.clone()).ensure_local(name, workspace).await?;
        let graph = Digest::of_json(document);
        instance.engine.store().ensure_graph(graph, document).await?;
        let timeout = document["timeout_seconds"]
            .as_f64()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Ok(Self {
            instance,
            pool: &db.pool,
            is_embedded: db.is_embedded(),
            max_recoveries: config.max_recoveries,
            project: project.id,
            graph,
            timeout,
        })
    }

    /// The latest run of this definition, with this input where one is given, if `resume`; else, or if there is none, a
    /// new one.
    pub(super) async fn choose(&self, input: Option<Value>, resume: bool) -> anyhow::Result<Chosen> {
        // An earlier process may have been killed: what it left is then queued again.
        self.recover().await?;
        let wanted = input.as_ref().filter(|_| resume);
        let latest = match find_latest_local_run(self.pool, self.project, self.graph, wanted).await? {
            Some(run) => self.instance.runs.find(run).await?,
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
        self.instance.runs.accept(&run, &origin).await.context("the run was not accepted")?;
        Ok(run.id)
    }

    async fn recover(&self) -> anyhow::Result<()> {
        self.instance.engine.store().recover_dead_instances(self.max_recoveries).await?;
        Ok(())
    }

    /// Drives a run until it ends or a signal comes, through the loss of this process's identity and of the database.
    pub(super) async fn drive(&self, run: RunId, interrupt: &Interrupt) -> anyhow::Result<Driven> {
        let mut waited = Duration::ZERO;
        loop {
            let identity = self.instance.identity();
            if let Some(claimed) = self.claim(&identity, run).await {
                waited = Duration::ZERO;
                if self.drive_claimed(claimed, identity, interrupt).await == DriveEnd::Requeued {
                    return Ok(Driven::Requeued);
                }
            }
            match self.instance.runs.find(run).await {
                Ok(Some(row)) if row.state.is_terminal() => return Ok(Driven::Ended(Box::new(row))),
                Ok(Some(_)) => {}
                Ok(None) => anyhow::bail!("run {run} is no longer there"),
                // What nobody brings back is not waited for.
                Err(error) if self.is_embedded && waited > WORTH_A_WORD => {
                    return Err(error)
                        .context("the embedded database has ended; `--resume` finishes the run");
                }
                Err(error) => tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "run {run} cannot be looked up: {error}"
                ),
            }
            if interrupt.drain().is_cancelled() {
                return Ok(Driven::Requeued);
            }
            if waited < WORTH_A_WORD && waited + LOOK_AGAIN >= WORTH_A_WORD {
                tell(&format!("waiting for run {run}: another process drives it, or the database is away"));
            }
            tokio::select! {
                () = interrupt.drain().cancelled() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => waited += LOOK_AGAIN,
            }
        }
    }

    /// Claims the run, if nobody alive holds it.
    async fn claim(&self, identity: &Identity, run: RunId) -> Option<ClaimedRun> {
        if identity.fence.is_cancelled() {
            return None;
        }
        let store = self.instance.engine.store();
        let claimed = async {
            if let Some(claimed) = store.claim_run(identity.id, run).await? {
                return Ok(Some(claimed));
            }
            store.recover_dead_instances(self.max_recoveries).await?;
            store.claim_run(identity.id, run).await
        };
        match claimed.await {
            Ok(claimed) => claimed,
            Err(error) => {
                let error: gathering_dag_engine::StoreError = error;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "run {run} cannot be claimed: {error}"
                );
                None
            }
        }
    }

    async fn drive_claimed(
        &self,
        claimed: ClaimedRun,
        identity: Identity,
        interrupt: &Interrupt,
    ) -> DriveEnd {
        let root = claimed.claim.run;
        let signals = Signals {
            drain: interrupt.drain().clone(),
            release: interrupt.release().clone(),
            fence: identity.fence.clone(),
            ..Signals::default()
        };
        let tree = Tree { instance: self.instance, identity: &identity, root, signals: signals.clone() };
        tokio::select! {
            end = self.instance.engine.drive(claimed, signals.clone()) => end,
            () = tree.accompany(&signals) => DriveEnd::Abandoned,
        }
    }
}
