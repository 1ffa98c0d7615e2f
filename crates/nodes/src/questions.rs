//! What tools ask people while a node executes, and the port to the people.
//!
//! The call waits for the answer and holds its connection meanwhile, so a question is not part of the run's journal: a
//! call that is repeated asks again. Invariant: a question is closed when its call no longer waits for the answer.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_dag_engine::{Attempt, NodeFailure, Redaction as _, StoreError, retry_while_unavailable};
use gathering_domain::{NodeId, QuestionId, RunId};
use gathering_tools::{
    QuestionRequest, ToolAnswer, ToolNotice, ToolNotices, ToolQuestion, ToolQuestions, ToolRespondent,
};
use tokio_util::task::TaskTracker;

use crate::secrets::{AttemptSecrets, KnownSecrets};

/// The most bytes of a question's text.
const MAX_MESSAGE: usize = 8 * 1024;

/// A question that is to be shown to people.
#[derive(Debug, Clone, PartialEq)]
pub struct NewQuestion {
    /// Its id.
    pub id: QuestionId,
    /// The run whose node calls the tool.
    pub run: RunId,
    /// The node.
    pub node: NodeId,
    /// Which attempt of it.
    pub attempt: i32,
    /// The tool, by its name in the project.
    pub tool: String,
    /// What it asks, without the values of secrets.
    pub question: ToolQuestion,
    /// When the call ends at the latest.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Where people find the questions of nodes, and answer them.
#[async_trait]
pub trait NodeQuestions: Send + Sync + 'static {
    /// Opens a question. Whether it is open: not if its run is no longer driven, or has too many questions. Repeats: safe.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn open(&self, question: &NewQuestion) -> Result<bool, StoreError>;

    /// Waits for the answer. Cancel: safe.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn wait_for_answer(&self, question: QuestionId) -> Result<ToolAnswer, StoreError>;

    /// Closes a question: its call waits no longer, and an answer that was given is forgotten. Repeats: safe.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn close(&self, question: QuestionId) -> Result<(), StoreError>;
}

/// The questions of the nodes that this process drives. Cloning is cheap and shares them.
#[derive(Clone)]
pub struct Questions {
    store: Arc<dyn NodeQuestions>,
    closing: TaskTracker,
}

impl Questions {
    /// Questions that people find in this store.
    pub fn new(store: Arc<dyn NodeQuestions>) -> Self {
        Self { store, closing: TaskTracker::new() }
    }

    /// Waits until the questions of ended calls are closed. For the end of the process: nothing is driven then.
    pub async fn settle(&self) {
        self.closing.close();
        self.closing.wait().await;
    }

    /// Where a call of `tool` by this attempt asks people.
    pub(crate) fn of_call(
        &self,
        attempt: &Attempt,
        tool: &str,
        secrets: &AttemptSecrets,
        notices: ToolNotices,
    ) -> ToolQuestions {
        ToolQuestions::to(Call {
            all: self.clone(),
            run: attempt.run,
            node: attempt.node.clone(),
            attempt: attempt.attempt,
            tool: tool.to_owned(),
            secrets: secrets.known(),
            expires_at: attempt.deadline_at,
            notices,
        })
    }
}

/// Who makes a call.
struct Call {
    all: Questions,
    run: RunId,
    node: NodeId,
    attempt: i32,
    tool: String,
    secrets: Arc<KnownSecrets>,
    expires_at: Option<DateTime<Utc>>,
    notices: ToolNotices,
}

impl Call {
    async fn ask(&self, new: &NewQuestion) -> Result<ToolAnswer, NodeFailure> {
        let store = &self.all.store;
        if !retry_while_unavailable(|| store.open(new)).await? {
            return Ok(ToolAnswer::Cancelled);
        }
        self.notices
            .tell(ToolNotice::Question { id: new.id.to_string(), message: new.question.message.clone() });
        retry_while_unavailable(|| store.wait_for_answer(new.id)).await
    }
}

#[async_trait]
impl ToolRespondent for Call {
    async fn answer(&self, mut question: ToolQuestion) -> ToolAnswer {
        self.secrets.redact_text(&mut question.message);
        // Where secrets stood it is longer than the tool wrote it.
        question.message.truncate(question.message.floor_char_boundary(MAX_MESSAGE));
        match &mut question.request {
            QuestionRequest::Form(schema) => self.secrets.redact(schema),
            QuestionRequest::Visit(url) => self.secrets.redact_text(url),
        }
        let new = NewQuestion {
            id: QuestionId::new(),
            run: self.run,
            node: self.node.clone(),
            attempt: self.attempt,
            tool: self.tool.clone(),
            question,
            expires_at: self.expires_at,
        };
        let _closes = Closes { id: new.id, all: self.all.clone() };
        let answered = self.ask(&new).await;
        answered.unwrap_or_else(|NodeFailure { message, .. }| {
            tracing::warn!(
                run.id = %self.run, node.id = %self.node,
                "cannot ask people what `{}` wants to know: {message}", self.tool
            );
            ToolAnswer::Cancelled
        })
    }
}

