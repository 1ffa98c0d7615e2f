//! The port to stored agents.

use async_trait::async_trait;
use gathering_agents::AgentDefinition;
use gathering_dag_engine::StoreError;
use gathering_domain::{AgentId, ProjectId, RunId};
use serde::{Deserialize, Serialize};

/// One version of a stored agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentVersion {
    /// Its number, from 1.
    pub version: i32,
    /// What the agent is in this version.
    pub definition: AgentDefinition,
}

/// Where the agents of projects are stored.
#[async_trait]
pub trait StoredAgents: Send + Sync + 'static {
    /// The agent as it was when the tree of this run was accepted, so that all nodes of a run have the same one; in its
    /// first version if it is younger. `None`: the project has no such agent.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn find_for_run(
        &self,
        project: ProjectId,
        agent: AgentId,
        run: RunId,
    ) -> Result<Option<AgentVersion>, StoreError>;
}

/// Projects without stored agents.
#[derive(Debug, Clone, Copy)]
pub struct NoStoredAgents;

#[async_trait]
impl StoredAgents for NoStoredAgents {
    async fn find_for_run(
        &self,
        _project: ProjectId,
        _agent: AgentId,
        _run: RunId,
    ) -> Result<Option<AgentVersion>, StoreError> {
        Ok(None)
    }
}
