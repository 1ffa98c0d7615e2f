//! The event stream of a run: server-sent events from its journal.
//!
//! Owns the limits on streams and the form of events. A stream is only the body of its answer: it reads when the
//! client takes more, and ends with the connection. Every event with an id is in the journal, so a client that
//! reconnects with the last id, to any instance, misses none of them. What tools tell is in none: it is for those who
//! are there.

pub(crate) mod event;
mod follow;

use std::sync::Arc;

use actix_web::http::header::{HeaderMap, HeaderName};
use actix_web::{HttpRequest, HttpResponse, web};
use futures::stream::unfold;
use gathering_auth::Auth;
use gathering_control::{ProjectControl, RunControl, right};
use gathering_dag_engine::Seq;
use gathering_domain::{RunId, Secret};
use gathering_nodes::RunNotices;
use gathering_persistence::{Runs, WakeBus};

use event::RunEventView;
use follow::Follow;
use gathering_edge::caller::{Authenticated, bearer};
use gathering_edge::limits::Slots;
use gathering_edge::problem::{Kind, ProblemDetails};
use gathering_edge::readiness::Readiness;

/// The maximum per instance: each stream queries the database up to four times a second while another instance drives
/// its run.
const MAX_STREAMS: usize = 256;

/// The maximum per account, so that no account uses up the streams of all others.
const MAX_STREAMS_OF_ONE: usize = 64;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Tells proxies to pass on every event at once.
const UNBUFFERED: (&str, &str) = ("x-accel-buffering", "no");

/// The slots for streams, and what wakes them. Cloning is cheap and shares them.
#[derive(Clone)]
pub(crate) struct Streams {
    slots: Slots,
    wakes: WakeBus,
    notices: RunNotices,
}

/// What a stream reads, and what it asks whether it may go on.
pub(crate) struct Sources {
    pub(crate) auth: Arc<Auth>,
    pub(crate) projects: ProjectControl,
    pub(crate) runs: Runs,
    pub(crate) readiness: Readiness,
}

impl Streams {
    /// The slots of an instance.
    pub(crate) fn new(wakes: WakeBus, notices: RunNotices) -> Self {
        Self { slots: Slots::new("streams", MAX_STREAMS, MAX_STREAMS_OF_ONE), wakes, notices }
    }
}

/// Streams the events of a run: one for each entry of its journal, from the first or after `Last-Event-ID`, with the
/// `seq` of the entry as `id`, its kind as `event` and the entry as `data`. After the last entry of a run that has
/// ended, the event `run_ended` carries the run, and the stream ends.
///
/// In between, the event `tool_notice` says what a tool of a mounted MCP server tells about a call that goes on. It has
/// no `id`, is sent to those who follow the run at that moment on the instance that drives it, and is sent once. Of a
/// run that tells much it is 20 a second, after up to 50 at once, and of one call 1,000; `left_out` counts what is
/// missing.
///
/// A comment every 15 seconds keeps the connection open. The stream also ends when the instance stops or when the
/// caller loses access to the run: reconnect with `Last-Event-ID`.
#[utoipa::path(get, path = "/api/v1/runs/{id}/stream", tag = "runs", operation_id = "stream_run", params(
    ("id" = Uuid, Path),
    ("Last-Event-ID" = Option<i64>, Header, description = "Only the entries after this one"),
), responses(
    (status = 200, description = "Server-sent events: as many as the run has, each in the form of the schema, one field a line", body = RunEventView, content_type = "text/event-stream"),
    (status = 422, description = "`Last-Event-ID` is not a number"),
    (status = 429, description = "Too many streams of this account"),
    (status = 503, description = "Too many streams, or the server is shutting down"),
))]
pub(crate) async fn stream(
    runs: web::Data<RunControl>,
    streams: web::Data<Streams>,
    sources: web::Data<Sources>,
    caller: Authenticated,
    id: web::Path<RunId>,
    request: HttpRequest,
) -> Result<HttpResponse, ProblemDetails> {
    let run = runs.find::<right::Read>(&caller.0, *id).await?.into_thing();
    let after = last_event_id(request.headers())?;
    sources.readiness.check()?;
    let slot = streams.slots.take(caller.0.user)?;
    let token = Secret::from(bearer(request.headers()).unwrap_or_default());
    let follow = Follow::new(sources, &streams, run, after, (token, caller.0.origin), slot);
    let body = unfold(follow, |mut follow| async move {
        let bytes = follow.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), follow))
    });
    let mut response = HttpResponse::Ok();
    Ok(response.content_type("text/event-stream").insert_header(UNBUFFERED).streaming(Box::pin(body)))
}

/// The last entry that the client has seen; 0 for none.
fn last_event_id(headers: &HeaderMap) -> Result<Seq, ProblemDetails> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(0) };
    let seq = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|seq: &Seq| *seq >= 0);
    seq.ok_or_else(|| {
        ProblemDetails::new(
            Kind::Invalid,
            "`Last-Event-ID` must be the id of an event of this stream: a whole number",
        )
    })
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn the_last_event_is_a_number_of_the_journal_or_none() {
        let read = |text: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(text) = text {
                headers.insert(LAST_EVENT_ID, HeaderValue::from_static(text));
            }
            last_event_id(&headers).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(
            (read(None), read(Some("")), read(Some("0")), read(Some("17"))),
            (Ok(0), Ok(0), Ok(0), Ok(17))
        );
        for wrong in ["-1", "x", "1.5", "99999999999999999999", "1 2"] {
            assert_eq!(read(Some(wrong)), Err(422), "{wrong}");
        }
    }
}
