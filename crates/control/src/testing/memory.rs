//! The store in memory: the twin of the one on PostgreSQL. Its runs are those of the engine's own twin, so that an
//! engine can drive them.

mod agents;
mod budgets;
mod events;
mod hooks;
mod idempotency;
mod mcp_servers;
mod pipelines;
mod projects;
mod questions;
mod schedules;
mod secrets;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::Utc;
use gathering_auth::{AuditEvent, Caller, ProjectRole, Role};
use gathering_dag_engine::testing::MemoryStore;
use gathering_dag_engine::{
    BudgetLedger, ChildRuns, Decision, Decisions as _, NodeDecision, RunStore, SystemClock,
};
use gathering_domain::{Email, InstanceId, NodeId, Once, ProjectId, RunId, UserId};

use self::state::State;
use super::{ControlFixture, account_of, session_caller};
use crate::{
    ControlError, ControlStore, Creation, DecisionOutcome, Found, LocalFile, LocalProject, NewDecision,
    NewOutcome, PlannedRun, Run, Scoped, right,
};

/// Projects, pipelines and runs in memory. Cloning shares them.
///
/// The accounts are those that [`ControlFixture::account`] made.
#[derive(Clone)]
pub struct MemoryControl {
    runs: MemoryStore,
    state: Arc<Mutex<State>>,
}

impl Default for MemoryControl {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryControl {
    /// An empty store.
    pub fn new() -> Self {
        Self { runs: MemoryStore::new(Arc::new(SystemClock)), state: Arc::default() }
    }

    /// The engine's store, for an engine that drives these runs.
    pub fn runs(&self) -> MemoryStore {
        self.runs.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run as the caller may come to see it.
    fn run(&self, run: RunId) -> Option<Run> {
        let stored = self.runs.run(run)?;
        let facts = self.lock().runs.get(&run).cloned();
        Some(state::shown(&stored, facts.as_ref()))
    }
}

#[async_trait]
impl ControlStore for MemoryControl {
    async fn find_run(&self, by: &Caller, run: RunId) -> Result<Option<Found<Run>>, ControlError> {
        let Some(run) = self.run(run) else { return Ok(None) };
        Ok(self.lock().found(by, run.project, run))
    }

    async fn find_repeated_run(
        &self,
        project: &Scoped<ProjectId, right::Run>,
        once: &Once,
    ) -> Result<Option<Creation<Run>>, ControlError> {
        let Some((digest, run)) = self.lock().key_of_run(*project.thing(), once) else { return Ok(None) };
        if digest != once.digest {
            return Ok(Some(Creation::OtherRequest));
        }
        Ok(self.run(run).map(Creation::Repeated))
    }

    async fn accept_run(
        &self,
        project: &Scoped<ProjectId, right::Run>,
        run: &PlannedRun,
    ) -> Result<Creation<Run>, ControlError> {
        let project = *project.thing();
        let new = run.in_project(project);
        let repeated = {
            let mut state = self.lock();
            if !state.has_project(project) {
                return Err(ControlError::NotFound);
            }
            let earlier = run.once.as_ref().and_then(|once| state.key_of_run(project, once));
            match (earlier, &run.once) {
                (Some((digest, _)), Some(once)) if digest != once.digest => {
                    return Ok(Creation::OtherRequest);
                }
                (Some((_, earlier)), _) => Some(earlier),
                (None, _) => {
                    state.accept(project, run);
                    None
                }
            }
        };
        if let Some(earlier) = repeated {
            // Who accepted it first may not have put it into the engine's store yet.
            loop {
                if let Some(run) = self.run(earlier) {
                    return Ok(Creation::Repeated(run));
                }
                tokio::task::yield_now().await;
            }
        }
        if run.begins_with.is_empty() {
            self.runs.enqueue(new).await?;
        } else {
            self.runs.accept_rerun(new, run.begins_with.clone());
        }
        if let Some((pipeline, _)) = run.pipeline {
            self.runs.make_run_of(pipeline, run.id);
        }
        self.run(run.id).map(Creation::Created).ok_or(ControlError::NotFound)
    }

