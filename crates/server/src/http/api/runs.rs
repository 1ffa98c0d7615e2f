//! Runs: started, listed, shown, cancelled.

pub(crate) mod decide;
pub(crate) mod rerun;
pub(crate) mod start;
pub(crate) mod top_up;

use actix_web::{HttpResponse, web};
use gathering_control::{ControlError, RunControl, visible_to};
use gathering_dag_engine::JournalEntry;
use gathering_domain::{RunId, RunState};
use gathering_persistence::{RunFilter, Runs};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::http::api::lists;
use crate::http::api::run_view::{JournalEntryView, RunView};
use crate::http::api::words::RunStateSchema;
use gathering_edge::caller::Authenticated;
use gathering_edge::page::{Page, PageQuery};
use gathering_edge::problem::ProblemDetails;
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
}

/// The runs that the caller may see, the newest first.
#[utoipa::path(get, path = "/api/v1/runs", tag = "runs", operation_id = "list_runs", params(ListRuns, PageQuery), responses(
    (status = 200, body = Page<RunView>),
))]
pub(crate) async fn list(
    runs: web::Data<Runs>,
    caller: Authenticated,
    query: Query<ListRuns>,
) -> Result<HttpResponse, ProblemDetails> {
    let (query, page) = query.read_page(lists::RUNS)?;
    let filter = RunFilter {
        visible_to: visible_to(&caller.0)?,
        project: query.project_id.map(Into::into),
        pipeline: query.pipeline_id.map(Into::into),
        schedule: query.schedule_id.map(Into::into),
        state: query.state.map(|Word(state)| state),
        before: page.after(),
    };
    let rows = runs.list(&filter, page.n_rows()).await.map_err(ControlError::from)?;
    Ok(HttpResponse::Ok().json(page.of(rows, |run| run.id.as_uuid(), RunView::of)))
}

/// One run, with what became of its nodes.
#[utoipa::path(get, path = "/api/v1/runs/{id}", tag = "runs", operation_id = "get_run", params(("id" = Uuid, Path)), responses(
    (status = 200, body = RunView),
))]
pub(crate) async fn show(
    runs: web::Data<RunControl>,
    caller: Authenticated,
    id: web::Path<RunId>,
) -> Result<HttpResponse, ProblemDetails> {
    let details = runs.show(&caller.0, *id).await?;
    Ok(HttpResponse::Ok().json(RunView::with_nodes(details)))
}

/// The answer to a request that started a run, now or before.
pub(super) fn accepted(run: RunView) -> HttpResponse {
    let location = format!("/api/v1/runs/{}", run.id);
    HttpResponse::Accepted().insert_header(("location", location)).json(run)
}

/// Requests the cancellation of a run. The request is recorded before the answer, and reaches the instance that drives
/// the run.
#[utoipa::path(post, path = "/api/v1/runs/{id}/cancel", tag = "runs", operation_id = "cancel_run", params(("id" = Uuid, Path)), responses(
    (status = 202, body = RunView),
    (status = 409, description = "It has ended already"),
))]
pub(crate) async fn cancel(
    runs: web::Data<RunControl>,
    caller: Authenticated,
    id: web::Path<RunId>,
) -> Result<HttpResponse, ProblemDetails> {
    let run = runs.cancel(&caller.0, *id).await?;
    Ok(HttpResponse::Accepted().json(RunView::of(run)))
}

/// From where to read a journal.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadJournal {
    /// Only entries after this one; 0 by default.
    after: Option<i64>,
}

/// What happened inside a run, in order.
#[utoipa::path(get, path = "/api/v1/runs/{id}/journal", tag = "runs", operation_id = "read_run_journal", params(("id" = Uuid, Path), ReadJournal, PageQuery), responses(
    (status = 200, body = Page<JournalEntryView>),
))]
pub(crate) async fn journal(
    runs: web::Data<RunControl>,
    caller: Authenticated,
    id: web::Path<RunId>,
    query: Query<ReadJournal>,
) -> Result<HttpResponse, ProblemDetails> {
    let (query, page) = query.read_page(lists::JOURNAL)?;
    let from_cursor = page.after().and_then(|key: Uuid| i64::try_from(key.as_u128()).ok());
    let after = from_cursor.or(query.after).unwrap_or(0);
    let entries = runs.list_journal(&caller.0, *id, after, page.n_rows()).await?;
    let key = |entry: &JournalEntry| Uuid::from_u128(u128::try_from(entry.seq).unwrap_or_default());
    Ok(HttpResponse::Ok().json(page.of(entries, key, JournalEntryView::of)))
}
