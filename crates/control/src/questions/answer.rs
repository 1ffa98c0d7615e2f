//! Answering questions: who may, and what an answer must have.

use gathering_auth::Caller;
use gathering_domain::{NodeId, Pointer, Problems, QuestionId, RunId};
use gathering_tools::{JsonSchema, QuestionRequest};
use serde_json::{Value, json};

use super::{AnswerOutcome, NewAnswer, Question, QuestionState};
use crate::access::right;
use crate::runs::{Run, RunControl};
use crate::{Conflict, ControlError};

/// What a person answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Which question.
    pub question: QuestionId,
    /// Whether they say yes.
    pub approve: bool,
    /// With a yes to a form: what they filled in.
    pub content: Option<Value>,
}

impl RunControl {
    /// Answers a question of a node, and answers with the run as it stands then. The first answer is final.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] for a run or question that is absent, [`ControlError::Forbidden`];
    /// [`ControlError::Invalid`] at `/content` if it does not fit the form; [`Conflict::QuestionClosed`]. After
    /// [`ControlError::Unavailable`] it is unknown whether the answer is recorded.
    pub async fn answer(
        &self,
        caller: &Caller,
        run: RunId,
        node: &NodeId,
        answer: Answer,
    ) -> Result<Run, ControlError> {
        let run = self.find::<right::Run>(caller, run).await?;
        let asked = self.store().list_questions(run.id).await?;
        let question = asked.iter().find(|asked| asked.id == answer.question && asked.node == *node);
        let question = question.ok_or(ControlError::NotFound)?;
        if question.state != QuestionState::Open {
            return Err(Conflict::QuestionClosed.into());
        }
        let email = self.store().find_email(caller).await?.ok_or(ControlError::Revoked)?;
        let given = NewAnswer {
            content: judge(question, &answer)?,
            approve: answer.approve,
            decided_by: caller.user,
            decided_as: email.to_string(),
        };
        match self.store().answer_question(&run, question.id, &given).await? {
            AnswerOutcome::Recorded(stands) => {
                tracing::info!(run.id = %run.id, node.id = %node, "a question of node {node} of run {} answered", run.id);
                Ok(*stands)
            }
            AnswerOutcome::NotOpen => Err(Conflict::QuestionClosed.into()),
        }
    }
}

/// The content that the tool gets.
fn judge(question: &Question, answer: &Answer) -> Result<Option<Value>, ControlError> {
    let at = || Pointer::root().join("content");
    let refuse = |reason: &str| Err(ControlError::Invalid(Problems::one(at(), reason)));
    let given = answer.content.clone().filter(|content| !content.is_null());
    match (&question.request, given) {
        (_, Some(_)) if !answer.approve => refuse("belongs to a yes"),
        (QuestionRequest::Visit(_), Some(_)) => refuse("belongs to a question with a form"),
        (QuestionRequest::Form(schema), given) if answer.approve => {
            let schema = JsonSchema::compile(schema).map_err(|error| ControlError::Broken(error.into()))?;
            let content = given.unwrap_or_else(|| json!({}));
            let checked = schema.check(&content);
            checked.map_err(|problems| ControlError::Invalid(problems.below(&at())))?;
            Ok(Some(content))
        }
        (QuestionRequest::Form(_) | QuestionRequest::Visit(_), _) => Ok(None),
    }
}