    async fn find_local_run(
        &self,
        project: &Scoped<LocalProject, right::Run>,
        file: &LocalFile,
    ) -> Result<Option<Run>, ControlError> {
        let latest = self.lock().latest_run_of(project.id, file);
        Ok(latest.and_then(|run| self.run(run)))
    }

    async fn cancel_run(&self, run: &Scoped<Run, right::Run>) -> Result<Option<Run>, ControlError> {
        let stands = self.run(run.id).ok_or(ControlError::NotFound)?;
        if stands.state.is_terminal() {
            return Ok(None);
        }
        self.runs.request_cancel(run.id);
        Ok(self.run(run.id))
    }

    async fn find_email(&self, by: &Caller) -> Result<Option<Email>, ControlError> {
        let state = self.lock();
        let account = state.accounts.get(&by.user).filter(|account| account.is_active);
        Ok(account.map(|account| account.email.clone()))
    }

    async fn decide_node(
        &self,
        run: &Scoped<Run, right::Run>,
        node: &NodeId,
        decision: &NewDecision,
    ) -> Result<DecisionOutcome, ControlError> {
        let NewDecision { approve, comment, decided_as, .. } = decision.clone();
        let decision = Decision { approve, comment, decided_by: decided_as, decided_at: Utc::now() };
        if self.runs.find_decision(run.id, node).await?.is_some() {
            return Ok(DecisionOutcome::DecidedBefore);
        }
        let is_recorded = self.runs.decide(run.id, node, decision);
        let stands = self.run(run.id).ok_or(ControlError::NotFound)?;
        Ok(match is_recorded {
            true => DecisionOutcome::Recorded(Box::new(stands)),
            false if stands.state.is_terminal() => DecisionOutcome::RunEnded,
            false => DecisionOutcome::DecidedBefore,
        })
    }

    async fn decide_outcome(
        &self,
        run: &Scoped<Run, right::Run>,
        node: &NodeId,
        decision: &NewOutcome,
    ) -> Result<Option<Run>, ControlError> {
        let NewOutcome { outcome, output, reason, decided_as, .. } = decision.clone();
        let decision =
            NodeDecision { outcome, output, reason, decided_by: decided_as, decided_at: Utc::now() };
        let stands = self.run(run.id).filter(|run| run.state.is_terminal()).ok_or(ControlError::NotFound)?;
        Ok(self.runs.decide_outcome(run.id, node, decision).then_some(stands))
    }
}

#[async_trait]
impl ControlFixture for MemoryControl {
    fn store(&self) -> Arc<dyn ControlStore> {
        Arc::new(self.clone())
    }

    fn run_store(&self) -> Arc<dyn RunStore> {
        Arc::new(self.runs())
    }

    fn child_runs(&self) -> Arc<dyn ChildRuns> {
        Arc::new(self.runs())
    }

    fn budget_ledger(&self) -> Arc<dyn BudgetLedger> {
        Arc::new(self.clone())
    }

    async fn account(&self, role: Role) -> Caller {
        let caller = session_caller(UserId::new(), role);
        let mut state = self.lock();
        state.accounts.insert(caller.user, account_of(&caller, role));
        state.create_project(ProjectId::new(), ("default", ""), caller.user, Some(caller.user));
        caller
    }

    async fn instance(&self) -> InstanceId {
        InstanceId::new()
    }

    async fn change_account(&self, account: &Caller, role: Role, is_active: bool) {
        if let Some(account) = self.lock().accounts.get_mut(&account.user) {
            (account.role, account.is_active) = (role, is_active);
        }
    }

    async fn audit_trail(&self) -> Vec<AuditEvent> {
        self.lock().audit.clone()
    }

    async fn join(&self, project: ProjectId, member: &Caller, role: ProjectRole) {
        self.lock().join(project, member.user, role);
    }
}
