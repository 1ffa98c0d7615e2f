//! The port: what this crate needs to be kept, in its own words.

mod agents;
mod budgets;
mod events;
mod hooks;
mod mcp_servers;
mod pipelines;
mod projects;
mod questions;
mod schedules;
mod secrets;

use async_trait::async_trait;
use gathering_auth::Caller;
use gathering_domain::{Email, NodeId, Once, ProjectId, RunId};

use crate::ControlError;
use crate::access::{Found, Scoped, right};
use crate::idempotency::Creation;
use crate::projects::LocalProject;
use crate::runs::{DecisionOutcome, LocalFile, NewDecision, NewOutcome, PlannedRun, Run};

pub use agents::AgentStore;
pub use budgets::BudgetStore;
pub use events::EventStore;
pub use hooks::HookStore;
pub use mcp_servers::McpServerStore;
pub use pipelines::PipelineStore;
pub use projects::ProjectStore;
pub use questions::QuestionStore;
pub use schedules::ScheduleStore;
pub use secrets::SecretStore;

/// Keeps projects, pipelines and what people do with runs.
///
/// Each method is one transaction: all of it holds when it returns `Ok`, nothing of it when it errs. After
/// [`ControlError::Unavailable`] it is unknown whether a write took place. Every write takes a [`Scoped`] thing, a
/// [`Caller`] or the [`Operator`](crate::Operator). What a caller finds are the things of accounts: the operator's local projects, and
/// what is in them, are absent to every caller. Dropping a future is safe: the method takes place whole or not at all.
#[async_trait]
pub trait ControlStore:
    PipelineStore
    + ProjectStore
    + AgentStore
    + BudgetStore
    + EventStore
    + ScheduleStore
    + HookStore
    + SecretStore
    + McpServerStore
    + QuestionStore
{
    /// The run, and the caller's role in its project; also if they are not a member.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_run(&self, by: &Caller, run: RunId) -> Result<Option<Found<Run>>, ControlError>;

    /// What became of the request that used this idempotency key for a run in the project; `None` if none did. Never
    /// [`Creation::Created`].
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_repeated_run(
        &self,
        project: &Scoped<ProjectId, right::Run>,
        once: &Once,
    ) -> Result<Option<Creation<Run>>, ControlError>;

    /// Accepts a run with its first journal records: from the answer on, it will reach a terminal state (I4).
    ///
    /// Repeats: safe; the same id, or the same idempotency key with the same digest, is answered with the run that was
    /// accepted before. Of two such requests at once, one is accepted.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] if the project, or the version of the pipeline, is gone: nothing was accepted.
    async fn accept_run(
        &self,
        project: &Scoped<ProjectId, right::Run>,
        run: &PlannedRun,
    ) -> Result<Creation<Run>, ControlError>;

    /// The latest run of the kind `local` that was started of this file in this project.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_local_run(
        &self,
        project: &Scoped<LocalProject, right::Run>,
        file: &LocalFile,
    ) -> Result<Option<Run>, ControlError>;

    /// Requests the cancellation of the run, and answers with the run as it stands then; `None` if it has ended.
    ///
    /// A run that was never claimed ends by this. Else the request reaches its driver. A run that no instance
    /// drives becomes available at once, so that the next claim ends it. Repeats: safe.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] if the run is gone.
    async fn cancel_run(&self, run: &Scoped<Run, right::Run>) -> Result<Option<Run>, ControlError>;

    /// The e-mail of the caller's account; `None` if it is disabled or gone.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_email(&self, by: &Caller) -> Result<Option<Email>, ControlError>;

    /// Records a decision about a node of the run, unless there is one, and has the run take it up. Of two at once, one
    /// stands. Whether the node waits for a decision, the caller of this method knows.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] if the run or the account is gone; nothing was recorded.
    async fn decide_node(
        &self,
        run: &Scoped<Run, right::Run>,
        node: &NodeId,
        decision: &NewDecision,
    ) -> Result<DecisionOutcome, ControlError>;

    /// Records a decision about a node whose end is unknown, and answers with the run, which stays as it ended; `None` if
    /// there is one already. Of two at once, one stands. Whether the node's end is unknown, the caller of this method
    /// knows.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] if the run or the account is gone, or the run has not ended; nothing was recorded.
    async fn decide_outcome(
        &self,
        run: &Scoped<Run, right::Run>,
        node: &NodeId,
        decision: &NewOutcome,
    ) -> Result<Option<Run>, ControlError>;
}
