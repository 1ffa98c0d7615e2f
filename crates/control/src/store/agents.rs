//! What is kept of agents and their versions.

use async_trait::async_trait;
use gathering_auth::Caller;
use gathering_domain::{AgentId, ProjectId, RunId, UserId};
use gathering_nodes::AgentVersion;

use crate::access::{Found, Scoped, right};
use crate::agents::{Agent, NewAgent, PlannedAgentChange, PlannedAgentDeletion};
use crate::{ControlError, Creation};

/// Keeps agents and their versions. What [`ControlStore`](crate::ControlStore) says of every method holds here.
#[async_trait]
pub trait AgentStore: Send + Sync + 'static {
    /// The agent in its latest version, and the caller's role in its project; also if they are not a member.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_agent(&self, by: &Caller, agent: AgentId) -> Result<Option<Found<Agent>>, ControlError>;

    /// The agent, if it belongs to this project, in the version that was the latest when the root of the run's tree was
    /// accepted; in its first version if it is younger.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_agent_for_run(
        &self,
        project: ProjectId,
        agent: AgentId,
        run: RunId,
    ) -> Result<Option<AgentVersion>, ControlError>;

    /// At most `limit` agents of accounts, the newest first: those in the projects of this member (absent: all), in this
    /// project (absent: in any), and older than `before`.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_agents(
        &self,
        visible_to: Option<UserId>,
        project: Option<ProjectId>,
        before: Option<AgentId>,
        limit: usize,
    ) -> Result<Vec<Agent>, ControlError>;

    /// Creates an agent in its version 1.
    ///
    /// With `new.once` and a caller it creates one agent: a repeated request is answered with that one, for at least 24
    /// hours. Of several such requests at once, one creates an agent.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] if the project is gone; nothing was created.
    async fn create_agent(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        new: &NewAgent,
    ) -> Result<Creation<Agent>, ControlError>;

    /// Changes the agent to what [`PlannedAgentChange::of`] makes of it under a lock. Sets `updated_at` to the store's time
    /// if anything is changed, and records the caller as the author of a new version.
    ///
    /// # Errors
    /// Those of [`PlannedAgentChange::of`]; [`ControlError::NotFound`] if the agent is gone. Nothing was changed.
    async fn change_agent(
        &self,
        agent: &Scoped<Agent, right::Write>,
        change: &PlannedAgentChange,
    ) -> Result<Agent, ControlError>;

    /// Deletes the agent with its versions if [`PlannedAgentDeletion::permitted`] says so, under a lock.
    ///
    /// # Errors
    /// Those of [`PlannedAgentDeletion::permitted`]; [`ControlError::NotFound`] if the agent is gone. Nothing was deleted.
    async fn delete_agent(
        &self,
        agent: &Scoped<Agent, right::Write>,
        deletion: &PlannedAgentDeletion,
    ) -> Result<(), ControlError>;
}
