//! Drives a conversation; a runner performs its steps.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use gathering_tools::{ToolContext, Toolbox};

use crate::chat::{ChatReply, ChatRequest, ToolCall, ToolResult, Usage};
use crate::conversation::{AgentOutcome, Conversation, Limit, OutOfTurn, Step, StepKey};
use crate::model::{ChatModel, ModelError};

/// The tools of one reply that run concurrently.
const MAX_PARALLEL_TOOLS: usize = 8;

/// Performs the steps of a conversation. A durable engine looks up each key in its journal first, and records the
/// result.
#[async_trait]
pub trait StepRunner: Sync {
    /// Why a step could not be performed. A tool's failure is a result, not an error.
    type Error: Send;

    /// Calls the model.
    ///
    /// # Errors
    /// The runner's own. An error ends the agent.
    async fn call_model(&self, key: &StepKey, request: &ChatRequest) -> Result<ChatReply, Self::Error>;

    /// Calls a tool.
    ///
    /// # Errors
    /// The runner's own. An error ends the agent after the other tools of the reply have ended, so that none is cut
    /// off.
    async fn call_tool(&self, key: &StepKey, call: &ToolCall) -> Result<ToolResult, Self::Error>;
}

/// Why an agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AgentError<E: std::error::Error + 'static> {
    /// A step failed.
    #[error("the agent failed at step {key}")]
    Step {
        /// The step.
        key: StepKey,
        /// The cause.
        #[source]
        source: E,
    },
    /// The agent reached a limit.
    #[error("the agent reached its limit {limit} before it finished; it used {} tokens", .usage.total())]
    Stopped {
        /// The limit.
        limit: Limit,
        /// The usage until then.
        usage: Usage,
    },
    /// Several answers did not fit the agent's `output_schema`.
    #[error("the answer of the agent does not fit its output_schema: {why}; it used {} tokens", .usage.total())]
    InvalidAnswer {
        /// What is wrong with the last one.
        why: String,
        /// The usage until then.
        usage: Usage,
    },
    /// The driver and the conversation disagree, which is a bug.
    #[error(transparent)]
    OutOfTurn(#[from] OutOfTurn),
}

/// Drives `conversation` to its end. Up to 8 tools of one reply run concurrently.
///
/// The wall-clock limit counts from this call, so an agent that resumes after a crash has its full time again.
/// Cancel: safe if the runner's steps are. What is not in the runner's journal is lost.
///
/// # Errors
/// [`AgentError`]: a failed step, or a limit.
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
            Step::InvalidAnswer(why) => {
                return Err(AgentError::InvalidAnswer { why, usage: conversation.usage() });
            }
            Step::Stopped(limit) => {
                return Err(AgentError::Stopped { limit, usage: conversation.usage() });
            }
        }
    }
}

/// Performs each step directly and records nothing.
pub struct DirectRunner {
    model: Arc<dyn ChatModel>,
    tools: Toolbox,
    context: ToolContext,
}

impl DirectRunner {
    /// Calls `model`, and calls `tools` in `context`.
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

    /// The model receives an unknown tool, invalid parameters or a failure as a result, so that it can correct the
    /// call.
    async fn call_tool(&self, key: &StepKey, call: &ToolCall) -> Result<ToolResult, ModelError> {
        let mut context = self.context.clone();
        context.idempotency_key = context.idempotency_key.map(|run| format!("{run}/{key}"));
        Ok(ToolResult::of(call, self.tools.call(&call.name, call.arguments.clone(), &context).await))
    }
}
