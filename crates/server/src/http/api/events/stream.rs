//! The log as server-sent events.

use std::fmt::Write as _;

use actix_web::HttpResponse;
use actix_web::http::header::{HeaderMap, HeaderName};
use actix_web::web::Bytes;
use futures::stream::unfold;
use gathering_control::FeedEvent;
use serde::Serialize;
use utoipa::ToSchema;

use super::view::{EventView, GapView};
use super::watch::{Frame, Next, Watch};
use gathering_edge::problem::{Kind, ProblemDetails};

/// About how many bytes are sent at a time.
const PIECE: usize = 64 * 1024;

/// The first bytes of every stream: a client that is cut off shall reconnect after a second.
const GREETING: &str = "retry: 1000\n\n";

/// The periodic comment.
const COMMENT: &str = ":\n\n";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Tells proxies to pass on every event at once.
const UNBUFFERED: (&str, &str) = ("x-accel-buffering", "no");

/// The name of the frame that says that events may be gone.
pub(super) const GAP: &str = "gap";

/// An event of the stream: each field is a line of its own, and `data` is JSON. A WebSocket sends it as one JSON object.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = EventFrame)]
#[expect(
    dead_code,
    reason = "it describes the frames for the document; their text is made once for all readers"
)]
pub(super) enum FrameView {
    /// An event of the log; a CloudEvent as `data` where one was asked for.
    Event {
        /// Its `seq`, for `Last-Event-ID`.
        id: i64,
        /// Its type.
        event: String,
        data: Box<EventView>,
    },
    /// Events may be missing here: retention has deleted them. The rest follows.
    Gap {
        /// `gap`.
        event: String,
        data: GapView,
    },
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Envelope {
    Plain,
    CloudEvent,
}

impl Envelope {
    /// An event as text.
    pub(super) fn text_of(self, event: &FeedEvent) -> &str {
        match self {
            Envelope::Plain => event.text(),
            Envelope::CloudEvent => event.cloud_text(),
        }
    }
}

impl Frame {
    /// Appends it in the form of server-sent events. JSON has no line breaks of its own, so the data are one line.
    fn write_to(&self, text: &mut String, envelope: Envelope) {
        // Writing to a string does not fail.
        match self {
            Frame::Event(event) => {
                let data = envelope.text_of(event);
                let event = event.event();
                write!(text, "id: {}\nevent: {}\ndata: {data}\n\n", event.seq, event.event_type).ok();
            }
            Frame::Gap { after, until } => {
                write!(text, "event: {GAP}\ndata: {}\n\n", GapView::text(*after, *until)).ok();
            }
        }
    }
}

/// The answer that streams what is watched.
pub(super) fn answer(watch: Watch, envelope: Envelope) -> HttpResponse {
    let body = unfold((watch, false), move |(mut watch, is_greeted)| async move {
        if !is_greeted {
            return Some((
                Ok::<_, std::convert::Infallible>(Bytes::from_static(GREETING.as_bytes())),
                (watch, true),
            ));
        }
        let bytes = match watch.next(PIECE).await {
            Next::Frames(frames) => {
                let mut text = String::new();
                frames.iter().for_each(|frame| frame.write_to(&mut text, envelope));
                text.into()
            }
            Next::Idle => Bytes::from_static(COMMENT.as_bytes()),
            Next::Stopped | Next::Denied => return None,
        };
        Some((Ok(bytes), (watch, true)))
    });
    let mut response = HttpResponse::Ok();
    response.content_type("text/event-stream").insert_header(UNBUFFERED).streaming(Box::pin(body))
}

/// The last event that the client has seen, if it says so.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, ProblemDetails> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let seq = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|seq| *seq >= 0);
    seq.map(Some).ok_or_else(|| {
        let detail = "`Last-Event-ID` must be the id of an event of this stream: a whole number";
        ProblemDetails::new(Kind::Invalid, detail)
    })
}
