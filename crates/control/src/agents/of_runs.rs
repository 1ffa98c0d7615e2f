//! The agents that nodes of runs ask for.

use std::sync::Arc;

use async_trait::async_trait;
use gathering_dag_engine::StoreError;
use gathering_domain::{AgentId, ProjectId, RunId};
use gathering_nodes::{AgentVersion, StoredAgents};

use crate::{ControlError, ControlStore};

/// The agents for nodes: those of the project that their own run belongs to. Cloning is cheap.
#[derive(Clone)]
pub struct AgentsOfRuns {
    store: Arc<dyn ControlStore>,
}

impl AgentsOfRuns {
    /// The agents of this store.
    pub fn new(store: Arc<dyn ControlStore>) -> Self {
        Self { store }
    }
}

#[async_trait]
impl StoredAgents for AgentsOfRuns {
    async fn find_for_run(
        &self,
        project: ProjectId,
        agent: AgentId,
        run: RunId,
    ) -> Result<Option<AgentVersion>, StoreError> {
        let found = self.store.find_agent_for_run(project, agent, run).await;
        found.map_err(ControlError::into_store_error)
    }
}
