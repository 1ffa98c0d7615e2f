//! Runs: started, listed, shown, asked to stop.

pub(crate) mod decide;
pub(crate) mod rerun;

use actix_web::http::header::HeaderMap;
use actix_web::{HttpRequest, HttpResponse, get, post, web};
use chrono::{DateTime, Utc};
use gathering_auth::{Action, Caller};
use gathering_dag_engine::{Fields, JournalEntry, NewRun, Shape};
use gathering_domain::{Digest, PipelineId, Problems, RunId, RunState};
use gathering_persistence::{Acceptance, CancelRequest, Pipeline, RunFilter, RunOrigin, RunRow};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::body::{Body, FromFields, LARGE, read_object};
use super::caller::Authenticated;
use super::page::{self, List, Page};
use super::problem::{Kind, Problem, ProblemView};
use super::query::Query;
use super::run_view::{JournalEntryView, NodeRuns, RunView};
use super::state::{AppState, visible_to};

const DEFAULT_PRIORITY: i32 = 5;
const JOURNAL_PAGE: usize = 5000;
const MAX_KEY_LEN: usize = 255;

/// A run to be started.
#[derive(ToSchema)]
pub(crate) struct StartRun {
    /// What it is started with; an empty object by default.
    #[schema(value_type = Object, required = false)]
    input: Value,
    /// 1 to 10; the higher the sooner. 5 by default.
    #[schema(required = false, minimum = 1, maximum = 10)]
    priority: i32,
    /// Not to begin before.
    #[schema(required = false)]
    available_at: Option<DateTime<Utc>>,
    /// Of the pipeline; the latest by default.
    #[schema(required = false, minimum = 1)]
    version: Option<i32>,
}

impl FromFields for StartRun {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let input = match fields.optional("input", Shape::Any) {
            None | Some(Value::Null) => json!({}),
            Some(input) => input.clone(),
        };
        let whole = |value: Option<&Value>| {
            value.and_then(Value::as_i64).and_then(|number| i32::try_from(number).ok())
        };
        let priority = whole(fields.optional("priority", Shape::Whole(1, 10))).unwrap_or(DEFAULT_PRIORITY);
        let version = whole(fields.optional("version", Shape::Whole(1, i32::MAX as u64)));
        let text = fields.optional("available_at", Shape::Text).and_then(Value::as_str);
        let available_at = page::time("available_at", text, fields.problems());
        Some(Self { input, priority, available_at, version })
    }
}

