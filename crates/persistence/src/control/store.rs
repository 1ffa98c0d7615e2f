//! The port of `gathering-control`: each of its methods is one transaction. What they do is in the file of its noun.

use async_trait::async_trait;
use gathering_auth::Caller;
use gathering_control::{
    ControlError, ControlStore, Creation, DecisionOutcome, Found, LocalFile, LocalProject, NewDecision,
    NewOutcome, PlannedRun, Run, Scoped, right,
};
use gathering_domain::{Email, NodeId, Once, ProjectId, RunId};

use crate::accounts::account;
use crate::cluster::wake::WakeBus;
use crate::control::runs;
use crate::db::pool::Pool;
use crate::events::SettledLog;
use crate::runs::list::Runs;
use crate::runs::local_runs;

/// [`ControlStore`] on PostgreSQL. Cloning is cheap and shares the pool.
#[derive(Debug, Clone)]
pub struct PgControlStore {
    pub(crate) pool: Pool,
    pub(crate) wakes: WakeBus,
    pub(super) runs: Runs,
    pub(crate) log: SettledLog,
}

impl PgControlStore {
    /// Keeps everything where `pool` leads; `wakes` tells those who claim and drive runs.
    pub fn new(pool: Pool, wakes: WakeBus) -> Self {
        let runs = Runs::new(pool.clone(), wakes.clone());
        Self { pool, wakes, runs, log: SettledLog::default() }
    }
}

#[async_trait]
impl ControlStore for PgControlStore {
    async fn find_run(&self, by: &Caller, run: RunId) -> Result<Option<Found<Run>>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(runs::find_as(&conn, run, by.user).await?)
    }

    async fn find_repeated_run(
        &self,
        project: &Scoped<ProjectId, right::Run>,
        once: &Once,
    ) -> Result<Option<Creation<Run>>, ControlError> {
        runs::find_repeated(&self.runs, *project.thing(), once).await
    }

    async fn accept_run(
        &self,
        project: &Scoped<ProjectId, right::Run>,
        run: &PlannedRun,
    ) -> Result<Creation<Run>, ControlError> {
        runs::accept(&self.runs, *project.thing(), run).await
    }

    async fn find_local_run(
        &self,
        project: &Scoped<LocalProject, right::Run>,
        file: &LocalFile,
    ) -> Result<Option<Run>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(local_runs::find_latest(&conn, project.id, file).await?)
    }

    async fn cancel_run(&self, run: &Scoped<Run, right::Run>) -> Result<Option<Run>, ControlError> {
        runs::cancel(&self.runs, run.id).await
    }

    async fn find_email(&self, by: &Caller) -> Result<Option<Email>, ControlError> {
        let conn = self.pool.get().await?;
        let account = account::find(&conn, by.user).await?;
        Ok(account.filter(|record| record.account.is_active).map(|record| record.account.email))
    }

    async fn decide_node(
        &self,
        run: &Scoped<Run, right::Run>,
        node: &NodeId,
        decision: &NewDecision,
    ) -> Result<DecisionOutcome, ControlError> {
        runs::decide(&self.runs, run.id, node, decision).await
    }

    async fn decide_outcome(
        &self,
        run: &Scoped<Run, right::Run>,
        node: &NodeId,
        decision: &NewOutcome,
    ) -> Result<Option<Run>, ControlError> {
        runs::decide_outcome(&self.runs, run.id, node, decision).await
    }
}
