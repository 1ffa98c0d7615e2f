//! What is offered: tools, the results of their calls, tasks, resources.

use chrono::{DateTime, Utc};
use gathering_domain::EffectClass;
use serde_json::Value;

/// A tool that clients may call.
#[derive(Debug, Clone, PartialEq)]
pub struct OfferedTool {
    /// Its name: 1 to 64 characters of `a-z A-Z 0-9 _ -`, as model providers require.
    pub name: String,
    /// A name for people.
    pub title: Option<String>,
    /// What it does and when to use it, for models.
    pub description: String,
    /// The JSON Schema of its arguments: of an object.
    pub input_schema: Value,
    /// What a repeated call may do.
    pub class: EffectClass,
    /// Whether a call may become a task.
    pub may_be_task: bool,
}

/// A page of tools.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OfferedToolPage {
    /// The tools.
    pub tools: Vec<OfferedTool>,
    /// Leads to the next page, if there is one.
    pub next_cursor: Option<String>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct OfferedCall {
    /// The name of the tool.
    pub tool: String,
    /// Its arguments.
    pub arguments: Value,
    /// Whether the client follows a task.
    pub may_be_task: bool,
}

/// What a tool answers.
#[derive(Debug, Clone, PartialEq)]
pub struct OfferedResult {
    /// Any JSON; a text is shown as it is.
    pub output: Value,
    /// Whether the call failed. The output then says why.
    pub is_error: bool,
}

impl OfferedResult {
    /// The output of a call that succeeded.
    pub const fn of(output: Value) -> Self {
        Self { output, is_error: false }
    }

    /// Why a call failed, for the model.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { output: Value::String(message.into()), is_error: true }
    }
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Called {
    /// It has ended.
    Ended(OfferedResult),
    /// It goes on as a task. Only for clients that follow tasks.
    Task(OfferedTask),
}

/// Work that outlives the request that started it.
#[derive(Debug, Clone, PartialEq)]
pub struct OfferedTask {
    /// Its id.
    pub id: String,
    /// Its state.
    pub state: TaskState,
    /// The state in words, for people.
    pub message: Option<String>,
    /// When it began, in UTC.
    pub created_at: DateTime<Utc>,
    /// When it last changed, in UTC.
    pub updated_at: DateTime<Utc>,
}

/// The state of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskState {
    /// It goes on.
    Working,
    /// It waits for answers of a person.
    InputRequired(Vec<TaskQuestion>),
    /// It has ended.
    Ended(OfferedResult),
    /// It was cancelled.
    Cancelled,
}

/// A question of a task: whether to approve something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskQuestion {
    /// What an answer refers to, unique in the task.
    pub key: String,
    /// What is to be approved.
    pub message: String,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskAnswer {
    /// The key of the question.
    pub key: String,
    /// Whether it is approved.
    pub approve: bool,
    /// What the person adds.
    pub comment: Option<String>,
}

/// The form of the addresses of some resources (RFC 6570).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceTemplate {
    /// The form.
    pub uri_template: &'static str,
    /// A short name.
    pub name: &'static str,
    /// What is at such an address.
    pub description: &'static str,
    /// Its media type, if all have the same.
    pub mime_type: Option<&'static str>,
}

/// What is at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceContent {
    /// Its media type.
    pub mime_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}
