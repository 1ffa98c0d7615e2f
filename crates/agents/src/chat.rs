//! Requests to a model and its replies, independent of any provider's protocol.
//!
//! All types can be written to a journal and read back.

use gathering_domain::FailureKind;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use gathering_tools::{ToolError, ToolSpec};

/// A model call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The model's name, as its provider knows it.
    pub model: String,
    /// The system prompt; empty for none.
    pub system: String,
    /// The conversation so far, oldest first.
    pub messages: Vec<Message>,
    /// The tools that the model may call.
    pub tools: Vec<ToolDescription>,
    /// The randomness of the answer; the provider's default if absent.
    pub temperature: Option<f64>,
    /// The longest answer in tokens; if absent, the provider bounds it.
    pub max_tokens: Option<u64>,
    /// The JSON Schema of the answer, if it is to be a value. A provider may not keep to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
}

impl ChatRequest {
    /// The longest answer that nearly every provider allows, in tokens.
    pub const ANSWER_TOKENS: u64 = 4096;

    /// The same request, with a limit to the answer if it has none.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.max_tokens.get_or_insert(Self::ANSWER_TOKENS);
        self
    }

    /// The most tokens that the call can use once it is [bounded](ChatRequest::bounded). A token has at least one byte,
    /// and a provider adds less to a message than its JSON does. It may be told the schema of the answer twice.
    pub fn worst_usage(&self) -> Usage {
        let size = serde_json::to_vec(self).map_or(u64::MAX, |json| json.len() as u64);
        let schema = self.output_schema.as_ref().map_or(0, |schema| schema.to_string().len() as u64);
        Usage {
            input_tokens: size.saturating_add(schema),
            output_tokens: self.max_tokens.unwrap_or(Self::ANSWER_TOKENS),
        }
    }
}

/// A message of the conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Message {
    /// From the user.
    User {
        /// The text.
        content: String,
    },
    /// From the model.
    Assistant {
        /// The text; empty if the model only called tools.
        content: String,
        /// The tool calls.
        tool_calls: Vec<ToolCall>,
    },
    /// A tool's result.
    Tool {
        /// The id of the call.
        call_id: String,
        /// The result.
        result: ToolResult,
    },
}

/// A tool as the model sees it.
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

/// A tool call that a model requested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The provider's id of the call, to which the result refers.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The parameters. If the model wrote no JSON, or a JSON text, what it wrote as a text, which every schema rejects.
    pub arguments: Value,
}

impl ToolCall {
    /// Why the arguments are not JSON, and where.
    fn syntax_error(&self) -> Option<String> {
        let error = serde_json::from_str::<IgnoredAny>(self.arguments.as_str()?).err()?;
        Some(format!("the arguments are not JSON: {error}"))
    }
}

/// The result of a tool call, for the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    /// The result, or the error.
    pub content: Value,
    /// Whether the call failed.
    pub is_error: bool,
}

impl ToolResult {
    /// The result of a successful call.
    pub const fn success(content: Value) -> Self {
        Self { content, is_error: false }
    }

    /// A failure, in words for the model.
    pub fn failure(kind: &FailureKind, message: &str) -> Self {
        Self { content: json!({"error": {"kind": kind, "message": message}}), is_error: true }
    }

    /// The end of this call. The model also hears where arguments are no JSON, which no schema can tell.
    pub fn of(call: &ToolCall, ended: Result<Value, ToolError>) -> Self {
        let error = match ended {
            Ok(content) => return Self::success(content),
            Err(error) => error,
        };
        let syntax = match error {
            ToolError::InvalidParameters(_) => call.syntax_error(),
            _ => None,
        };
        let words: Vec<String> = [error.to_string()].into_iter().chain(syntax).collect();
        Self::failure(&error.kind(), &words.join("; "))
    }
}

/// A model's reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatReply {
    /// The text; empty if it only calls tools.
    pub content: String,
    /// The tool calls.
    pub tool_calls: Vec<ToolCall>,
    /// The usage of the call.
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
    /// The answer is complete.
    Stop,
    /// The model calls tools.
    ToolCalls,
    /// It reached the limit of tokens, and the answer is cut off. Calls of tools in it are not executed.
    Length,
    /// The provider withheld the answer.
    Refused,
    /// Something else.
    Other,
}

/// Token usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Input tokens.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
}

impl Usage {
    /// The sum of both.
    pub const fn total(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// The sum of this and `other`.
    #[must_use]
    pub const fn plus(self, other: Usage) -> Usage {
        Usage {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
        }
    }
}
