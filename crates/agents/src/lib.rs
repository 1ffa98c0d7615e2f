//! LLM providers and the tool-calling loop.
//!
//! Owns how an agent is described, how its conversation continues, and the protocols of providers. Never knows runs, a
//! database or the source of keys. The loop ([`Conversation`]) does no I/O: it names the next step, and a
//! [`StepRunner`] performs it, so a durable engine can record and replay each step.

mod agent;
mod answer;
mod chat;
mod conversation;
mod model;
mod openai;
mod providers;
mod runner;
mod scripted;

pub use agent::{AgentDefinition, AgentLimits};
pub use chat::{ChatReply, ChatRequest, FinishReason, Message, ToolCall, ToolDescription, ToolResult, Usage};
pub use conversation::{AgentOutcome, Conversation, Limit, OutOfTurn, Step, StepKey, StepRecord};
pub use model::{ChatModel, ModelError};
pub use openai::OpenAiCompatible;
pub use providers::{ProviderError, Providers};
pub use runner::{AgentError, DirectRunner, StepRunner, run_agent};
pub use scripted::Scripted;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