/// Starts a run of a pipeline: once this is answered, the run will reach a terminal state.
#[utoipa::path(tag = "runs", operation_id = "start_run", params(
    ("id" = Uuid, Path, description = "The pipeline"),
    ("Idempotency-Key" = Option<String>, Header, description = "The same key and body answer the same run"),
), request_body = StartRun, responses(
    (status = 202, body = RunView),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
    (status = 409, description = "The key was used for another request, or the pipeline is disabled", body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
#[post("/pipelines/{id}/runs")]
pub(crate) async fn start(
    state: web::Data<AppState>,
    caller: Authenticated,
    id: web::Path<String>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, Problem> {
    let pipeline = state.pipeline(&caller.0, &id, Action::Run).await?;
    let key = idempotency_key(request.headers())?;
    let (body, source) = body.value(LARGE).await?;
    let run = source.placing(async {
        let wanted: StartRun = read_object(&body)?;
        let idempotency = key.map(|key| (key, request_digest(pipeline.id, &body)));
        accept(&state, &caller.0, &pipeline, wanted, idempotency).await
    });
    let run = run.await?;
    let location = format!("/api/v1/runs/{}", run.id);
    Ok(HttpResponse::Accepted().insert_header(("location", location)).json(RunView::of(run)))
}

async fn accept(
    state: &AppState,
    caller: &Caller,
    pipeline: &Pipeline,
    wanted: StartRun,
    idempotency: Option<(String, Digest)>,
) -> Result<RunRow, Problem> {
    if !pipeline.enabled {
        return Err(Problem::conflict("the pipeline is disabled: enable it first"));
    }
    let version = wanted.version.unwrap_or(pipeline.version);
    let graph = state.pipelines.find_graph(pipeline.id, version).await?;
    let graph = graph.ok_or_else(|| match wanted.version {
        Some(version) => Problem::invalid_field("version", format!("the pipeline has no version {version}")),
        // It was deleted meanwhile.
        None => Problem::not_found(),
    })?;
    let run = NewRun {
        id: RunId::new(),
        project: pipeline.project,
        graph,
        input: wanted.input,
        priority: wanted.priority,
        available_at: wanted.available_at,
        timeout: state.outline(graph).await?.timeout,
    };
    let origin = RunOrigin {
        kind: "pipeline".to_owned(),
        trigger: json!({ "type": "api", "user_id": caller.user }),
        pipeline: Some((pipeline.id, version)),
        idempotency,
        ..RunOrigin::default()
    };
    let accepted = match state.runs.accept(&run, &origin).await? {
        Acceptance::Accepted(run) => {
            tracing::info!(run.id = %run, pipeline.id = %pipeline.id, "run {run} of pipeline {} is accepted", pipeline.id);
            run
        }
        Acceptance::AcceptedBefore(run) => run,
        Acceptance::OtherRequest => {
            return Err(Problem::conflict("this idempotency key was used for another request"));
        }
    };
    state.runs.find(accepted).await?.ok_or_else(|| Problem::internal("an accepted run is not there"))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= MAX_KEY_LEN => Ok(Some(key.to_owned())),
        _ => {
            let detail = format!("the Idempotency-Key must have 1 to {MAX_KEY_LEN} visible ASCII characters");
            Err(Problem::new(Kind::Invalid, detail))
        }
    }
}

/// What makes two requests the same: the pipeline and the body as it was sent.
fn request_digest(pipeline: PipelineId, body: &Value) -> Digest {
    Digest::of_json(&json!({ "pipeline_id": pipeline, "body": body }))
}

/// Which runs to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListRuns {
    /// Only in this state.
    state: Option<String>,
    /// Only of this pipeline.
    pipeline_id: Option<String>,
    /// Only of this schedule.
    schedule_id: Option<String>,
    /// Only of this project.
    project_id: Option<String>,
    /// 1 to 200; 50 by default.
    limit: Option<String>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The runs that the caller may see, the newest first.
#[utoipa::path(tag = "runs", operation_id = "list_runs", params(ListRuns), responses(
    (status = 200, body = Page<RunView>),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
#[get("/runs")]
pub(crate) async fn list(
    state: web::Data<AppState>,
    caller: Authenticated,
    query: Query<ListRuns>,
) -> Result<HttpResponse, Problem> {
    let query = query.read()?;
    let mut problems = Problems::new();
    let limit = page::limit(query.limit.as_deref(), &mut problems);
    let filter = RunFilter {
        visible_to: visible_to(&caller.0)?,
        project: page::id("project_id", query.project_id.as_deref(), &mut problems),
        pipeline: page::id("pipeline_id", query.pipeline_id.as_deref(), &mut problems),
        schedule: page::id("schedule_id", query.schedule_id.as_deref(), &mut problems),
        state: page::id::<RunState>("state", query.state.as_deref(), &mut problems),
        before: page::cursor(List::Runs, query.cursor.as_deref(), &mut problems).map(Into::into),
    };
    problems.into_result().map_err(Problem::invalid)?;
    let rows = state.runs.list(&filter, limit + 1).await?;
    let page = Page::of(List::Runs, rows, limit, |run| run.id.as_uuid(), RunView::of);
    Ok(HttpResponse::Ok().json(page))
}

/// One run, with what became of its nodes.
#[utoipa::path(tag = "runs", operation_id = "get_run", params(("id" = Uuid, Path)), responses(
    (status = 200, body = RunView),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
))]
#[get("/runs/{id}")]
pub(crate) async fn show(
    state: web::Data<AppState>,
    caller: Authenticated,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    // The run first: what its journal says is then at least as far.
    let run = state.run(&caller.0, &id, Action::Read).await?;
    let outline = state.outline(run.graph).await?;
    let nodes = fold(&state, run.id).await?;
    Ok(HttpResponse::Ok().json(RunView::with_nodes(run, &outline, nodes)))
}

