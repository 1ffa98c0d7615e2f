//! Questions that tools ask people while a node executes: opened by nodes, answered by those who may run things in the
//! project.
//!
//! A question is open while its run is driven under the claim that opened it, nobody has answered, and its time is not
//! over. The first answer stands.

mod answer;
mod asked;

use chrono::{DateTime, Utc};
use gathering_domain::{NodeId, QuestionId, RunId, UserId};
use gathering_tools::{QuestionRequest, ToolAnswer};
use serde_json::Value;

use crate::runs::Run;

pub use answer::Answer;
pub use asked::AskedQuestions;

/// How many questions of one run may be open at once.
pub const MAX_OPEN_QUESTIONS: i64 = 16;

/// How many questions one run may ask.
pub const MAX_QUESTIONS: i64 = 1_000;

/// A question of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Its id; later questions of a run have greater ones.
    pub id: QuestionId,
    /// The run.
    pub run: RunId,
    /// The node that calls the tool.
    pub node: NodeId,
    /// Which attempt of it.
    pub attempt: i32,
    /// The tool, by its name in the project.
    pub tool: String,
    /// The MCP server that asks.
    pub asked_by: String,
    /// What is asked.
    pub message: String,
    /// What the person is asked for.
    pub request: QuestionRequest,
    /// When it was asked, in UTC.
    pub asked_at: DateTime<Utc>,
    /// Until when it can be answered, in UTC; without a limit if absent.
    pub expires_at: Option<DateTime<Utc>>,
    /// What became of it.
    pub state: QuestionState,
    /// Who answered it, by the name of the account then.
    pub decided_by: Option<String>,
    /// When it was answered or closed, in UTC.
    pub decided_at: Option<DateTime<Utc>>,
}

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionState {
    /// The call waits for an answer.
    Open,
    /// A person said yes.
    Accepted,
    /// A person said no.
    Declined,
    /// The call ended, or was interrupted, before anybody answered.
    Cancelled,
}

impl QuestionState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Open, Self::Accepted, Self::Declined, Self::Cancelled];

    /// Its name in JSON; in SQL those that are not open have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Accepted => "accepted",
            Self::Declined => "declined",
            Self::Cancelled => "cancelled",
        }
    }

    /// What the call is told, with the content of an accepted form; `None` while it waits.
    pub fn answer(self, content: Option<Value>) -> Option<ToolAnswer> {
        match self {
            Self::Open => None,
            Self::Accepted => Some(ToolAnswer::Accepted(content.unwrap_or_default())),
            Self::Declined => Some(ToolAnswer::Declined),
            Self::Cancelled => Some(ToolAnswer::Cancelled),
        }
    }
}

/// An answer that is to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAnswer {
    /// The content of the form; `None` for a question without one, and for a no.
    pub content: Option<Value>,
    /// Whether the person says yes.
    pub approve: bool,
    /// The person's account.
    pub decided_by: UserId,
    /// The person's e-mail, which outlives the account.
    pub decided_as: String,
}

/// What became of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerOutcome {
    /// It stands, and the call gets it.
    Recorded(Box<Run>),
    /// Another one was recorded before, or the call has ended.
    NotOpen,
}
