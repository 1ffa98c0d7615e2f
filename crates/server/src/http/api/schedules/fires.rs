//! The ledger of a schedule.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_control::{Fire, ScheduleControl};
use gathering_domain::{RunState, ScheduleId};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::api::lists;
use crate::http::api::words::{FireOutcomeSchema, RunStateSchema, SkipReasonSchema};
use gathering_edge::caller::Authenticated;
use gathering_edge::page::{NoFilter, Page, PageQuery};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::query::Query;

/// What became of a due time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScheduleFire)]
pub(crate) struct FireView {
    due_at: DateTime<Utc>,
    /// The entry stands for all due times from `due_at` until here.
    until: Option<DateTime<Utc>>,
    #[schema(value_type = FireOutcomeSchema)]
    outcome: String,
    /// Why it was skipped.
    #[schema(value_type = Option<SkipReasonSchema>)]
    reason: Option<String>,
    /// When it fired.
    fired_at: Option<DateTime<Utc>>,
    /// The run that it started.
    run_id: Option<Uuid>,
    /// The state of that run.
    #[schema(value_type = Option<RunStateSchema>)]
    run_state: Option<&'static str>,
}

impl FireView {
    fn of(fire: Fire) -> Self {
        Self {
            due_at: fire.due_at,
            until: fire.until,
            outcome: fire.outcome,
            reason: fire.reason,
            fired_at: fire.fired_at,
            run_id: fire.run.map(|run| run.as_uuid()),
            run_state: fire.run_state.map(RunState::as_str),
        }
    }
}

/// The ledger of a schedule: what became of each due time, the latest first.
#[utoipa::path(get, path = "/api/v1/schedules/{id}/fires", tag = "schedules", operation_id = "list_schedule_fires", params(("id" = Uuid, Path), PageQuery), responses(
    (status = 200, body = Page<FireView>),
))]
pub(crate) async fn list(
    schedules: web::Data<ScheduleControl>,
    caller: Authenticated,
    id: web::Path<ScheduleId>,
    query: Query<NoFilter>,
) -> Result<HttpResponse, ProblemDetails> {
    let (_, page) = query.read_page(lists::SCHEDULE_FIRES)?;
    let before = page.after().and_then(time_of);
    let fires = schedules.list_fires(&caller.0, *id, before, page.n_rows()).await?;
    Ok(HttpResponse::Ok().json(page.of(fires, |fire| key_of(fire.due_at), FireView::of)))
}

/// A due time as the key of a cursor.
fn key_of(due_at: DateTime<Utc>) -> Uuid {
    Uuid::from_u128(u128::from(due_at.timestamp_micros().cast_unsigned()))
}

fn time_of(key: Uuid) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(u64::try_from(key.as_u128()).ok()?.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_gives_the_due_time_back() {
        for text in ["2026-01-01T00:00:00.000001Z", "1969-12-31T23:59:59Z"] {
            let at: DateTime<Utc> = text.parse().unwrap();
            assert_eq!(time_of(key_of(at)), Some(at));
        }
    }
}
