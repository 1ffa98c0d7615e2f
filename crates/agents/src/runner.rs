//! Drives a conversation, with somebody else doing the steps.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use gathering_tools::{ToolContext, Toolbox};

use crate::chat::{ChatReply, ChatRequest, ToolCall, ToolResult, Usage};
use crate::conversation::{AgentOutcome, Conversation, Limit, OutOfTurn, Step, StepKey};
use crate::model::{ChatModel, ModelError};

/// Tools of one reply that run at once.
const MAX_PARALLEL_TOOLS: usize = 8;

/// Does the steps of a conversation. A durable engine looks each key up in its journal first, and records what it did.
#[async_trait]
pub trait StepRunner: Sync {
    /// Why a step could not be done. What a tool answers, failures included, is a result and not an error.
    type Error: Send;

    /// Asks the model.
    ///
    /// # Errors
    /// Its own; the agent ends with it.
    async fn call_model(&self, key: &StepKey, request: &ChatRequest) -> Result<ChatReply, Self::Error>;

    /// Calls a tool.
    ///
    /// # Errors
    /// Its own; the agent ends with it once the other tools of the reply have ended, so that none is cut off.
    async fn call_tool(&self, key: &StepKey, call: &ToolCall) -> Result<ToolResult, Self::Error>;
}

/// Why an agent came to no answer.
#[derive(Debug, thiserror::Error)]
pub enum AgentError<E: std::error::Error + 'static> {
    /// A step failed.
    #[error("the agent could not go on at step {key}")]
    Step {
        /// Which.
        key: StepKey,
        /// Why.
        #[source]
        source: E,
    },
    /// The agent met a limit.
    #[error("the agent stopped at its limit {limit} before it was done, having used {} tokens", .usage.total())]
    Stopped {
        /// Which.
        limit: Limit,
        /// What was used until then.
        usage: Usage,
    },
    /// The driver and the conversation disagree, which is a defect.
    #[error(transparent)]
    OutOfTurn(#[from] OutOfTurn),
}

/// Drives `conversation` to its end; the tools of one reply run at once, up to 8.
///
/// The wall-clock limit counts from this call, so an agent that is resumed after a crash has its full time again.
/// Cancel: safe where the runner's steps are; what is not in the runner's journal is lost.
///
/// # Errors
/// [`AgentError`]: a step that failed, or a limit.
pub async fn run_agent<R>(
    mut conversation: Conversation,
    runner: &R,
) -> Result<AgentOutcome, AgentError<R::Error>>
where
    R: StepRunner,
    R::Error: std::error::Error + 'static,
{
    let timeout = conversation.limits().timeout();
    let ended = tokio::time::timeout(timeout, drive(&mut conversation, runner)).await;
    match ended {
        Ok(ended) => ended,
        Err(_) => Err(AgentError::Stopped { limit: Limit::Timeout, usage: conversation.usage() }),
    }
}

async fn drive<R>(conversation: &mut Conversation, runner: &R) -> Result<AgentOutcome, AgentError<R::Error>>
where
    R: StepRunner,
    R::Error: std::error::Error + 'static,
{
    loop {
        match conversation.next() {
            Step::CallModel(key, request) => {
                let reply = runner.call_model(&key, &request).await;
                conversation.after_model(reply.map_err(|source| AgentError::Step { key, source })?)?;
            }
            Step::CallTools(calls) => {
                let results: Vec<_> = stream::iter(calls)
                    .map(|(key, call)| async move {
                        let result = runner.call_tool(&key, &call).await;
                        result.map_err(|source| AgentError::Step { key, source })
                    })
                    .buffered(MAX_PARALLEL_TOOLS)
                    .collect()
                    .await;
                conversation.after_tools(results.into_iter().collect::<Result<_, _>>()?)?;
            }
            Step::Done(outcome) => return Ok(outcome),
            Step::Stopped(limit) => {
                return Err(AgentError::Stopped { limit, usage: conversation.usage() });
            }
        }
    }
}

/// Does each step at once and records nothing.
pub struct DirectRunner {
    model: Arc<dyn ChatModel>,
    tools: Toolbox,
    context: ToolContext,
}

impl DirectRunner {
    /// Asks `model` and calls `tools` in `context`.
    pub fn new(model: Arc<dyn ChatModel>, tools: Toolbox, context: ToolContext) -> Self {
        Self { model, tools, context }
    }
}

#[async_trait]
impl StepRunner for DirectRunner {
    type Error = ModelError;

    async fn call_model(&self, _key: &StepKey, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        self.model.complete(request).await
    }

    /// An unknown tool, bad parameters or a failure is what the model is told, so that it can do better.
    async fn call_tool(&self, key: &StepKey, call: &ToolCall) -> Result<ToolResult, ModelError> {
        let mut context = self.context.clone();
        context.idempotency_key = context.idempotency_key.map(|run| format!("{run}/{key}"));
        Ok(self.tools.call(&call.name, call.arguments.clone(), &context).await.into())
    }
}
