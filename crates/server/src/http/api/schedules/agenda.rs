//! What was due and what will be, over all schedules: what a calendar shows.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_control::{AgendaRange, Cut, ScheduleControl};
use gathering_domain::ProjectId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::fires::FireView;
use gathering_edge::caller::Authenticated;
use gathering_edge::problem::ProblemDetails;
use gathering_edge::query::Query;

/// How many items an answer has, unless fewer are asked for.
const MAX_ITEMS: usize = 1000;

/// Which part of the calendar to show.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ShowAgenda {
    /// Only of this project.
    project_id: Option<Uuid>,
    /// Not before this time.
    from: DateTime<Utc>,
    /// Before this time, at most 100 days later.
    to: DateTime<Utc>,
    /// How many items to show.
    #[param(minimum = 1, maximum = 1000, default = 1000)]
    limit: Option<usize>,
}

impl ShowAgenda {
    fn range(&self) -> (AgendaRange, usize) {
        let project = self.project_id.map(ProjectId::from);
        let range = AgendaRange { project, from: self.from, to: self.to };
        (range, self.limit.unwrap_or(MAX_ITEMS))
    }
}

/// An entry of the ledger of a schedule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AgendaFire)]
pub(crate) struct AgendaFireView {
    schedule_id: Uuid,
    schedule_name: String,
    #[serde(flatten)]
    fire: FireView,
}

/// A due time of a schedule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UpcomingDue)]
pub(crate) struct UpcomingView {
    due_at: DateTime<Utc>,
    schedule_id: Uuid,
    schedule_name: String,
}

/// What was due in a part of time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AgendaFires)]
pub(crate) struct AgendaFiresView {
    items: Vec<AgendaFireView>,
    /// Whether there is more in the range than is shown: ask for a shorter one.
    truncated: bool,
}

/// What will be due in a part of time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AgendaUpcoming)]
pub(crate) struct AgendaUpcomingView {
    items: Vec<UpcomingView>,
    /// Whether there is more in the range than is shown: ask for a shorter one.
    truncated: bool,
}

/// The ledgers of all schedules that the caller may see: what became of the due times of a range, the latest first.
#[utoipa::path(get, path = "/api/v1/schedules/fires", tag = "schedules", operation_id = "list_fires", params(ShowAgenda), responses(
    (status = 200, body = AgendaFiresView),
))]
pub(crate) async fn fires(
    schedules: web::Data<ScheduleControl>,
    caller: Authenticated,
    query: Query<ShowAgenda>,
) -> Result<HttpResponse, ProblemDetails> {
    let (range, limit) = query.read()?.range();
    let Cut { items, is_cut } = schedules.list_all_fires(&caller.0, range, limit).await?;
    let items = items.into_iter().map(|item| AgendaFireView {
        schedule_id: item.schedule.as_uuid(),
        schedule_name: item.name,
        fire: FireView::of(item.fire),
    });
    Ok(HttpResponse::Ok().json(AgendaFiresView { items: items.collect(), truncated: is_cut }))
}

/// The due times that come in a range, of all schedules that the caller may see, the earliest first. Those of paused
/// schedules are left out.
#[utoipa::path(get, path = "/api/v1/schedules/upcoming", tag = "schedules", operation_id = "list_upcoming", params(ShowAgenda), responses(
    (status = 200, body = AgendaUpcomingView),
))]
pub(crate) async fn upcoming(
    schedules: web::Data<ScheduleControl>,
    caller: Authenticated,
    query: Query<ShowAgenda>,
) -> Result<HttpResponse, ProblemDetails> {
    let (range, limit) = query.read()?.range();
    let Cut { items, is_cut } = schedules.list_upcoming(&caller.0, range, limit).await?;
    let items = items.into_iter().map(|due| UpcomingView {
        due_at: due.due_at,
        schedule_id: due.schedule.as_uuid(),
        schedule_name: due.name,
    });
    Ok(HttpResponse::Ok().json(AgendaUpcomingView { items: items.collect(), truncated: is_cut }))
}