/// Closes a question when its call no longer waits for the answer.
struct Closes {
    id: QuestionId,
    all: Questions,
}

impl Drop for Closes {
    fn drop(&mut self) {
        let (store, id) = (Arc::clone(&self.all.store), self.id);
        let close = async move {
            // Without the store the question stays open until its run is claimed anew or ends.
            if let Err(error) = store.close(id).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot close a question: {error}");
            }
        };
        // Outside a runtime, as when it is torn down, nothing can be closed.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.all.closing.spawn_on(close, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt as _;
    use gathering_domain::Secret;
    use gathering_tools::ToolListener;
    use serde_json::json;
    use tokio::sync::Notify;

    use super::*;

    /// Questions, the answer to each of them, and which were closed.
    #[derive(Default)]
    struct Board {
        asked: Mutex<Vec<NewQuestion>>,
        answer: Mutex<Option<ToolAnswer>>,
        closed: Mutex<Vec<QuestionId>>,
        answered: Notify,
    }

    #[async_trait]
    impl NodeQuestions for Board {
        async fn open(&self, question: &NewQuestion) -> Result<bool, StoreError> {
            self.asked.lock().unwrap().push(question.clone());
            Ok(question.question.message != "full")
        }

        async fn wait_for_answer(&self, _: QuestionId) -> Result<ToolAnswer, StoreError> {
            self.answered.notified().await;
            Ok(self.answer.lock().unwrap().clone().unwrap())
        }

        async fn close(&self, question: QuestionId) -> Result<(), StoreError> {
            self.closed.lock().unwrap().push(question);
            Ok(())
        }
    }

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<ToolNotice>>>);

    impl ToolListener for Heard {
        fn told(&self, notice: ToolNotice) {
            self.0.lock().unwrap().push(notice);
        }
    }

    fn call(board: &Arc<Board>, heard: &Heard) -> (Questions, ToolQuestions) {
        let all = Questions::new(Arc::clone(board) as _);
        let word = ("WORD".parse().unwrap(), Ok(Secret::from("open sesame".to_owned())));
        let call = Call {
            all: all.clone(),
            run: RunId::new(),
            node: "dig".parse().unwrap(),
            attempt: 2,
            tool: "mine__dig".to_owned(),
            secrets: Arc::new(KnownSecrets::new([word].into())),
            expires_at: None,
            notices: ToolNotices::to(heard.clone()),
        };
        (all, ToolQuestions::to(call))
    }

    fn question(message: &str) -> ToolQuestion {
        let request = QuestionRequest::Form(json!({"title": "says open sesame"}));
        ToolQuestion { asked_by: "mine".to_owned(), message: message.to_owned(), request }
    }

    #[tokio::test]
    async fn an_answer_reaches_the_call_and_the_question_is_closed_then() {
        let (board, heard) = (Arc::<Board>::default(), Heard::default());
        let (all, questions) = call(&board, &heard);
        *board.answer.lock().unwrap() = Some(ToolAnswer::Accepted(json!(1)));
        board.answered.notify_one();
        assert_eq!(questions.ask(question("open sesame?")).await, ToolAnswer::Accepted(json!(1)));
        all.settle().await;
        let asked = board.asked.lock().unwrap().clone();
        assert_eq!(asked.len(), 1);
        assert_eq!(*board.closed.lock().unwrap(), [asked[0].id]);
        assert_eq!((asked[0].attempt, asked[0].tool.as_str()), (2, "mine__dig"));
        // No value of a secret is shown to people.
        assert_eq!(asked[0].question.message, "[secret WORD]?");
        let form = QuestionRequest::Form(json!({"title": "says [secret WORD]"}));
        assert_eq!(asked[0].question.request, form);
        let told = ToolNotice::Question { id: asked[0].id.to_string(), message: "[secret WORD]?".to_owned() };
        assert_eq!(*heard.0.lock().unwrap(), [told]);
    }

    #[tokio::test]
    async fn a_text_in_which_many_secrets_stood_is_cut() {
        let (board, heard) = (Arc::<Board>::default(), Heard::default());
        let (all, questions) = call(&board, &heard);
        assert!(questions.ask(question(&"open sesame".repeat(1_000))).now_or_never().is_none());
        all.settle().await;
        let message = board.asked.lock().unwrap()[0].question.message.clone();
        assert!(message.len() == MAX_MESSAGE && !message.contains("open"), "{}", message.len());
    }

    #[tokio::test]
    async fn a_call_that_ends_closes_its_question_and_one_that_may_not_ask_goes_on() {
        let (board, heard) = (Arc::<Board>::default(), Heard::default());
        let (all, questions) = call(&board, &heard);
        assert!(questions.ask(question("well?")).now_or_never().is_none());
        assert_eq!(questions.ask(question("full")).await, ToolAnswer::Cancelled);
        all.settle().await;
        let asked: Vec<QuestionId> = board.asked.lock().unwrap().iter().map(|question| question.id).collect();
        let mut closed = board.closed.lock().unwrap().clone();
        closed.sort();
        assert_eq!(closed, asked);
        assert_eq!(heard.0.lock().unwrap().len(), 1);
    }
}