async fn fold(state: &AppState, run: RunId) -> Result<NodeRuns, Problem> {
    let (mut nodes, mut after) = (NodeRuns::default(), 0);
    loop {
        let entries = state.engine.store().load_journal(run, after, JOURNAL_PAGE).await?;
        nodes.apply(&entries).map_err(Problem::internal)?;
        match entries.last() {
            Some(last) if entries.len() == JOURNAL_PAGE => after = last.seq,
            _ => return Ok(nodes),
        }
    }
}

/// Asks for the end of a run. It reaches whoever drives the run; what is answered is recorded.
#[utoipa::path(tag = "runs", operation_id = "cancel_run", params(("id" = Uuid, Path)), responses(
    (status = 202, body = RunView),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
    (status = 409, description = "It has ended already", body = ProblemView, content_type = "application/problem+json"),
))]
#[post("/runs/{id}/cancel")]
pub(crate) async fn cancel(
    state: web::Data<AppState>,
    caller: Authenticated,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let run = state.run(&caller.0, &id, Action::Run).await?.id;
    match state.runs.request_cancel(run).await? {
        CancelRequest::Requested => {
            tracing::info!(run.id = %run, "the end of run {run} is asked for");
            let run = state.runs.find(run).await?.ok_or_else(Problem::not_found)?;
            Ok(HttpResponse::Accepted().json(RunView::of(run)))
        }
        CancelRequest::AlreadyEnded => Err(Problem::conflict("the run has ended already")),
        CancelRequest::Missing => Err(Problem::not_found()),
    }
}

/// From where to read a journal.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadJournal {
    /// Only entries after this one; 0 by default.
    after: Option<String>,
    /// 1 to 200; 50 by default.
    limit: Option<String>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// What happened inside a run, in order.
#[utoipa::path(tag = "runs", operation_id = "read_run_journal", params(("id" = Uuid, Path), ReadJournal), responses(
    (status = 200, body = Page<JournalEntryView>),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
))]
#[get("/runs/{id}/journal")]
pub(crate) async fn journal(
    state: web::Data<AppState>,
    caller: Authenticated,
    id: web::Path<String>,
    query: Query<ReadJournal>,
) -> Result<HttpResponse, Problem> {
    let run = state.run(&caller.0, &id, Action::Read).await?;
    let query = query.read()?;
    let mut problems = Problems::new();
    let limit = page::limit(query.limit.as_deref(), &mut problems);
    let after: i64 = page::id("after", query.after.as_deref(), &mut problems).unwrap_or(0);
    let cursor = page::cursor(List::Journal, query.cursor.as_deref(), &mut problems);
    problems.into_result().map_err(Problem::invalid)?;
    let from_cursor = cursor.and_then(|cursor| i64::try_from(cursor.as_u128()).ok());
    let entries = state.engine.store().load_journal(run.id, from_cursor.unwrap_or(after), limit + 1).await?;
    let key = |entry: &JournalEntry| Uuid::from_u128(u128::try_from(entry.seq).unwrap_or_default());
    let page = Page::of(List::Journal, entries, limit, key, JournalEntryView::of);
    Ok(HttpResponse::Ok().json(page))
}

/// The whole journal of a run.
async fn load_journal(state: &AppState, run: RunId) -> Result<Vec<JournalEntry>, Problem> {
    let mut all: Vec<JournalEntry> = Vec::new();
    loop {
        let after = all.last().map_or(0, |last| last.seq);
        let entries = state.engine.store().load_journal(run, after, JOURNAL_PAGE).await?;
        let is_last = entries.len() < JOURNAL_PAGE;
        all.extend(entries);
        if is_last {
            return Ok(all);
        }
    }
}

impl AppState {
    /// The run with this id, if the caller may do `action` with it.
    ///
    /// # Errors
    /// 404 for what is absent, invisible or no id at all; 403 for what the caller's role does not allow.
    pub(crate) async fn run(&self, caller: &Caller, id: &str, action: Action) -> Result<RunRow, Problem> {
        let id: RunId = id.parse().map_err(|_| Problem::not_found())?;
        let run = self.runs.find(id).await?.ok_or_else(Problem::not_found)?;
        self.authorize(caller, run.project, action).await?;
        Ok(run)
    }
}
