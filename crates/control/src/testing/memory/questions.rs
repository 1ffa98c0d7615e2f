//! Questions of tools in memory.

use async_trait::async_trait;
use chrono::Utc;
use gathering_domain::{QuestionId, RunId, RunState};
use gathering_nodes::NewQuestion;
use gathering_tools::{QuestionRequest, ToolAnswer};
use serde_json::Value;

use super::MemoryControl;
use crate::{
    AnswerOutcome, ControlError, MAX_OPEN_QUESTIONS, MAX_QUESTIONS, NewAnswer, Question, QuestionState,
    QuestionStore, Run, Scoped, right,
};

/// A question, the claim that opened it, and the content of its answer.
#[derive(Clone)]
pub(super) struct StoredQuestion {
    question: Question,
    epoch: i64,
    content: Option<Value>,
}

impl MemoryControl {
    /// The question as it stands.
    fn as_it_stands(&self, stored: &StoredQuestion) -> Question {
        let mut question = stored.question.clone();
        let is_driven = self
            .runs
            .run(question.run)
            .is_some_and(|run| run.state == RunState::Running && run.epoch == stored.epoch);
        let is_overdue = question.expires_at.is_some_and(|at| at <= Utc::now());
        if question.state == QuestionState::Open && (!is_driven || is_overdue) {
            question.state = QuestionState::Cancelled;
        }
        question
    }

    fn questions_of(&self, run: RunId) -> Vec<Question> {
        let stored: Vec<StoredQuestion> = self.lock().questions.values().cloned().collect();
        stored
            .iter()
            .filter(|stored| stored.question.run == run)
            .map(|stored| self.as_it_stands(stored))
            .collect()
    }
}

#[async_trait]
impl QuestionStore for MemoryControl {
    async fn open_question(&self, new: &NewQuestion) -> Result<bool, ControlError> {
        let Some(run) = self.runs.run(new.run).filter(|run| run.state == RunState::Running) else {
            return Ok(false);
        };
        let asked = self.questions_of(new.run);
        if asked.iter().any(|asked| asked.id == new.id) {
            return Ok(true);
        }
        let n_open = asked.iter().filter(|asked| asked.state == QuestionState::Open).count();
        if i64::try_from(n_open).unwrap_or(i64::MAX) >= MAX_OPEN_QUESTIONS
            || i64::try_from(asked.len()).unwrap_or(i64::MAX) >= MAX_QUESTIONS
        {
            return Ok(false);
        }
        let NewQuestion { id, run: run_id, node, attempt, tool, question, expires_at } = new.clone();
        let question = Question {
            id,
            run: run_id,
            node,
            attempt,
            tool,
            asked_by: question.asked_by,
            message: question.message,
            request: question.request,
            asked_at: Utc::now(),
            expires_at,
            state: QuestionState::Open,
            decided_by: None,
            decided_at: None,
        };
        self.lock().questions.insert(id, StoredQuestion { question, epoch: run.epoch, content: None });
        Ok(true)
    }

    async fn find_answer(&self, question: QuestionId) -> Result<Option<ToolAnswer>, ControlError> {
        let stored = self.lock().questions.get(&question).cloned();
        let Some(stored) = stored else { return Ok(Some(ToolAnswer::Cancelled)) };
        Ok(self.as_it_stands(&stored).state.answer(stored.content))
    }

    async fn close_question(&self, question: QuestionId) -> Result<(), ControlError> {
        if let Some(stored) = self.lock().questions.get_mut(&question) {
            stored.content = None;
            if stored.question.state == QuestionState::Open {
                stored.question.state = QuestionState::Cancelled;
                stored.question.decided_at = Some(Utc::now());
            }
        }
        Ok(())
    }

    async fn list_questions(&self, run: RunId) -> Result<Vec<Question>, ControlError> {
        Ok(self.questions_of(run))
    }

    async fn answer_question(
        &self,
        run: &Scoped<Run, right::Run>,
        question: QuestionId,
        answer: &NewAnswer,
    ) -> Result<AnswerOutcome, ControlError> {
        let is_open = self
            .questions_of(run.id)
            .iter()
            .any(|asked| asked.id == question && asked.state == QuestionState::Open);
        let stands = self.run(run.id).ok_or(ControlError::NotFound)?;
        let mut state = self.lock();
        let stored = state.questions.get_mut(&question);
        // Another answer may have been recorded since the first look.
        let stored = stored.filter(|stored| is_open && stored.question.state == QuestionState::Open);
        let Some(stored) = stored else { return Ok(AnswerOutcome::NotOpen) };
        let is_form = matches!(stored.question.request, QuestionRequest::Form(_));
        stored.content = answer.content.clone().filter(|_| is_form);
        stored.question.state =
            if answer.approve { QuestionState::Accepted } else { QuestionState::Declined };
        stored.question.decided_by = Some(answer.decided_as.clone());
        stored.question.decided_at = Some(Utc::now());
        Ok(AnswerOutcome::Recorded(Box::new(stands)))
    }
}
