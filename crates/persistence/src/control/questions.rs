//! Questions that tools ask people. They belong to the claim of their run: its row in `active_runs` says whether that holds.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Integer, Json, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use gathering_control::{
    AnswerOutcome, ControlError, MAX_OPEN_QUESTIONS, MAX_QUESTIONS, NewAnswer, Question, QuestionState,
    QuestionStore, Run, Scoped, right,
};
use gathering_domain::{NodeId, QuestionId, RunId};
use gathering_nodes::NewQuestion;
use gathering_tools::{QuestionRequest, ToolAnswer};
use serde_json::Value;
use uuid::Uuid;

use crate::cluster::wake::Wake;
use crate::control::runs;
use crate::control::store::PgControlStore;
use crate::db::error::{DatabaseError, Refusal, violated};
use crate::db::exactly_one::exactly_one;
use crate::db::stored_json::StoredJson;

/// Whether the question `q` is open.
macro_rules! is_open {
    () => {
        "(q.answer IS NULL AND (q.expires_at IS NULL OR q.expires_at > now())
            AND EXISTS (SELECT FROM active_runs AS a WHERE a.run_id = q.run_id AND a.owner = q.owner AND a.epoch = q.epoch))"
    };
}

/// The bounds are counted without a lock: nodes that ask at the same moment may ask a few more.
const OPEN: &str = concat!(
    "WITH opened AS (
        INSERT INTO node_questions
            (id, run_id, node_id, attempt, owner, epoch, tool, asked_by, message, form, url, expires_at)
        SELECT $1, run_id, $3, $4, owner, epoch, $5, $6, $7, $8, $9, $10 FROM active_runs
        WHERE run_id = $2 AND owner IS NOT NULL
            AND (SELECT count(*) < $12 AND count(*) FILTER (WHERE ",
    is_open!(),
    ") < $11 FROM node_questions AS q WHERE q.run_id = $2)
        ON CONFLICT (id) DO NOTHING RETURNING id
    )
    SELECT EXISTS (SELECT FROM opened) OR EXISTS (SELECT FROM node_questions WHERE id = $1) AS is_so"
);

const FIND: &str = concat!(
    "SELECT q.answer, q.content, ",
    is_open!(),
    " AS is_open FROM node_questions AS q WHERE q.id = $1"
);

const CLOSE: &str = "
    UPDATE node_questions SET content = NULL, answer = coalesce(answer, 'cancelled'),
        decided_at = coalesce(decided_at, now())
    WHERE id = $1";

const LIST: &str = concat!(
    "SELECT q.id, q.node_id, q.attempt, q.tool, q.asked_by, q.message, q.form, q.url, q.asked_at, q.expires_at, q.answer,
        q.decided_as, q.decided_at, ",
    is_open!(),
    " AS is_open FROM node_questions AS q WHERE q.run_id = $1 ORDER BY q.id LIMIT $2"
);

const ANSWER: &str = concat!(
    "WITH answered AS (
        UPDATE node_questions AS q
        SET answer = $3, content = $4, decided_by = $5, decided_as = $6, decided_at = now()
        WHERE q.id = $2 AND q.run_id = $1 AND ",
    is_open!(),
    " RETURNING q.id
    )
    SELECT EXISTS (SELECT FROM answered) AS is_so"
);

#[derive(QueryableByName)]
struct Answered {
    #[diesel(sql_type = Bool)]
    is_so: bool,
}

#[derive(QueryableByName)]
struct FoundRow {
    #[diesel(sql_type = Nullable<Text>)]
    answer: Option<String>,
    #[diesel(sql_type = Nullable<Json>)]
    content: Option<StoredJson>,
    #[diesel(sql_type = Bool)]
    is_open: bool,
}

#[derive(QueryableByName)]
struct QuestionRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    node_id: String,
    #[diesel(sql_type = Integer)]
    attempt: i32,
    #[diesel(sql_type = Text)]
    tool: String,
    #[diesel(sql_type = Text)]
    asked_by: String,
    #[diesel(sql_type = Text)]
    message: String,
    #[diesel(sql_type = Nullable<Json>)]
    form: Option<StoredJson>,
    #[diesel(sql_type = Nullable<Text>)]
    url: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    asked_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    expires_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Text>)]
    answer: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    decided_as: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    decided_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Bool)]
    is_open: bool,
}

impl QuestionRow {
    fn into_question(self, run: RunId) -> Result<Question, DatabaseError> {
        let node: Result<NodeId, _> = self.node_id.parse();
        let request = match (self.form, self.url) {
            (Some(form), _) => QuestionRequest::Form(form.into()),
            (None, url) => QuestionRequest::Visit(url.unwrap_or_default()),
        };
        Ok(Question {
            id: self.id.into(),
            run,
            node: node.map_err(|error| DatabaseError::corrupt("the node of a question", error))?,
            attempt: self.attempt,
            tool: self.tool,
            asked_by: self.asked_by,
            message: self.message,
            request,
            asked_at: self.asked_at,
            expires_at: self.expires_at,
            state: state_of(self.is_open, self.answer.as_deref()),
            decided_by: self.decided_as,
            decided_at: self.decided_at,
        })
    }
}

