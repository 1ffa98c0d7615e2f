//! One reader of the log, whatever its connection: waits for events, and confirms before anything is shown that the caller
//! may still see it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use gathering_auth::{Auth, Caller, Origin};
use gathering_cache::BoundedCache;
use gathering_control::{
    ControlError, EventFeed, FeedEvent, FollowEvents, Followed, FollowedEvents, visible_to,
};
use gathering_domain::{Digest, ExposeSecret, Secret};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use gathering_edge::limits::{Slot, Slots};
use gathering_edge::problem::{Kind, ProblemDetails};
use gathering_edge::readiness::Readiness;

/// The maximum per instance: each has a connection and a buffer.
const MAX_WATCHES: usize = 2048;

/// The maximum per account.
const MAX_WATCHES_OF_ONE: usize = 256;

/// The credential is checked at most this long before anything is sent.
const ACCESS_INTERVAL: Duration = Duration::from_secs(1);

/// How often a comment or a ping is sent, so that no proxy closes an idle connection. The access is checked as often.
const IDLE_INTERVAL: Duration = Duration::from_secs(15);

/// The pause after a failure of the database.
const RETRY: Duration = Duration::from_millis(500);

/// What readers of the log share.
pub(crate) struct Watches {
    feed: EventFeed,
    auth: Arc<Auth>,
    readiness: Readiness,
    slots: Slots,
    credentials: BoundedCache<Digest, Arc<Mutex<Option<Confirmed>>>>,
    /// The tasks of the WebSockets.
    pub(super) sockets: TaskTracker,
}

/// A credential that was valid a moment ago.
#[derive(Clone)]
struct Confirmed {
    at: Instant,
    caller: Caller,
}

/// A reader of the log.
pub(super) struct Watch {
    watches: Arc<Watches>,
    followed: FollowedEvents,
    unsent: VecDeque<Frame>,
    token: Secret,
    caller: Caller,
    /// When the credential was last confirmed.
    confirmed: Instant,
    idle_due: Instant,
    _slot: Slot,
}

/// What is sent to a reader.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Frame {
    Event(Arc<FeedEvent>),
    /// Events after `after` and up to `until` may be gone.
    Gap {
        after: i64,
        until: i64,
    },
}

/// What a reader is to do next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Send these, at least one.
    Frames(Vec<Frame>),
    /// Send a comment, or a ping.
    Idle,
    /// End: the instance stops.
    Stopped,
    /// End: the caller has lost access.
    Denied,
}

impl Watches {
    pub(crate) fn new(feed: EventFeed, auth: Arc<Auth>, readiness: Readiness) -> Self {
        Self {
            feed,
            auth,
            readiness,
            slots: Slots::new("streams of events", MAX_WATCHES, MAX_WATCHES_OF_ONE),
            credentials: BoundedCache::new("event_credentials", MAX_WATCHES as u64),
            sockets: TaskTracker::new(),
        }
    }

    /// Begins a watch of a caller who sent `token`.
    pub(super) async fn begin(
        self: Arc<Self>,
        caller: Caller,
        token: Secret,
        request: FollowEvents,
    ) -> Result<Watch, ProblemDetails> {
        self.readiness.check()?;
        let slot = self.slots.take(caller.user)?;
        let followed = self.feed.follow(&caller, request).await?;
        let followed = followed.ok_or_else(|| {
            ProblemDetails::new(Kind::Overloaded, "this instance has the maximum of readers").retry_after(1)
        })?;
        let now = Instant::now();
        let idle_due = now + IDLE_INTERVAL;
        let unsent = VecDeque::new();
        Ok(Watch { watches: self, followed, unsent, token, caller, confirmed: now, idle_due, _slot: slot })
    }

    /// Ends when the sockets have; they end when the instance drains.
    pub(crate) async fn close(&self) {
        self.sockets.close();
        self.sockets.wait().await;
    }

