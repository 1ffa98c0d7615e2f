//! Changing and deleting an agent, if it is still the one that the caller saw.

use gathering_agents::AgentDefinition;
use gathering_auth::Caller;
use gathering_domain::AgentId;
use serde_json::{Map, Value};

use super::{Agent, AgentControl};
use crate::access::right;
use crate::{ControlError, ExpectedRevision};

/// How often a change is made of an agent that somebody else changed meanwhile.
const ATTEMPTS: usize = 5;

/// A change that is to be made. Only this crate makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedAgentChange {
    /// The version that it was made of.
    of_version: i32,
    definition: AgentDefinition,
}

impl PlannedAgentChange {
    /// The agent as the change leaves it, with `updated_at` as before: the store's clock decides that. Another definition
    /// makes a new version; where nothing changes, the agent is the same.
    ///
    /// # Errors
    /// [`ControlError::Outdated`] if somebody else changed it since the change was planned.
    pub fn of(&self, before: &Agent) -> Result<Agent, ControlError> {
        if before.version != self.of_version {
            return Err(ControlError::Outdated);
        }
        let mut after = before.clone();
        if self.definition != before.definition {
            after.definition.clone_from(&self.definition);
            after.version = before.version.saturating_add(1);
        }
        Ok(after)
    }
}

/// A deletion that is to be made. Only this crate makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedAgentDeletion {
    expected: ExpectedRevision,
}

impl PlannedAgentDeletion {
    /// Whether the agent may be deleted as it stands.
    ///
    /// # Errors
    /// [`ControlError::AgentChanged`] if it is not the expected one.
    pub fn permitted(&self, agent: &Agent) -> Result<(), ControlError> {
        agent.check_expected(&self.expected)
    }
}

impl AgentControl {
    /// Changes an agent if it is the expected one: the fields that are given replace its own, and null takes one away. That
    /// makes a new version; runs keep theirs. Where everything is as requested already, nothing is written.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`]; [`ControlError::Invalid`] with everything that would be
    /// wrong; [`ControlError::AgentChanged`]. After [`ControlError::Unavailable`] it is unknown whether it is changed.
    pub async fn change(
        &self,
        caller: &Caller,
        agent: AgentId,
        expected: &ExpectedRevision,
        fields: &Map<String, Value>,
    ) -> Result<Agent, ControlError> {
        let mut attempts = ATTEMPTS;
        loop {
            let found = self.find::<right::Write>(caller, agent).await?;
            found.check_expected(expected)?;
            let definition = self.read(found.project, &merged(&found.definition, fields)?).await?;
            let change = PlannedAgentChange { of_version: found.version, definition };
            attempts -= 1;
            match self.store.change_agent(&found, &change).await {
                Err(ControlError::Outdated) if attempts > 0 => {}
                changed => return changed,
            }
        }
    }

    /// Deletes an agent with its versions if it is the expected one. An attempt that found it goes on with it; nodes that
    /// begin later fail as `no_agent`.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`]; [`ControlError::AgentChanged`]. After
    /// [`ControlError::Unavailable`] it is unknown whether it is deleted.
    pub async fn delete(
        &self,
        caller: &Caller,
        agent: AgentId,
        expected: ExpectedRevision,
    ) -> Result<(), ControlError> {
        let found = self.find::<right::Write>(caller, agent).await?;
        self.store.delete_agent(&found, &PlannedAgentDeletion { expected }).await
    }
}

/// A definition with some fields replaced, and those that are null taken away.
fn merged(definition: &AgentDefinition, fields: &Map<String, Value>) -> Result<Value, ControlError> {
    let mut merged = serde_json::to_value(definition).map_err(|error| ControlError::Broken(error.into()))?;
    if let Some(object) = merged.as_object_mut() {
        object.extend(fields.clone());
        object.retain(|_, value| !value.is_null());
    }
    Ok(merged)
}
