//! The ledger of a schedule.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_control::{Fire, ScheduleControl};
use gathering_domain::{RunState, ScheduleId};
use gathering_scheduler::Due;
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
    /// The event that it fired for, which was written at `due_at`.
    event_seq: Option<i64>,
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
    pub(super) fn of(fire: Fire) -> Self {
        Self {
            due_at: fire.due_at,
            event_seq: fire.event,
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
    let before = page.after().and_then(due_of);
    let fires = schedules.list_fires(&caller.0, *id, before, page.n_rows()).await?;
    Ok(HttpResponse::Ok().json(page.of(
        fires,
        |fire| key_of(Due { at: fire.due_at, event: fire.event }),
        FireView::of,
    )))
}

/// What was due, as the key of a cursor: the place of the event, or 0, and the time in microseconds.
fn key_of(due: Due) -> Uuid {
    Uuid::from_u64_pair(due.event.unwrap_or(0).cast_unsigned(), due.at.timestamp_micros().cast_unsigned())
}

fn due_of(key: Uuid) -> Option<Due> {
    let (event, at) = key.as_u64_pair();
    let event = Some(event.cast_signed()).filter(|event| *event != 0);
    Some(Due { at: DateTime::from_timestamp_micros(at.cast_signed())?, event })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_gives_back_what_was_due() {
        for (text, event) in [
            ("2026-01-01T00:00:00.000001Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("2026-01-01T00:00:00Z", Some(7)),
        ] {
            let due = Due { at: text.parse().unwrap(), event };
            assert_eq!(due_of(key_of(due)), Some(due));
        }
    }
}
