//! The event stream of a run: server-sent events from its journal.
//!
//! Owns the limits on streams and the form of events. A stream is only the body of its answer: it reads when the
//! client takes more, and ends with the connection. Every event is in the journal, so a client that reconnects with
//! the last id, to any instance, misses nothing.

pub(crate) mod event;
mod follow;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName};
use actix_web::{HttpRequest, HttpResponse, web};
use futures::stream::unfold;
use gathering_auth::Auth;
use gathering_control::{ProjectControl, RunControl, right};
use gathering_dag_engine::Seq;
use gathering_domain::{RunId, Secret, UserId};
use gathering_persistence::{Following, Runs, Wake, WakeBus};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use event::RunEventView;
use follow::Follow;
use gathering_edge::caller::{Authenticated, bearer};
use gathering_edge::problem::{Kind, ProblemDetails};
use gathering_edge::readiness::Readiness;

/// The maximum per instance: each stream queries the database up to four times a second while another instance drives
/// its run.
const MAX_STREAMS: usize = 256;

/// The maximum per account, so that no account uses up the streams of all others.
const MAX_STREAMS_OF_ONE: usize = 64;

/// `Retry-After` in seconds when there are too many streams.
const RETRY_AFTER_SECONDS: u32 = 5;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Tells proxies to pass on every event at once.
const UNBUFFERED: (&str, &str) = ("x-accel-buffering", "no");

/// The places for streams, and the wake-ups for them. Cloning is cheap and shares them.
#[derive(Clone)]
pub(crate) struct Streams {
    room: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<UserId, usize>>>,
    wakes: WakeBus,
}

/// What a stream reads, and what it asks whether it may go on.
pub(crate) struct Sources {
    pub(crate) auth: Arc<Auth>,
    pub(crate) projects: ProjectControl,
    pub(crate) runs: Runs,
    pub(crate) readiness: Readiness,
}

/// The place of one stream, until it is dropped.
struct Room {
    user: UserId,
    taken: Arc<Mutex<HashMap<UserId, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Streams {
    /// The places of an instance.
    pub(crate) fn new(wakes: WakeBus) -> Self {
        Self { room: Arc::new(Semaphore::new(MAX_STREAMS)), taken: Arc::default(), wakes }
    }

    /// Takes a place for one more stream of this account.
    ///
    /// # Errors
    /// 429 if the account has the maximum, 503 if the instance has.
    fn enter(&self, user: UserId) -> Result<Room, ProblemDetails> {
        let permit = Arc::clone(&self.room).try_acquire_owned().map_err(|_none_left| {
            let detail = format!("this instance has the maximum of {MAX_STREAMS} streams");
            ProblemDetails::new(Kind::Overloaded, detail).retry_after(RETRY_AFTER_SECONDS)
        })?;
        let mut taken = locked(&self.taken);
        let n_taken = taken.entry(user).or_default();
        if *n_taken >= MAX_STREAMS_OF_ONE {
            let detail = format!("an account may have at most {MAX_STREAMS_OF_ONE} streams at a time");
            let retry_after = Duration::from_secs(RETRY_AFTER_SECONDS.into());
            return Err(ProblemDetails::rate_limited(detail, retry_after));
        }
        *n_taken += 1;
        Ok(Room { user, taken: Arc::clone(&self.taken), _permit: permit })
    }

    /// Follows what this instance writes to the journal of a run.
    fn follow(&self, run: RunId) -> Following {
        self.wakes.follow(run)
    }

    /// Changes when a run has ended somewhere.
    fn ends(&self) -> watch::Receiver<u64> {
        self.wakes.subscribe(Wake::Events)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = locked(&self.taken);
        if let Some(n_taken) = taken.get_mut(&self.user) {
            *n_taken -= 1;
            if *n_taken == 0 {
                taken.remove(&self.user);
            }
        }
    }
}

/// Nothing that panics happens under the lock, and a count is right at every moment.
fn locked(taken: &Mutex<HashMap<UserId, usize>>) -> MutexGuard<'_, HashMap<UserId, usize>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Streams the events of a run: one for each entry of its journal, from the first or after `Last-Event-ID`, with the
/// `seq` of the entry as `id`, its kind as `event` and the entry as `data`. After the last entry of a run that has
/// ended, the event `run_ended` carries the run, and the stream ends.
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
    if sources.readiness.is_draining() {
        let detail = "this instance is shutting down; another one will answer";
        return Err(ProblemDetails::new(Kind::Draining, detail).retry_after(1));
    }
    let room = streams.enter(caller.0.user)?;
    let token = Secret::from(bearer(request.headers()).unwrap_or_default());
    let follow = Follow::new(sources, &streams, run, after, (token, caller.0.origin), room);
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

    #[test]
    fn there_is_room_for_so_many_streams_and_again_for_one_when_one_ends() {
        let streams = Streams::new(WakeBus::new());
        let mut all = Vec::new();
        while all.len() < MAX_STREAMS {
            let user = UserId::new();
            let n_left = (MAX_STREAMS - all.len()).min(MAX_STREAMS_OF_ONE);
            all.extend((0..n_left).map(|_| streams.enter(user).unwrap()));
        }
        let refused = |user: UserId| streams.enter(user).err().map(|problem| problem.status().as_u16());
        assert_eq!(refused(UserId::new()), Some(503));
        all.pop();
        assert_eq!(refused(UserId::new()), None);
    }

    #[test]
    fn an_account_has_so_many_streams_and_leaves_the_rest_to_others() {
        let streams = Streams::new(WakeBus::new());
        let (one, other) = (UserId::new(), UserId::new());
        let mut all: Vec<_> = (0..MAX_STREAMS_OF_ONE).map(|_| streams.enter(one).unwrap()).collect();
        let refused = |user: UserId| streams.enter(user).err().map(|problem| problem.status().as_u16());
        assert_eq!((refused(one), refused(other)), (Some(429), None));
        all.pop();
        assert_eq!(refused(one), None);
        all.clear();
        assert!(locked(&streams.taken).is_empty(), "an account without streams uses no memory");
    }
}
