//! LLM providers and the tool-calling loop.
//!
//! Owns how an agent is described, how its conversation goes on, and how each provider is spoken to. Never knows runs,
//! a database or where keys come from. The loop itself ([`Conversation`]) does no I/O: it says what the next step is,
//! and a [`StepRunner`] does it, so that a durable engine can record each step and replay it.

mod agent;
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
