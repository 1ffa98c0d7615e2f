//! The tool-calling loop as a state machine.
//!
//! Owns the next step of an agent. Never knows time, a network or a tool: the same replies and results lead to the same
//! steps with the same keys, so a recorded conversation can be replayed.

use std::fmt;

use gathering_domain::FailureKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::agent::{AgentDefinition, AgentLimits};
use crate::answer;
use crate::chat::{
    ChatReply, ChatRequest, FinishReason, Message, ToolCall, ToolDescription, ToolResult, Usage,
};

/// After so many answers that do not fit its schema an agent has failed; after each one before, its model hears what was
/// wrong.
const MAX_INVALID_ANSWERS: u32 = 3;

/// The conversation of one prompt with the model and its tools.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    model: String,
    system: String,
    temperature: Option<f64>,
    tools: Vec<ToolDescription>,
    output_schema: Option<Value>,
    limits: AgentLimits,
    messages: Vec<Message>,
    n_model_calls: u32,
    n_tool_calls: u32,
    n_invalid_answers: u32,
    usage: Usage,
    steps: Vec<StepRecord>,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Model,
    Tools(Vec<ToolCall>),
    /// With the value that the answer is, if the agent has a schema for it.
    Ended(ChatReply, Option<Value>),
    /// With what is wrong with the last answer.
    Invalid(String),
}

/// The next step.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Call the model, then pass its reply to [`Conversation::after_model`].
    CallModel(StepKey, ChatRequest),
    /// Call these tools, in any order or concurrently, then pass their results, in this order, to
    /// [`Conversation::after_tools`].
    CallTools(Vec<(StepKey, ToolCall)>),
    /// Nothing: the agent has finished.
    Done(AgentOutcome),
    /// Nothing: the agent reached a limit before it finished.
    Stopped(Limit),
    /// Nothing: several answers did not fit the agent's schema; this is wrong with the last one.
    InvalidAnswer(String),
}

/// The key of a step in its conversation: `model/1`, `tool/1/0` (the first tool of the first reply). A step has the
/// same key in every replay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepKey(String);

impl StepKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The place of a tool call in its conversation: the number of the reply that asks for it, from 1, and its place in
    /// that reply, from 0. `None` for a model call.
    pub fn tool_call_place(&self) -> Option<(u32, u32)> {
        let (reply, index) = self.0.strip_prefix("tool/")?.split_once('/')?;
        Some((reply.parse().ok()?, index.parse().ok()?))
    }
}

impl fmt::Display for StepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A limit of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Model calls.
    Steps,
    /// Tokens.
    Tokens,
    /// Tool calls.
    ToolCalls,
    /// Wall-clock time.
    Timeout,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::Steps => "max_steps",
            Limit::Tokens => "max_tokens",
            Limit::ToolCalls => "max_tool_calls",
            Limit::Timeout => "timeout_seconds",
        })
    }
}

/// The result of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentOutcome {
    /// Its answer.
    pub content: String,
    /// The value that the answer is, which fits the agent's `output_schema`; absent without one, and for a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// The steps that led to it.
    pub steps: Vec<StepRecord>,
    /// The usage of all model calls.
    pub usage: Usage,
    /// The provider that answered; `scripted` is not a model.
    pub provider: String,
    /// The model that answered.
    pub model: String,
    /// Why the last answer ended; `length` means that it was cut off.
    pub finish_reason: FinishReason,
}

/// A completed step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StepRecord {
    /// A model call.
    Model {
        /// Its key.
        key: StepKey,
        /// The content of the reply.
        content: String,
        /// The usage.
        usage: Usage,
    },
    /// A tool call.
    Tool {
        /// Its key.
        key: StepKey,
        /// The tool.
        tool: String,
        /// The parameters.
        arguments: Value,
        /// The result.
        output: Value,
        /// Whether it failed.
        is_error: bool,
    },
}