    /// The caller whose credential this is, as of at most a second ago. Several readers with one credential ask once.
    async fn confirm(&self, token: &Secret, origin: Origin) -> Result<Confirmed, ProblemDetails> {
        let key = Digest::of(token.expose_secret().as_bytes());
        let known = self.credentials.get_or_insert_with(&key, Arc::default);
        let mut known = known.lock().await;
        if let Some(confirmed) = known.as_ref().filter(|known| known.at.elapsed() < ACCESS_INTERVAL) {
            return Ok(confirmed.clone());
        }
        let at = Instant::now();
        let caller = self.auth.authenticate(token.expose_secret(), origin).await?;
        let confirmed = Confirmed { at, caller };
        *known = Some(confirmed.clone());
        Ok(confirmed)
    }
}

impl Watch {
    /// What to do next; frames of about `max_bytes` at most.
    ///
    /// Cancel: safe; nothing is lost.
    pub(super) async fn next(&mut self, max_bytes: usize) -> Next {
        let watches = Arc::clone(&self.watches);
        loop {
            if watches.readiness.is_draining() {
                return Next::Stopped;
            }
            let due = self.idle_due;
            let step = async {
                if self.unsent.is_empty() {
                    let followed = self.followed.next().await?;
                    let Some(followed) = followed else { return Ok(Some(Next::Stopped)) };
                    self.receive(followed);
                }
                self.confirm().await?;
                Ok::<_, ProblemDetails>(Some(Next::Frames(self.take(max_bytes))))
            };
            let done = tokio::select! {
                biased;
                () = watches.readiness.drained() => return Next::Stopped,
                () = tokio::time::sleep_until(due) => self.idle().await,
                done = step => done,
            };
            match done {
                Ok(Some(next)) => return next,
                Ok(None) => {}
                Err(problem) if problem.status() == StatusCode::SERVICE_UNAVAILABLE => {
                    tokio::select! {
                        () = watches.readiness.drained() => {}
                        () = tokio::time::sleep(RETRY) => {}
                    }
                }
                Err(problem) => {
                    if let Some(causes) = problem.causes() {
                        tracing::error!(error = %causes, "a stream of events breaks off: {causes}");
                    }
                    return Next::Denied;
                }
            }
        }
    }

    /// A comment or a ping, if the caller may still see anything, or if that is unknown: it shows nothing.
    async fn idle(&mut self) -> Result<Option<Next>, ProblemDetails> {
        self.idle_due = Instant::now() + IDLE_INTERVAL;
        let checked = match self.confirm().await {
            Ok(()) => self.followed.check().await.map_err(ProblemDetails::from),
            denied => denied,
        };
        match checked {
            Err(problem) if problem.status() != StatusCode::SERVICE_UNAVAILABLE => Err(problem),
            _ => Ok(Some(Next::Idle)),
        }
    }

    fn receive(&mut self, followed: Followed) {
        match followed {
            Followed::Events(events) => self.unsent.extend(events.into_iter().map(Frame::Event)),
            Followed::Gap { after, until } => self.unsent.push_back(Frame::Gap { after, until }),
        }
    }

    fn take(&mut self, max_bytes: usize) -> Vec<Frame> {
        let (mut frames, mut n_bytes) = (Vec::new(), 0);
        while n_bytes < max_bytes
            && let Some(frame) = self.unsent.pop_front()
        {
            n_bytes += match &frame {
                Frame::Event(event) => event.text().len(),
                Frame::Gap { .. } => 0,
            };
            frames.push(frame);
        }
        frames
    }

    /// Whether the credential is still valid and worth as much as it was.
    async fn confirm(&mut self) -> Result<(), ProblemDetails> {
        if self.confirmed.elapsed() < ACCESS_INTERVAL {
            return Ok(());
        }
        let confirmed = self.watches.confirm(&self.token, self.caller.origin).await?;
        visible_to(&confirmed.caller)?;
        if confirmed.caller.role != self.caller.role {
            // Another role sees others; the client asks again.
            return Err(ControlError::Forbidden.into());
        }
        self.confirmed = confirmed.at;
        Ok(())
    }
}