/// A question that is neither open nor answered was cut off with its call.
fn state_of(is_open: bool, answer: Option<&str>) -> QuestionState {
    let given = QuestionState::ALL.into_iter().find(|state| Some(state.as_str()) == answer);
    if is_open { QuestionState::Open } else { given.unwrap_or(QuestionState::Cancelled) }
}

#[async_trait]
impl QuestionStore for PgControlStore {
    async fn open_question(&self, new: &NewQuestion) -> Result<bool, ControlError> {
        let (form, url) = match &new.question.request {
            QuestionRequest::Form(schema) => (Some(schema), None),
            QuestionRequest::Visit(url) => (None, Some(url.as_str())),
        };
        let conn = self.pool.get().await?;
        let opened: QueryResult<Answered> = diesel::sql_query(OPEN)
            .bind::<SqlUuid, _>(new.id.as_uuid())
            .bind::<SqlUuid, _>(new.run.as_uuid())
            .bind::<Text, _>(new.node.as_str())
            .bind::<Integer, _>(new.attempt)
            .bind::<Text, _>(&new.tool)
            .bind::<Text, _>(&new.question.asked_by)
            .bind::<Text, _>(new.question.message.replace('\0', " "))
            .bind::<Nullable<Json>, _>(form)
            .bind::<Nullable<Text>, _>(url)
            .bind::<Nullable<Timestamptz>, _>(new.expires_at)
            .bind::<BigInt, _>(MAX_OPEN_QUESTIONS)
            .bind::<BigInt, _>(MAX_QUESTIONS)
            .get_results(&mut &*conn)
            .await
            .and_then(exactly_one);
        Ok(opened.map_err(|error| DatabaseError::query("opening a question", error))?.is_so)
    }

    async fn find_answer(&self, question: QuestionId) -> Result<Option<ToolAnswer>, ControlError> {
        let conn = self.pool.get().await?;
        let row: Option<FoundRow> = diesel::sql_query(FIND)
            .bind::<SqlUuid, _>(question.as_uuid())
            .get_result(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("looking for an answer", error))?;
        let Some(FoundRow { answer, content, is_open }) = row else { return Ok(Some(ToolAnswer::Cancelled)) };
        Ok(state_of(is_open, answer.as_deref()).answer(content.map(Value::from)))
    }

    async fn close_question(&self, question: QuestionId) -> Result<(), ControlError> {
        let conn = self.pool.get().await?;
        diesel::sql_query(CLOSE)
            .bind::<SqlUuid, _>(question.as_uuid())
            .execute(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("closing a question", error))?;
        Ok(())
    }

    async fn list_questions(&self, run: RunId) -> Result<Vec<Question>, ControlError> {
        let conn = self.pool.get().await?;
        let rows: Vec<QuestionRow> = diesel::sql_query(LIST)
            .bind::<SqlUuid, _>(run.as_uuid())
            .bind::<BigInt, _>(MAX_QUESTIONS)
            .load(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("listing questions", error))?;
        let questions: Result<Vec<Question>, DatabaseError> =
            rows.into_iter().map(|row| row.into_question(run)).collect();
        Ok(questions?)
    }

    async fn answer_question(
        &self,
        run: &Scoped<Run, right::Run>,
        question: QuestionId,
        answer: &NewAnswer,
    ) -> Result<AnswerOutcome, ControlError> {
        let state = if answer.approve { QuestionState::Accepted } else { QuestionState::Declined };
        let conn = self.pool.get().await?;
        let answered: QueryResult<Answered> = diesel::sql_query(ANSWER)
            .bind::<SqlUuid, _>(run.id.as_uuid())
            .bind::<SqlUuid, _>(question.as_uuid())
            .bind::<Text, _>(state.as_str())
            .bind::<Nullable<Json>, _>(&answer.content)
            .bind::<SqlUuid, _>(answer.decided_by.as_uuid())
            .bind::<Text, _>(&answer.decided_as)
            .get_results(&mut &*conn)
            .await
            .and_then(exactly_one);
        drop(conn);
        let answered = answered.map_err(|error| match violated(&error, Refusal::ForeignKey) {
            Some("node_questions_decided_by_fkey") => DatabaseError::Missing { what: "the account" },
            _ => DatabaseError::query("answering a question", error),
        })?;
        if !answered.is_so {
            return Ok(AnswerOutcome::NotOpen);
        }
        self.wakes.wake(Wake::Signals);
        Ok(AnswerOutcome::Recorded(Box::new(runs::load(&self.runs, run.id).await?)))
    }
}
