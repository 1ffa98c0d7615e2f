//! Runs: started, listed, shown, cancelled.

pub(crate) mod decide;
pub(crate) mod rerun;
pub(crate) mod start;
pub(crate) mod top_up;

use actix_web::{HttpResponse, web};
use gathering_auth::Caller;
use gathering_control::right::{self, Right};
use gathering_control::{Run, Scoped, visible_to};
use gathering_dag_engine::JournalEntry;
use gathering_domain::{RunId, RunState};
use gathering_persistence::RunFilter;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::http::api::lists;
use crate::http::api::run_view::{JournalEntryView, RunView};
use crate::http::api::words::RunStateSchema;
use crate::http::state::AppState;
use gathering_edge::caller::Authenticated;
use gathering_edge::page::{self, Page};
use gathering_edge::problem::{ProblemDetails, ProblemView};
use gathering_edge::query::Query;
use gathering_edge::values::Word;

/// Which runs to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListRuns {
    /// Only in this state.
    #[param(value_type = Option<RunStateSchema>, inline)]
    state: Option<Word<RunState>>,
    /// Only of this pipeline.
    pipeline_id: Option<Uuid>,
    /// Only of this schedule.
    schedule_id: Option<Uuid>,
    /// Only of this project.
    project_id: Option<Uuid>,
    /// The length of a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    #[expect(dead_code, reason = "`Query::read_page` reads it")]
    cursor: Option<String>,
}

/// The runs that the caller may see, the newest first.
#[utoipa::path(get, path = "/api/v1/runs", tag = "runs", operation_id = "list_runs", params(ListRuns), responses(
    (status = 200, body = Page<RunView>),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn list(
    state: web::Data<AppState>,
    caller: Authenticated,
    query: Query<ListRuns>,
) -> Result<HttpResponse, ProblemDetails> {
    let (query, before) = query.read_page(lists::RUNS)?;
    let limit = query.limit.unwrap_or(page::DEFAULT_LIMIT);
    let filter = RunFilter {
        visible_to: visible_to(&caller.0)?,
        project: query.project_id.map(Into::into),
        pipeline: query.pipeline_id.map(Into::into),
        schedule: query.schedule_id.map(Into::into),
        state: query.state.map(|Word(state)| state),
        before: before.map(Into::into),
    };
    let rows = state.runs.list(&filter, limit + 1).await?;
    let page = Page::of(lists::RUNS, rows, limit, |run| run.id.as_uuid(), RunView::of);
    Ok(HttpResponse::Ok().json(page))
}

/// One run, with what became of its nodes.
#[utoipa::path(get, path = "/api/v1/runs/{id}", tag = "runs", operation_id = "get_run", params(("id" = Uuid, Path)), responses(
    (status = 200, body = RunView),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn show(
    state: web::Data<AppState>,
    caller: Authenticated,
    id: web::Path<String>,
) -> Result<HttpResponse, ProblemDetails> {
    // The run first: what its journal says is then at least as far.
    let run = state.run::<right::Read>(&caller.0, &id).await?;
    let summary = state.control.graphs.summarize(run.graph).await?;
    let nodes = state.control.runs.load_nodes(&run).await?;
    Ok(HttpResponse::Ok().json(RunView::with_nodes(run.into_thing(), &summary, nodes)))
}

/// The answer to a request that started a run, now or before.
fn accepted(run: Run) -> HttpResponse {
    let location = format!("/api/v1/runs/{}", run.id);
    HttpResponse::Accepted().insert_header(("location", location)).json(RunView::of(run))
}

/// Requests the cancellation of a run. The request is recorded before the answer, and reaches the instance that drives
/// the run.
#[utoipa::path(post, path = "/api/v1/runs/{id}/cancel", tag = "runs", operation_id = "cancel_run", params(("id" = Uuid, Path)), responses(
    (status = 202, body = RunView),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
    (status = 409, description = "It has ended already", body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn cancel(
    state: web::Data<AppState>,
    caller: Authenticated,
    id: web::Path<String>,
) -> Result<HttpResponse, ProblemDetails> {
    let run: RunId = id.parse().map_err(|_| ProblemDetails::not_found())?;
    let run = state.control.runs.cancel(&caller.0, run).await?;
    Ok(HttpResponse::Accepted().json(RunView::of(run)))
}

/// From where to read a journal.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadJournal {
    /// Only entries after this one; 0 by default.
    after: Option<i64>,
    /// The length of a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    #[expect(dead_code, reason = "`Query::read_page` reads it")]
    cursor: Option<String>,
}

/// What happened inside a run, in order.
#[utoipa::path(get, path = "/api/v1/runs/{id}/journal", tag = "runs", operation_id = "read_run_journal", params(("id" = Uuid, Path), ReadJournal), responses(
    (status = 200, body = Page<JournalEntryView>),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn journal(
    state: web::Data<AppState>,
    caller: Authenticated,
    id: web::Path<String>,
    query: Query<ReadJournal>,
) -> Result<HttpResponse, ProblemDetails> {
    let run = state.run::<right::Read>(&caller.0, &id).await?;
    let (query, cursor) = query.read_page(lists::JOURNAL)?;
    let limit = query.limit.unwrap_or(page::DEFAULT_LIMIT);
    let after = query.after.unwrap_or(0);
    let from_cursor = cursor.and_then(|cursor| i64::try_from(cursor.as_u128()).ok());
    let entries = state.engine.store().load_journal(run.id, from_cursor.unwrap_or(after), limit + 1).await?;
    let key = |entry: &JournalEntry| Uuid::from_u128(u128::try_from(entry.seq).unwrap_or_default());
    let page = Page::of(lists::JOURNAL, entries, limit, key, JournalEntryView::of);
    Ok(HttpResponse::Ok().json(page))
}

impl AppState {
    /// The run with this id, if the caller may do `R` with it.
    ///
    /// # Errors
    /// 404 for what is absent, invisible or no id at all; 403 for what the caller's role does not allow.
    pub(crate) async fn run<R: Right>(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<Scoped<Run, R>, ProblemDetails> {
        let id: RunId = id.parse().map_err(|_| ProblemDetails::not_found())?;
        Ok(self.control.runs.find(caller, id).await?)
    }
}
