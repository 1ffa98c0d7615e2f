//! Who the agent of an attempt is: written in its config, or stored.

use gathering_agents::AgentDefinition;
use gathering_dag_engine::{ActFailed, Attempt, EffectClass, NodeFailure, retry_while_unavailable};
use gathering_domain::{AgentId, FailureKind};
use serde_json::{Value, json};

use super::steps::{from_json, to_json};
use crate::stored_agents::{AgentVersion, StoredAgents};

/// The key of the effect that finds a stored agent.
const EFFECT: &str = "agent";

/// The agent of an attempt.
pub(super) struct AttemptAgent {
    pub(super) definition: AgentDefinition,
    /// Its id and version, if it is stored.
    stored: Option<(AgentId, i32)>,
}

impl AttemptAgent {
    /// The agent of this attempt. A stored one is recorded when it is found: an attempt that goes on after a crash, or
    /// after a wait, has the same one, whatever became of it since. A rerun finds it anew.
    ///
    /// # Errors
    /// `config`; `no_agent`, which no retry helps; or what the store fails with.
    pub(super) async fn of(attempt: &Attempt, agents: &dyn StoredAgents) -> Result<Self, NodeFailure> {
        let invalid = |message: String| NodeFailure::permanent(FailureKind::Config, message);
        let Some(id) = attempt.config.get("agent_id") else {
            let definition = AgentDefinition::parse(&attempt.config["agent"]);
            let definition =
                definition.map_err(|problems| invalid(format!("`agent` is invalid: {problems}")))?;
            return Ok(Self { definition, stored: None });
        };
        let id: AgentId = id
            .as_str()
            .unwrap_or_default()
            .parse()
            .map_err(|error| invalid(format!("`agent_id` is invalid: {error}")))?;
        let find = || async move {
            let found =
                retry_while_unavailable(|| agents.find_for_run(attempt.project, id, attempt.run)).await;
            let found = found.map_err(ActFailed::before_it_took_place)?.ok_or_else(|| {
                let message = format!("this project has no agent {id}");
                ActFailed::before_it_took_place(NodeFailure::permanent(FailureKind::NoAgent, message))
            })?;
            Ok(to_json(&found)?)
        };
        let request = json!({"agent_id": id, "run_id": attempt.run});
        let found = attempt.effects.once(EFFECT, EffectClass::Pure, &request, find).await?;
        let AgentVersion { version, definition } = from_json(found)?;
        Ok(Self { definition, stored: Some((id, version)) })
    }

    /// The output of the node, which says who answered if the agent is stored.
    pub(super) fn output(&self, mut outcome: Value) -> Value {
        if let (Some((id, version)), Some(fields)) = (self.stored, outcome.as_object_mut()) {
            fields.insert("agent_id".to_owned(), json!(id));
            fields.insert("agent_version".to_owned(), json!(version));
        }
        outcome
    }
}
