//! Reading events: as pages, as a stream of server-sent events.

use actix_web::{HttpResponse, web};
use gathering_control::{EventControl, EventFilter, EventPage};
use gathering_domain::ProjectId;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::view::EventView;
use crate::http::api::lists;
use gathering_edge::caller::Authenticated;
use gathering_edge::page::{Page, PageQuery};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::query::Query;

/// Which events to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadEvents {
    /// Only of this project.
    project_id: Option<Uuid>,
    /// Only of these types: names such as `order.paid`, or patterns such as `run.*`, with commas between them.
    r#type: Option<String>,
    /// Only those for which this expression over `event` is true, such as `event.data.total > 10`.
    when: Option<String>,
    /// Only events after this one; 0 for all that are kept.
    #[param(minimum = 0)]
    after: Option<i64>,
}

impl ReadEvents {
    pub(super) fn filter(&self) -> Result<EventFilter, ProblemDetails> {
        EventFilter::read(self.r#type.as_deref(), self.when.as_deref()).map_err(ProblemDetails::invalid)
    }
}

/// The events of the projects that the caller sees, in the order of the log, the oldest first. `next_cursor` is never
/// null: the next page goes on where this one ended, and is empty until there is more.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", operation_id = "read_events", params(ReadEvents, PageQuery), responses(
    (status = 200, body = Page<EventView>),
    (status = 404, description = "No such project"),
))]
pub(crate) async fn read(
    events: web::Data<EventControl>,
    caller: Authenticated,
    query: Query<ReadEvents>,
) -> Result<HttpResponse, ProblemDetails> {
    let (query, page) = query.read_page(lists::EVENTS)?;
    let filter = query.filter()?;
    let from_cursor = page.after().and_then(|key: Uuid| i64::try_from(key.as_u128()).ok());
    let after = from_cursor.or(query.after).unwrap_or(0);
    let project = query.project_id.map(ProjectId::from);
    let EventPage { events, until, .. } =
        events.list(&caller.0, project, &filter, after, page.limit()).await?;
    let next = Uuid::from_u128(u128::try_from(until).unwrap_or_default());
    let items: Vec<EventView> = events.into_iter().map(Into::into).collect();
    Ok(HttpResponse::Ok().json(page.until(items, Some(next))))
}
