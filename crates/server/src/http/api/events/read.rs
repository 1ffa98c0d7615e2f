//! Reading events: in pages, or as a stream.

use std::sync::Arc;

use actix_web::http::header::{ACCEPT, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};
use gathering_auth::Caller;
use gathering_control::{EventControl, EventFilter, EventPage, FollowEvents, cloud_event_of};
use gathering_domain::{ProjectId, Secret};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use uuid::Uuid;

use super::stream::{self, Envelope, FrameView, last_event_id};
use super::view::EventView;
use super::watch::{Watch, Watches};
use crate::http::api::lists;
use crate::http::api::words::EventFormatSchema;
use gathering_edge::caller::{Authenticated, bearer};
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
    /// Only events after this one; 0 for all that are kept. Absent: a stream begins with the events that come from now
    /// on, and a list with the oldest.
    #[param(minimum = 0)]
    after: Option<i64>,
    /// `json`: a page. `cloudevents`: each event as a CloudEvent.
    #[param(value_type = Option<EventFormatSchema>, inline)]
    format: Option<String>,
}

impl ReadEvents {
    fn filter(&self) -> Result<EventFilter, ProblemDetails> {
        EventFilter::read(self.r#type.as_deref(), self.when.as_deref()).map_err(ProblemDetails::invalid)
    }

    /// How events are to be written.
    pub(super) fn envelope(&self, headers: &HeaderMap) -> Envelope {
        let is_cloud =
            self.format.as_deref() == Some("cloudevents") || accepts(headers, "application/cloudevents+json");
        if is_cloud { Envelope::CloudEvent } else { Envelope::Plain }
    }

    /// Whether a page is asked for, and no stream.
    fn is_page(&self, headers: &HeaderMap) -> bool {
        let is_named = self.format.as_deref() == Some("json");
        is_named || (accepts(headers, "application/json") && !accepts(headers, "text/event-stream"))
    }

    /// Begins to watch from after the event that the client has seen last.
    pub(super) async fn begin(
        &self,
        watches: Arc<Watches>,
        caller: Caller,
        headers: &HeaderMap,
        last_seen: Option<i64>,
    ) -> Result<Watch, ProblemDetails> {
        let project = self.project_id.map(ProjectId::from);
        let request = FollowEvents { project, filter: self.filter()?, after: last_seen.or(self.after) };
        let token = Secret::from(bearer(headers).unwrap_or_default());
        watches.begin(caller, token, request).await
    }
}

/// Whether a media type is in the header `Accept`.
fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let values = headers.get_all(ACCEPT).filter_map(|value| value.to_str().ok());
    let mut types = values.flat_map(|value| value.split(','));
    types.any(|one| one.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type))
}

/// The events of the projects that the caller sees, in the order of the log, which no event is missing of.
///
/// As a stream of server-sent events, each with its `seq` as `id` and its type as `event`. A client that reconnects with
/// `Last-Event-ID`, to any instance, misses nothing. If retention has deleted what comes next, the event `gap` says so. A
/// comment every 15 seconds keeps the connection open. The stream ends when the instance stops, or when the caller loses
/// access.
///
/// With `Accept: application/json` or `format=json` as a page, the oldest first. Its `next_cursor` is never null: the next
/// page goes on where this one ended, and is empty until there is more.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", operation_id = "read_events", params(ReadEvents, PageQuery,
    ("Last-Event-ID" = Option<i64>, Header, description = "Of a stream: only the events after this one"),
), responses(
    (status = 200, description = "A stream, or a page", content((FrameView = "text/event-stream"), (Page<EventView> = "application/json"))),
    (status = 404, description = "No such project"),
    (status = 429, description = "Too many streams of this account"),
    (status = 503, description = "Too many streams, or the server is shutting down"),
))]
pub(crate) async fn read(
    events: web::Data<EventControl>,
    watches: web::Data<Watches>,
    caller: Authenticated,
    query: Query<ReadEvents>,
    request: HttpRequest,
) -> Result<HttpResponse, ProblemDetails> {
    let (query, page) = query.read_page(lists::EVENTS)?;
    let headers = request.headers();
    let envelope = query.envelope(headers);
    let from_cursor = page.after().and_then(|key: Uuid| i64::try_from(key.as_u128()).ok());
    if !query.is_page(headers) {
        let last_seen = last_event_id(headers)?.or(from_cursor);
        let watch = query.begin(watches.into_inner(), caller.0, headers, last_seen).await?;
        return Ok(stream::answer(watch, envelope));
    }
    let after = from_cursor.or(query.after).unwrap_or(0);
    let project = query.project_id.map(ProjectId::from);
    let EventPage { events, until, .. } =
        events.list(&caller.0, project, &query.filter()?, after, page.limit()).await?;
    let next = Some(Uuid::from_u128(u128::try_from(until).unwrap_or_default()));
    Ok(match envelope {
        Envelope::Plain => {
            let items: Vec<EventView> = events.into_iter().map(Into::into).collect();
            HttpResponse::Ok().json(page.until(items, next))
        }
        Envelope::CloudEvent => {
            let items: Vec<Value> = events.iter().map(cloud_event_of).collect();
            HttpResponse::Ok().json(page.until(items, next))
        }
    })
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn read(format: Option<&str>, accept: Option<&'static str>) -> (bool, Envelope) {
        let format = format.map(str::to_owned);
        let query = ReadEvents { project_id: None, r#type: None, when: None, after: None, format };
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
        }
        (query.is_page(&headers), query.envelope(&headers))
    }

    #[test]
    fn the_form_is_chosen_by_the_header_or_by_the_query() {
        use Envelope::{CloudEvent, Plain};
        for (format, accept, form) in [
            (None, None, (false, Plain)),
            (None, Some("*/*"), (false, Plain)),
            (None, Some("text/event-stream"), (false, Plain)),
            (None, Some("application/json"), (true, Plain)),
            (None, Some("text/event-stream, Application/JSON;q=0.5"), (false, Plain)),
            (None, Some("application/cloudevents+json"), (false, CloudEvent)),
            (None, Some("application/json, application/cloudevents+json"), (true, CloudEvent)),
            (Some("json"), Some("text/event-stream"), (true, Plain)),
            (Some("cloudevents"), None, (false, CloudEvent)),
            (Some("cloudevents"), Some("application/json"), (true, CloudEvent)),
        ] {
            assert_eq!(read(format, accept), form, "{format:?} {accept:?}");
        }
    }
}
