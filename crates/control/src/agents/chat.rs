//! Chatting with an agent: each message is a run of its own.

use std::time::Duration;

use gathering_auth::Caller;
use gathering_dag_engine::NodeFailure;
use gathering_domain::{AgentId, KeyedBody, NodeId, RunId};
use serde_json::{Value, json};

use super::AgentControl;
use crate::ControlError;
use crate::access::right;
use crate::runs::{PlannedRun, Run, StartRun, StartedBy};

/// The only node of the run of a message.
const REPLY: &str = "reply";

/// A message to an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Chat {
    /// The message. It is data: an expression in it is not evaluated.
    pub message: String,
    /// How long the run may take; without a limit if absent.
    pub timeout: Option<Duration>,
    /// The client's idempotency key, with the body that it came with.
    pub once: Option<KeyedBody>,
}

impl AgentControl {
    /// Starts a run that is the agent's reply to a message. Its output is that of an `agent` node.
    ///
    /// Repeats: the same idempotency key and body answer the same run.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`]; [`crate::Conflict::KeyReused`]. After
    /// [`ControlError::Unavailable`] it is unknown whether the run was accepted.
    pub async fn chat(&self, caller: &Caller, agent: AgentId, chat: Chat) -> Result<Run, ControlError> {
        let found = self.find::<right::Run>(caller, agent).await?;
        let project = found.in_project();
        let Chat { message, timeout, once } = chat;
        let once = once.map(|body| body.about(&json!({ "agent": agent })));
        if let Some(run) = self.runs.find_repeated(&project, once.as_ref()).await? {
            return Ok(run);
        }
        let graph = self.graphs.ensure(&definition(agent)).await?;
        let by = StartedBy::Agent { user: caller.user, agent };
        let start = StartRun { input: json!({ "message": message }), ..StartRun::default() };
        let planned = PlannedRun { once, ..PlannedRun::new(by, graph, timeout, start) };
        self.runs.accept(&project, &planned).await
    }

    /// Why the reply of a run failed; `None` if it did not, or the run ended before it. The caller must be allowed to read
    /// the run.
    ///
    /// # Errors
    /// The store's.
    pub async fn find_failure(&self, run: RunId) -> Result<Option<NodeFailure>, ControlError> {
        let node: NodeId = REPLY.parse().map_err(|invalid| ControlError::Broken(Box::new(invalid)))?;
        self.runs.find_failure(run, &node).await
    }
}

/// The definition of every chat with an agent: the same for all messages, so that it is stored once.
fn definition(agent: AgentId) -> Value {
    json!({
        "nodes": [{"id": REPLY, "type": "agent", "config": {"agent_id": agent, "prompt": "${{ input.message }}"}}],
        "output": format!("nodes.{REPLY}.output"),
    })
}
