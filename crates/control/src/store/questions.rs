//! What is kept of the questions that tools ask people.

use async_trait::async_trait;
use gathering_domain::{QuestionId, RunId};
use gathering_nodes::NewQuestion;
use gathering_tools::ToolAnswer;

use crate::ControlError;
use crate::access::{Scoped, right};
use crate::questions::{AnswerOutcome, NewAnswer, Question};
use crate::runs::Run;

/// Keeps questions. What [`ControlStore`](crate::ControlStore) says of every method holds here.
#[async_trait]
pub trait QuestionStore: Send + Sync + 'static {
    /// Opens a question under the claim of its run. Whether it is open: not if the run is not driven, or has
    /// [`MAX_OPEN_QUESTIONS`](crate::MAX_OPEN_QUESTIONS) open ones or [`MAX_QUESTIONS`](crate::MAX_QUESTIONS) in all.
    /// Repeats: safe. For the server itself: it checks no access.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn open_question(&self, question: &NewQuestion) -> Result<bool, ControlError>;

    /// The answer to a question; `None` while it is open, and cancelled once its time is over or it is gone. For the server itself: it checks no access.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_answer(&self, question: QuestionId) -> Result<Option<ToolAnswer>, ControlError>;

    /// Cancels a question that is open, and forgets the content of an answer. Repeats: safe. For the server itself: it
    /// checks no access.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn close_question(&self, question: QuestionId) -> Result<(), ControlError>;

    /// The questions of a run, the oldest first. The caller of this method has found the run.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_questions(&self, run: RunId) -> Result<Vec<Question>, ControlError>;

    /// Records the answer to a question of the run, if it is open. Of two at once, one stands.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] if the account is gone; nothing was recorded.
    async fn answer_question(
        &self,
        run: &Scoped<Run, right::Run>,
        question: QuestionId,
        answer: &NewAnswer,
    ) -> Result<AnswerOutcome, ControlError>;
}