/// A reply or results out of turn; the conversation is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the conversation does not expect {0}")]
pub struct OutOfTurn(&'static str);

impl Conversation {
    /// A conversation that starts with `prompt`.
    pub fn new(agent: &AgentDefinition, tools: Vec<ToolDescription>, prompt: impl Into<String>) -> Self {
        Self {
            model: agent.model.clone(),
            system: agent.system_prompt(),
            temperature: agent.temperature,
            tools,
            output_schema: agent.output_schema.clone(),
            limits: agent.limits,
            messages: vec![Message::User { content: prompt.into() }],
            n_model_calls: 0,
            n_tool_calls: 0,
            n_invalid_answers: 0,
            usage: Usage::default(),
            steps: Vec::new(),
            phase: Phase::Model,
        }
    }

    /// The next step. Repeated calls return the same step.
    pub fn next(&self) -> Step {
        match &self.phase {
            Phase::Ended(reply, output) => Step::Done(self.outcome(reply, output.clone())),
            Phase::Invalid(why) => Step::InvalidAnswer(why.clone()),
            Phase::Tools(calls) => self.next_tools(calls),
            Phase::Model => self.next_model(),
        }
    }

    fn next_model(&self) -> Step {
        let left = self.limits.max_tokens.saturating_sub(self.usage.total());
        if self.n_model_calls >= self.limits.max_steps {
            return Step::Stopped(Limit::Steps);
        }
        if left == 0 {
            return Step::Stopped(Limit::Tokens);
        }
        // Near the end of the token budget, an answer is cut to what is left. Before that the provider bounds it, because
        // some reject a number above theirs: unless the agent says what is right for its model.
        let bound = self.limits.max_answer_tokens;
        // Where only the form of an answer is wrong, no tool is needed: a server without tools keeps to the schema.
        let tools = if self.n_invalid_answers == 0 { self.tools.clone() } else { Vec::new() };
        let request = ChatRequest {
            model: self.model.clone(),
            system: self.system.clone(),
            messages: self.messages.clone(),
            tools,
            temperature: self.temperature,
            output_schema: self.output_schema.clone(),
            max_tokens: match bound {
                Some(bound) => Some(bound.min(left)),
                None => (left < ChatRequest::ANSWER_TOKENS).then_some(left),
            },
        };
        Step::CallModel(StepKey(format!("model/{}", self.n_model_calls + 1)), request)
    }

    fn next_tools(&self, calls: &[ToolCall]) -> Step {
        if self.n_tool_calls as usize + calls.len() > self.limits.max_tool_calls as usize {
            return Step::Stopped(Limit::ToolCalls);
        }
        let keyed = calls.iter().enumerate().map(|(index, call)| (self.tool_key(index), call.clone()));
        Step::CallTools(keyed.collect())
    }

    /// A provider may repeat its call ids, so the position in the reply identifies the step.
    fn tool_key(&self, index: usize) -> StepKey {
        StepKey(format!("tool/{}/{index}", self.n_model_calls))
    }

    /// Continues with the model's reply.
    ///
    /// # Errors
    /// [`OutOfTurn`] if the model was not the next step.
    pub fn after_model(&mut self, reply: ChatReply) -> Result<(), OutOfTurn> {
        if self.phase != Phase::Model {
            return Err(OutOfTurn("a reply of the model"));
        }
        self.n_model_calls += 1;
        self.usage = self.usage.plus(reply.usage);
        self.steps.push(StepRecord::Model {
            key: StepKey(format!("model/{}", self.n_model_calls)),
            content: reply.content.clone(),
            usage: reply.usage,
        });
        self.messages.push(Message::Assistant {
            content: reply.content.clone(),
            tool_calls: reply.tool_calls.clone(),
        });
        self.phase = match reply.finish_reason {
            // What the provider withheld is no answer, and so are its calls.
            FinishReason::Refused => Phase::Ended(reply, None),
            _ if reply.tool_calls.is_empty() => self.judge(reply),
            // The last one may be cut in the middle, and still be JSON.
            FinishReason::Length => return self.refuse_cut_calls(reply.tool_calls),
            _ => Phase::Tools(reply.tool_calls),
        };
        Ok(())
    }

    /// What follows from an answer without calls: the end, or another try if it does not fit the schema.
    fn judge(&mut self, reply: ChatReply) -> Phase {
        let Some(schema) = &self.output_schema else { return Phase::Ended(reply, None) };
        let why = match answer::read(&reply.content, schema) {
            Ok(output) => return Phase::Ended(reply, Some(output)),
            Err(why) if reply.finish_reason == FinishReason::Length => format!("it was cut off, and {why}"),
            Err(why) => why,
        };
        self.n_invalid_answers += 1;
        if self.n_invalid_answers >= MAX_INVALID_ANSWERS {
            return Phase::Invalid(why);
        }
        let content =
            format!("The answer is invalid: {why}. Answer again, only with JSON that fits the schema.");
        self.messages.push(Message::User { content });
        Phase::Model
    }

    /// The model hears that none of its calls was executed. They count as calls, so that it does not go on for ever.
    fn refuse_cut_calls(&mut self, calls: Vec<ToolCall>) -> Result<(), OutOfTurn> {
        let refused = |_: &ToolCall| {
            ToolResult::failure(
                &FailureKind::InvalidParameters,
                "the reply reached its limit of tokens, so this call was not executed: send a shorter one",
            )
        };
        let results: Vec<ToolResult> = calls.iter().map(refused).collect();
        let is_allowed = self.n_tool_calls as usize + calls.len() <= self.limits.max_tool_calls as usize;
        self.phase = Phase::Tools(calls);
        if is_allowed { self.after_tools(results) } else { Ok(()) }
    }

    /// Continues with the tools' results, one for each call, in the order of the calls.
    ///
    /// # Errors
    /// [`OutOfTurn`] if tools were not the next step, or if the number of results differs.
    pub fn after_tools(&mut self, results: Vec<ToolResult>) -> Result<(), OutOfTurn> {
        let calls = match &self.phase {
            Phase::Tools(calls) if calls.len() == results.len() => calls.clone(),
            _ => return Err(OutOfTurn("these tool results")),
        };
        for (index, (call, result)) in calls.into_iter().zip(results).enumerate() {
            self.n_tool_calls += 1;
            self.steps.push(StepRecord::Tool {
                key: self.tool_key(index),
                tool: call.name,
                arguments: call.arguments,
                output: result.content.clone(),
                is_error: result.is_error,
            });
            self.messages.push(Message::Tool { call_id: call.id, result });
        }
        self.phase = Phase::Model;
        Ok(())
    }

    /// The usage of all model calls so far.
    pub const fn usage(&self) -> Usage {
        self.usage
    }

    /// The limits of the agent.
    pub const fn limits(&self) -> &AgentLimits {
        &self.limits
    }

    fn outcome(&self, reply: &ChatReply, output: Option<Value>) -> AgentOutcome {
        AgentOutcome {
            content: reply.content.clone(),
            output,
            steps: self.steps.clone(),
            usage: self.usage,
            provider: reply.provider.clone(),
            model: reply.model.clone(),
            finish_reason: reply.finish_reason,
        }
    }
}
