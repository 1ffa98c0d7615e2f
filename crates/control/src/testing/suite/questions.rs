//! Questions that tools ask people.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use chrono::{DateTime, TimeDelta, Utc};
use gathering_auth::{Caller, ProjectRole, Role};
use gathering_dag_engine::{Claim, JournalEvent, Release};
use gathering_domain::{QuestionId, RunId};
use gathering_nodes::NewQuestion;
use gathering_tools::{QuestionRequest, ToolAnswer, ToolQuestion};
use serde_json::{Value, json};

use super::{World, claim, commit, conflict, failed, node};
use crate::testing::ControlFixture;
use crate::{Answer, Conflict, ControlError, MAX_OPEN_QUESTIONS, Question, QuestionState, Run, StartRun};

/// A run whose node executes.
struct Asking<'a, F> {
    world: World,
    fixture: &'a F,
    run: RunId,
    claim: Claim,
}

fn form() -> QuestionRequest {
    let colour = json!({"type": "string", "enum": ["red", "blue"]});
    QuestionRequest::Form(json!({"type": "object", "required": ["colour"], "properties": {"colour": colour}}))
}

impl<'a, F: ControlFixture> Asking<'a, F> {
    async fn new(fixture: &'a F) -> Self {
        let world = World::new(fixture).await;
        // Its claim records nothing, so that the cases can.
        let definition = json!({"nodes": [{"id": "first", "type": "trigger", "idempotent": false}]});
        let pipeline = world.define(&definition).await;
        let run = world.runs.start(&world.owner, pipeline, StartRun::default()).await.unwrap().id;
        let claim = claim(fixture, run).await;
        Self { world, fixture, run, claim }
    }

    async fn ask_until(
        &self,
        request: QuestionRequest,
        expires_at: Option<DateTime<Utc>>,
    ) -> Option<QuestionId> {
        let question = ToolQuestion { asked_by: "mine".to_owned(), message: "Which?".to_owned(), request };
        let (id, tool) = (QuestionId::new(), "mine__dig".to_owned());
        let new =
            NewQuestion { id, run: self.run, node: node("first"), attempt: 1, tool, question, expires_at };
        let is_open = self.fixture.store().open_question(&new).await.unwrap();
        // Asked again, as after a lost connection.
        assert_eq!(self.fixture.store().open_question(&new).await.unwrap(), is_open);
        is_open.then_some(id)
    }

    async fn ask(&self, request: QuestionRequest) -> QuestionId {
        self.ask_until(request, None).await.unwrap()
    }

    async fn answer(
        &self,
        by: &Caller,
        question: QuestionId,
        approve: bool,
        content: Option<Value>,
    ) -> Result<Run, ControlError> {
        self.world.runs.answer(by, self.run, &node("first"), Answer { question, approve, content }).await
    }

    async fn found(&self, question: QuestionId) -> Option<ToolAnswer> {
        self.fixture.store().find_answer(question).await.unwrap()
    }

    async fn shown(&self, question: QuestionId) -> Question {
        let all = self.fixture.store().list_questions(self.run).await.unwrap();
        all.into_iter().find(|shown| shown.id == question).unwrap()
    }
}

/// The first answer is final, and reaches the call; its content is forgotten when the call has it.
pub async fn a_question_is_answered_once<F: ControlFixture>(fixture: &F) {
    let asking = Asking::new(fixture).await;
    let owner = &asking.world.owner;
    let question = asking.ask(form()).await;
    assert_eq!(asking.found(question).await, None);
    let open = asking.shown(question).await;
    assert_eq!((open.state, open.decided_by, open.attempt), (QuestionState::Open, None, 1));
    assert_eq!((open.request, open.asked_by.as_str()), (form(), "mine"));
    let blue = json!({"colour": "blue"});
    let (yes, no) = tokio::join!(
        asking.answer(owner, question, true, Some(blue.clone())),
        asking.answer(owner, question, false, None)
    );
    let expected = if yes.is_ok() { ToolAnswer::Accepted(blue) } else { ToolAnswer::Declined };
    let (stands, refused) = if yes.is_ok() { (yes, no) } else { (no, yes) };
    assert_eq!(stands.unwrap().id, asking.run);
    assert_eq!(conflict(refused), Conflict::QuestionClosed);
    // As often as the call looks.
    assert_eq!(asking.found(question).await, Some(expected.clone()));
    assert_eq!(asking.found(question).await, Some(expected.clone()));
    fixture.store().close_question(question).await.unwrap();
    let (closed, email) = (asking.shown(question).await, fixture.store().find_email(owner).await.unwrap());
    assert_eq!(closed.decided_by, email.map(|email| email.to_string()));
    let kept = asking.found(question).await.unwrap();
    assert!(!matches!(kept, ToolAnswer::Accepted(content) if content["colour"] == "blue"));
}

