//! The port for questions of servers to people.
//!
//! Owns the question and its answer. Never knows how a person is reached.

use async_trait::async_trait;
use serde_json::{Value, json};

/// Answers the questions that servers ask in the middle of a call (`elicitation/create`).
///
/// The call waits for the answer, and its time limit goes on.
#[async_trait]
pub trait Elicitations: Send + Sync {
    /// Answers one question.
    ///
    /// Cancel: it is dropped if the call or the connection ends first.
    async fn elicit(&self, question: Elicitation) -> ElicitationAnswer;
}

/// A question of a server.
#[derive(Debug, Clone, PartialEq)]
pub struct Elicitation {
    /// The server, by its name in the settings.
    pub server: String,
    /// What it asks.
    pub message: String,
    /// The JSON Schema of the answer.
    pub requested_schema: Value,
}

/// An answer to a question.
#[derive(Debug, Clone, PartialEq)]
pub enum ElicitationAnswer {
    /// The content, which fits the schema of the question.
    Accepted(Value),
    /// The person says no.
    Declined,
    /// Nobody decided.
    Cancelled,
}

impl ElicitationAnswer {
    pub(crate) fn into_result(self) -> Value {
        match self {
            ElicitationAnswer::Accepted(content) => json!({"action": "accept", "content": content}),
            ElicitationAnswer::Declined => json!({"action": "decline"}),
            ElicitationAnswer::Cancelled => json!({"action": "cancel"}),
        }
    }
}

/// Declines every question.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeclineElicitations;

#[async_trait]
impl Elicitations for DeclineElicitations {
    async fn elicit(&self, _question: Elicitation) -> ElicitationAnswer {
        ElicitationAnswer::Declined
    }
}
