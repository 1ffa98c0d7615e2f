//! Defining an agent: its first version.

use gathering_agents::AgentDefinition;
use gathering_auth::Caller;
use gathering_domain::{AgentId, KeyedBody, Once, ProjectId};
use serde_json::{Value, json};

use super::{Agent, AgentControl};
use crate::ControlError;
use crate::access::right;

/// What an agent is created with.
#[derive(Debug, Clone, PartialEq)]
pub struct DefineAgent {
    /// The project that it belongs to; the caller's default project if absent.
    pub project: Option<ProjectId>,
    /// What it is, not checked yet.
    pub definition: Value,
    /// The client's idempotency key, with the body that it came with.
    pub once: Option<KeyedBody>,
}

/// An agent that is to be created. Only this crate makes one.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NewAgent {
    /// Its id.
    pub id: AgentId,
    /// What it is in its version 1.
    pub definition: AgentDefinition,
    /// What makes a repeated request the same.
    pub once: Option<Once>,
}

impl AgentControl {
    /// Creates an agent in its version 1.
    ///
    /// Repeats: the same idempotency key and body answer the same agent, as it stands then.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`] for the project; [`ControlError::Invalid`] with
    /// everything that is wrong with the definition, or if no project is named and the caller has no default project;
    /// [`Conflict::KeyReused`] or [`Conflict::CreatedAndDeleted`]. After [`ControlError::Unavailable`] it is unknown
    /// whether the agent was created.
    ///
    /// [`Conflict::KeyReused`]: crate::Conflict::KeyReused
    /// [`Conflict::CreatedAndDeleted`]: crate::Conflict::CreatedAndDeleted
    pub async fn define(&self, caller: &Caller, define: DefineAgent) -> Result<Agent, ControlError> {
        let project = self.projects.find_or_default::<right::Write>(caller, define.project).await?;
        let definition = self.read(*project.thing(), &define.definition).await?;
        let once = define.once.map(|body| body.about(&json!("agent")));
        let new = NewAgent { id: AgentId::new(), definition, once };
        self.store.create_agent(&project, &new).await?.into_result()
    }
}
