//! What a tool asks people before it has a result.
//!
//! Owns the words and the port. Never knows how a person is reached.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

/// A question of a tool to a person.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolQuestion {
    /// The origin of the question, such as the MCP server by its name in the settings.
    pub asked_by: String,
    /// What is asked.
    pub message: String,
    /// What the person is asked for.
    pub request: QuestionRequest,
}

/// What a person is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum QuestionRequest {
    /// An answer that fits this JSON Schema.
    Form(Value),
    /// To open this address, and to do there what it says.
    Visit(String),
}

/// An answer to a question.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolAnswer {
    /// The person says yes, with the content that a form asks for. It fits the schema of the form.
    Accepted(Value),
    /// The person says no.
    Declined,
    /// Nobody decided.
    Cancelled,
}

/// Answers the questions of tools.
#[async_trait]
pub trait ToolRespondent: Send + Sync {
    /// Answers one question, however long that takes.
    ///
    /// Cancel: the tool no longer waits for the answer.
    async fn answer(&self, question: ToolQuestion) -> ToolAnswer;
}

/// Where a call asks people. Cloning is cheap and shares the respondent.
#[derive(Clone)]
pub struct ToolQuestions(Arc<dyn ToolRespondent>);

impl ToolQuestions {
    /// Asks this respondent.
    pub fn to(respondent: impl ToolRespondent + 'static) -> Self {
        Self(Arc::new(respondent))
    }

    /// Asks, and waits for the answer. Cancel: the question is withdrawn.
    pub async fn ask(&self, question: ToolQuestion) -> ToolAnswer {
        self.0.answer(question).await
    }
}

impl fmt::Debug for ToolQuestions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ToolQuestions")
    }
}

/// Declines every question.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeclineQuestions;

#[async_trait]
impl ToolRespondent for DeclineQuestions {
    async fn answer(&self, _question: ToolQuestion) -> ToolAnswer {
        ToolAnswer::Declined
    }
}