/// What is wrong is named at its place, and nothing is recorded.
pub async fn an_answer_has_what_its_question_asks_for<F: ControlFixture>(fixture: &F) {
    let asking = Asking::new(fixture).await;
    let owner = &asking.world.owner;
    let refusal =
        async |question, approve, content| match asking.answer(owner, question, approve, content).await {
            Err(ControlError::Invalid(problems)) => problems.to_string(),
            other => panic!("{other:?}"),
        };
    let filled_in = asking.ask(form()).await;
    assert_eq!(refusal(filled_in, true, None).await, "/content/colour: is required");
    let green = refusal(filled_in, true, Some(json!({"colour": "green"}))).await;
    assert!(green.starts_with("/content/colour: must be "), "{green}");
    assert_eq!(refusal(filled_in, false, Some(json!({}))).await, "/content: belongs to a yes");
    let visited = asking.ask(QuestionRequest::Visit("https://example.org/".to_owned())).await;
    let refused = refusal(visited, true, Some(json!({}))).await;
    assert_eq!(refused, "/content: belongs to a question with a form");
    assert_eq!((asking.found(filled_in).await, asking.found(visited).await), (None, None));
    asking.answer(owner, visited, true, None).await.unwrap();
    assert_eq!(asking.found(visited).await, Some(ToolAnswer::Accepted(Value::Null)));
    asking.answer(owner, filled_in, false, None).await.unwrap();
    assert_eq!(asking.found(filled_in).await, Some(ToolAnswer::Declined));
}

/// Another claim means that the call is gone; and so does the end of the run.
pub async fn a_question_is_open_under_the_claim_that_opened_it<F: ControlFixture>(fixture: &F) {
    let mut asking = Asking::new(fixture).await;
    let before = asking.ask(form()).await;
    commit(fixture, asking.claim, vec![("first", JournalEvent::Started)], Some(Release::Requeue)).await;
    assert_eq!(asking.ask_until(form(), None).await, None, "nobody drives it");
    asking.claim = claim(fixture, asking.run).await;
    let after = asking.ask(form()).await;
    assert_eq!(asking.found(before).await, Some(ToolAnswer::Cancelled));
    assert_eq!(asking.shown(before).await.state, QuestionState::Cancelled);
    let refused = asking.answer(&asking.world.owner, before, false, None).await;
    assert_eq!(conflict(refused), Conflict::QuestionClosed);
    assert_eq!(asking.shown(after).await.state, QuestionState::Open);
    let checkpoint = gathering_dag_engine::Checkpoint {
        claim: asking.claim,
        first_seq: 2,
        records: Vec::new(),
        release: Some(failed()),
        frees: Vec::new(),
    };
    assert!(fixture.run_store().commit(&[checkpoint]).await.unwrap()[0].is_ok());
    assert_eq!(asking.shown(after).await.state, QuestionState::Cancelled);
    assert_eq!(asking.found(after).await, Some(ToolAnswer::Cancelled));
}

/// A call that ended, and one whose time is over, get no answer; and a run asks a bounded number of questions at once.
pub async fn nobody_is_asked_in_vain<F: ControlFixture>(fixture: &F) {
    let asking = Asking::new(fixture).await;
    let owner = &asking.world.owner;
    let ended = asking.ask(form()).await;
    fixture.store().close_question(ended).await.unwrap();
    fixture.store().close_question(ended).await.unwrap();
    let overdue = asking.ask_until(form(), Some(Utc::now() - TimeDelta::seconds(1))).await.unwrap();
    for question in [ended, overdue] {
        assert_eq!(asking.shown(question).await.state, QuestionState::Cancelled);
        assert_eq!(asking.found(question).await, Some(ToolAnswer::Cancelled));
        let refused = asking.answer(owner, question, false, None).await;
        assert_eq!(conflict(refused), Conflict::QuestionClosed);
    }
    let mut open = Vec::new();
    for _ in 0..MAX_OPEN_QUESTIONS {
        open.push(asking.ask(form()).await);
    }
    assert_eq!(asking.ask_until(form(), None).await, None);
    asking.answer(owner, open[0], false, None).await.unwrap();
    asking.ask(form()).await;
    assert_eq!(fixture.store().find_answer(QuestionId::new()).await.unwrap(), Some(ToolAnswer::Cancelled));
}

/// A stranger does not see it, a viewer may not, and a question is of its node and its run.
pub async fn who_may_run_things_answers_questions<F: ControlFixture>(fixture: &F) {
    let asking = Asking::new(fixture).await;
    let question = asking.ask(form()).await;
    let viewer = fixture.account(Role::Member).await;
    let stranger = asking.answer(&viewer, question, false, None).await;
    assert!(matches!(stranger, Err(ControlError::NotFound)), "{stranger:?}");
    fixture.join(asking.world.project, &viewer, ProjectRole::Viewer).await;
    let refused = asking.answer(&viewer, question, false, None).await;
    assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
    let owner = &asking.world.owner;
    let answer = Answer { question, approve: false, content: None };
    let elsewhere = asking.world.runs.answer(owner, asking.run, &node("other"), answer.clone()).await;
    assert!(matches!(elsewhere, Err(ControlError::NotFound)), "{elsewhere:?}");
    let other = Asking::new(fixture).await;
    let elsewhere = other.world.runs.answer(&other.world.owner, other.run, &node("first"), answer).await;
    assert!(matches!(elsewhere, Err(ControlError::NotFound)), "{elsewhere:?}");
    let absent = asking.answer(owner, QuestionId::new(), false, None).await;
    assert!(matches!(absent, Err(ControlError::NotFound)), "{absent:?}");
    let editor = fixture.account(Role::Member).await;
    fixture.join(asking.world.project, &editor, ProjectRole::Editor).await;
    asking.answer(&editor, question, false, None).await.unwrap();
}
