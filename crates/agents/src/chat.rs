//! What is said to a model and what it answers, in no provider's dialect.
//!
//! Everything here can be written to a journal and read back.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use gathering_tools::{ToolError, ToolSpec};

/// One call of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The model's name, as its provider knows it.
    pub model: String,
    /// What the model is and how it shall act; empty for nothing.
    pub system: String,
    /// The conversation so far, oldest first.
    pub messages: Vec<Message>,
    /// The tools that the model may ask for.
    pub tools: Vec<ToolDescription>,
    /// How much chance there is in the answer; the provider's choice when absent.
    pub temperature: Option<f64>,
    /// How many tokens the answer may have; the provider's choice when absent.
    pub max_tokens: Option<u64>,
}

impl ChatRequest {
    /// As many tokens as every provider lets an answer have.
    pub const ANSWER_TOKENS: u64 = 4096;

    /// The same, with a limit to the answer if it has none.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.max_tokens.get_or_insert(Self::ANSWER_TOKENS);
        self
    }

    /// The most tokens that the call can use once it is [bounded](ChatRequest::bounded): no token is shorter than a byte,
    /// and what a provider adds around a message is shorter than its JSON.
    pub fn worst_usage(&self) -> Usage {
        let size = serde_json::to_vec(self).map_or(u64::MAX, |json| json.len() as u64);
        Usage { input_tokens: size, output_tokens: self.max_tokens.unwrap_or(Self::ANSWER_TOKENS) }
    }
}

/// A part of the conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Message {
    /// From the one who asks.
    User {
        /// What was said.
        content: String,
    },
    /// From the model.
    Assistant {
        /// What it said; empty when it only asked for tools.
        content: String,
        /// The tools that it asked for.
        tool_calls: Vec<ToolCall>,
    },
    /// What a tool answered.
    Tool {
        /// The call that it answers.
        call_id: String,
        /// The answer.
        result: ToolResult,
    },
}

/// A tool as a model sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolDescription {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// The JSON Schema of its parameters.
    pub parameters: Value,
}

impl From<&ToolSpec> for ToolDescription {
    fn from(spec: &ToolSpec) -> Self {
        Self {
            name: spec.name.clone(),
            description: spec.description.clone(),
            parameters: spec.parameters.clone(),
        }
    }
}

/// A model's wish to use a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The provider's name for the call, which the result refers to.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its parameters; a text where the model wrote no JSON, which no schema takes.
    pub arguments: Value,
}

/// What a tool answered, as the model is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    /// The answer, or what is wrong.
    pub content: Value,
    /// Whether the call failed.
    pub is_error: bool,
}

impl ToolResult {
    /// A result that the tool gave.
    pub const fn success(content: Value) -> Self {
        Self { content, is_error: false }
    }

    /// A failure in words for the model.
    pub fn failure(kind: &str, message: &str) -> Self {
        Self { content: json!({"error": {"kind": kind, "message": message}}), is_error: true }
    }
}

impl From<Result<Value, ToolError>> for ToolResult {
    fn from(ended: Result<Value, ToolError>) -> Self {
        match ended {
            Ok(content) => Self::success(content),
            Err(error) => Self::failure(error.kind(), &error.to_string()),
        }
    }
}

/// A model's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatReply {
    /// What it said; empty when it only asks for tools.
    pub content: String,
    /// The tools that it asks for.
    pub tool_calls: Vec<ToolCall>,
    /// What the call used.
    pub usage: Usage,
    /// Why it stopped.
    pub finish_reason: FinishReason,
    /// The provider that answered, such as `openai` or `scripted`.
    pub provider: String,
    /// The model that answered, as the provider names it.
    pub model: String,
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// It was done.
    Stop,
    /// It wants tools.
    ToolCalls,
    /// It met the limit of tokens: the answer is cut off.
    Length,
    /// The provider withheld the answer.
    Refused,
    /// Something else.
    Other,
}

/// Tokens used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens that were read.
    pub input_tokens: u64,
    /// Tokens that were written.
    pub output_tokens: u64,
}

impl Usage {
    /// Both together.
    pub const fn total(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// This and `other`.
    #[must_use]
    pub const fn plus(self, other: Usage) -> Usage {
        Usage {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
        }
    }
}
