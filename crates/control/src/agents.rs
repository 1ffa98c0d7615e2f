//! Agents: a role, instructions, a model and tools, in versions.

mod change;
mod chat;
mod define;
mod of_runs;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gathering_agents::AgentDefinition;
use gathering_auth::Caller;
use gathering_domain::{AgentId, Pointer, ProjectId};
use serde_json::Value;

use crate::access::right::{self, Right};
use crate::access::{OfProject, Scoped, visible_to};
use crate::graphs::Graphs;
use crate::projects::ProjectControl;
use crate::runs::RunControl;
use crate::{ControlError, ControlStore, ExpectedRevision};

pub use change::{PlannedAgentChange, PlannedAgentDeletion};
pub use chat::Chat;
pub use define::{DefineAgent, NewAgent};
pub use of_runs::AgentsOfRuns;

/// An agent in its latest version.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// What it is. Its name is not empty.
    pub definition: AgentDefinition,
    /// The latest version, from 1.
    pub version: i32,
    /// When it was created, in UTC.
    pub created_at: DateTime<Utc>,
    /// When it was last changed, in UTC.
    pub updated_at: DateTime<Utc>,
}

impl Agent {
    /// What tells the agent as it stands from every other state of it: every change makes a version.
    pub fn revision(&self) -> String {
        self.version.to_string()
    }

    /// Whether the agent is the expected one.
    fn check_expected(&self, expected: &ExpectedRevision) -> Result<(), ControlError> {
        if expected.includes(&self.revision()) { Ok(()) } else { Err(ControlError::AgentChanged(self.id)) }
    }
}

impl OfProject for Agent {
    fn project(&self) -> ProjectId {
        self.project
    }
}

/// What may be done with agents. Cloning is cheap and shares the store.
#[derive(Clone)]
pub struct AgentControl {
    store: Arc<dyn ControlStore>,
    projects: ProjectControl,
    runs: RunControl,
    graphs: Graphs,
}

impl AgentControl {
    /// The agents of this store, whose chats are runs with these graphs.
    pub fn new(store: Arc<dyn ControlStore>, graphs: Graphs) -> Self {
        let projects = ProjectControl::new(Arc::clone(&store));
        let runs = RunControl::new(Arc::clone(&store), graphs.clone());
        Self { store, projects, runs, graphs }
    }

    /// The agent, if the caller may do `R` with it.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn find<R: Right>(
        &self,
        caller: &Caller,
        agent: AgentId,
    ) -> Result<Scoped<Agent, R>, ControlError> {
        Scoped::check(caller, self.store.find_agent(caller, agent).await?)
    }

    /// The agent as it stands.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn load(&self, caller: &Caller, agent: AgentId) -> Result<Agent, ControlError> {
        Ok(self.find::<right::Read>(caller, agent).await?.into_thing())
    }

    /// At most `limit` of the agents that the caller may see, the newest first; those of one project if it is given.
    /// `before` is the last of the previous page.
    ///
    /// # Errors
    /// [`ControlError::Forbidden`] for an API key without the scope to read, or the store's.
    pub async fn list(
        &self,
        caller: &Caller,
        project: Option<ProjectId>,
        before: Option<AgentId>,
        limit: usize,
    ) -> Result<Vec<Agent>, ControlError> {
        self.store.list_agents(visible_to(caller)?, project, before, limit).await
    }

    /// Reads a definition of an agent of this project.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] with everything that is wrong with it, or the store's.
    async fn read(&self, project: ProjectId, definition: &Value) -> Result<AgentDefinition, ControlError> {
        match self.graphs.read_agent(project, definition).await? {
            Ok(agent) if !agent.name.trim().is_empty() => Ok(agent),
            read => {
                let mut problems = read.err().unwrap_or_default();
                if definition
                    .get("name")
                    .is_none_or(|name| name.as_str().is_some_and(|name| name.trim().is_empty()))
                {
                    problems.add(Pointer::root().join("name"), "is required: 1 to 200 characters");
                }
                Err(ControlError::Invalid(problems))
            }
        }
    }
}
