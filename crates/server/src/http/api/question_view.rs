//! A question of a tool as it is shown.

use chrono::{DateTime, Utc};
use gathering_control::Question;
use gathering_tools::QuestionRequest;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::api::words::QuestionStateSchema;

/// What a tool asks people while a node executes. The call waits for the answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeQuestion)]
pub(crate) struct QuestionView {
    /// For the answer: `question` of a decision about the node.
    id: Uuid,
    #[schema(value_type = QuestionStateSchema)]
    state: &'static str,
    /// The attempt that asks, from 1.
    attempt: i32,
    /// The tool, by its name in the project.
    tool: String,
    /// The MCP server that asks.
    asked_by: String,
    /// What it asks, at most 4 KiB; the words of the server.
    message: String,
    /// The JSON Schema of the answer; null where the person is to open `url`.
    form: Option<Value>,
    /// The address that the person is to open. GatheRing does not open it.
    url: Option<String>,
    asked_at: DateTime<Utc>,
    /// Until when it can be answered; null for no limit but the end of the call.
    expires_at: Option<DateTime<Utc>>,
    /// Who answered it, by the e-mail of the account then.
    decided_by: Option<String>,
    /// When it was answered, or its call ended.
    decided_at: Option<DateTime<Utc>>,
}

impl QuestionView {
    pub(super) fn of(question: Question) -> Self {
        let (form, url) = match question.request {
            QuestionRequest::Form(schema) => (Some(schema), None),
            QuestionRequest::Visit(url) => (None, Some(url)),
        };
        Self {
            id: question.id.as_uuid(),
            state: question.state.as_str(),
            attempt: question.attempt,
            tool: question.tool,
            asked_by: question.asked_by,
            message: question.message,
            form,
            url,
            asked_at: question.asked_at,
            expires_at: question.expires_at,
            decided_by: question.decided_by,
            decided_at: question.decided_at,
        }
    }
}
