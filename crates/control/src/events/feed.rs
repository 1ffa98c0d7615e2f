//! The feed: one task of an instance reads the log, as long as somebody listens, and publishes it to all.
//!
//! Invariant: what is published after a listener has registered begins where the position was then. So a listener reads
//! the log up to a position that it saw after it registered, and misses nothing.

use std::sync::Arc;
use std::time::Duration;

use gathering_events::{Bus, BusService, BusSettings, Event};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::audiences::Audiences;
use super::recent::RecentEvents;
use super::{EventControl, EventSeq, EventsOf, FeedEvent};
use crate::{ControlError, ControlStore};

/// How many events are read at once.
const PAGE: usize = 500;

/// Reads are at least this far apart: a busy log is read in larger parts.
const APART: Duration = Duration::from_millis(2);

/// How often the log is read though no wake-up came: wake-ups may be lost, and the start of a run sends none.
const SAFETY_NET: Duration = Duration::from_secs(1);

/// The pauses while an open transaction holds events back: the first, which doubles up to the last.
const HELD_BACK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// The pause after a failure of the store.
const RETRY: Duration = Duration::from_millis(500);

/// The log is read so long after the last listener has left: they come back.
const LINGER: Duration = Duration::from_secs(60);

/// The bounds of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedSettings {
    /// Of how many projects the latest events are kept.
    pub n_cached_projects: u64,
    /// The maximum number of listeners.
    pub max_listeners: usize,
}

impl Default for FeedSettings {
    /// 1,000 projects and 4,096 listeners.
    fn default() -> Self {
        Self { n_cached_projects: 1000, max_listeners: 4096 }
    }
}

/// The feed of an instance. Cloning is cheap and shares it.
#[derive(Clone)]
pub struct EventFeed {
    pub(super) shared: Arc<Shared>,
}

/// Reads the log for an [`EventFeed`]. Its creator must [`run`](EventFeedService::run) it; the feed ends with it.
pub struct EventFeedService {
    shared: Arc<Shared>,
    bus: BusService<Arc<FeedEvent>>,
    wakes: [watch::Receiver<u64>; 2],
}

pub(super) struct Shared {
    pub(super) store: Arc<dyn ControlStore>,
    pub(super) events: EventControl,
    pub(super) bus: Bus<Arc<FeedEvent>>,
    pub(super) state: watch::Sender<State>,
    pub(super) recent: RecentEvents,
    pub(super) audiences: Audiences,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct State {
    /// How many listen.
    pub(super) n_listeners: usize,
    /// Up to where the log was read; `None` while it is not.
    pub(super) position: Option<EventSeq>,
}

impl EventFeed {
    /// A feed of this store, and the service that reads its log. Whenever one of `wakes` changes, there may be something
    /// to read.
    pub fn new(
        store: Arc<dyn ControlStore>,
        wakes: [watch::Receiver<u64>; 2],
        settings: FeedSettings,
    ) -> (Self, EventFeedService) {
        let FeedSettings { n_cached_projects, max_listeners } = settings;
        let (bus, service) = Bus::new(BusSettings {
            max_batch: 256,
            max_subscribers: max_listeners,
            ..BusSettings::default()
        });
        let shared = Arc::new(Shared {
            events: EventControl::new(Arc::clone(&store)),
            bus,
            state: watch::Sender::default(),
            recent: RecentEvents::new(n_cached_projects),
            audiences: Audiences::new(Arc::clone(&store), n_cached_projects),
            store,
        });
        (Self { shared: Arc::clone(&shared) }, EventFeedService { shared, bus: service, wakes })
    }
}

impl EventFeedService {
    /// Reads the log as long as somebody listens, until `stop`. Then the listeners get what was read, and the feed ends.
    pub async fn run(self, stop: CancellationToken) {
        let Self { shared, bus, wakes } = self;
        let mut reader = Reader { shared, wakes };
        let stopped = stop.clone();
        tokio::join!(bus.run(stop), async move {
            while stopped.run_until_cancelled(reader.read_while_needed()).await.is_some() {}
        });
    }
}

struct Reader {
    shared: Arc<Shared>,
    wakes: [watch::Receiver<u64>; 2],
}

impl Reader {
    /// Waits for a listener, and reads the log until the last one has left for a while.
    async fn read_while_needed(&mut self) {
        let mut state = self.shared.state.subscribe();
        if state.wait_for(|state| state.n_listeners > 0).await.is_err() {
            return std::future::pending().await;
        }
        let mut after = self.begin().await;
        let (mut held_back, mut left) = (HELD_BACK.0, None);
        loop {
            let read = self.read(&mut after).await;
            let pause = match read {
                Ok(Read::Page) => continue,
                Ok(Read::ToTheEnd) => {
                    held_back = HELD_BACK.0;
                    SAFETY_NET
                }
                Ok(Read::HeldBack) => {
                    held_back = (held_back * 2).min(HELD_BACK.1);
                    held_back
                }
                Err(error) => {
                    tracing::warn!(error = %error, "the log of events cannot be read; retrying: {error}");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            if self.shared.state.borrow().n_listeners > 0 {
                left = None;
            } else if left.get_or_insert_with(Instant::now).elapsed() >= LINGER && self.shared.rest() {
                return;
            }
            let pause = if left.is_some() { LINGER } else { pause };
            self.wait(pause).await;
        }
    }

    /// Begins at the end of the log: what was before, a listener reads for itself.
    async fn begin(&self) -> EventSeq {
        loop {
            match self.shared.store.last_event().await {
                Ok(seq) => {
                    self.shared.recent.begin(seq);
                    self.shared.state.send_modify(|state| state.position = Some(seq));
                    return seq;
                }
                Err(error) => {
                    tracing::warn!(error = %error, "the log of events cannot be read; retrying: {error}");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn read(&self, after: &mut EventSeq) -> Result<Read, ControlError> {
        let page = self.shared.store.list_events(&EventsOf::Everything, *after, PAGE).await?;
        let is_full = page.events.len() == PAGE;
        let events: Vec<Arc<FeedEvent>> =
            page.events.into_iter().map(|event| Arc::new(FeedEvent::of(event))).collect();
        // Once for all listeners, who will ask for them.
        let projects = events.iter().filter_map(|event| event.event().project).collect();
        self.shared.audiences.of(&projects).await?;
        events.iter().for_each(|event| self.shared.recent.push(event));
        *after = page.until;
        self.shared.state.send_modify(|state| state.position = Some(page.until));
        for event in events {
            let (topic, key) = (event.event().event_type.clone(), event.event().key.clone());
            // It ends together with this task.
            self.shared.bus.publish(Event { topic, key, payload: event }).await.ok();
        }
        Ok(match (is_full, page.is_held_back) {
            (true, _) => Read::Page,
            (false, true) => Read::HeldBack,
            (false, false) => Read::ToTheEnd,
        })
    }

    /// Waits for a wake-up, or until the pause is over.
    async fn wait(&mut self, pause: Duration) {
        tokio::time::sleep(APART).await;
        let [ends, others] = &mut self.wakes;
        let mut state = self.shared.state.subscribe();
        tokio::select! {
            Ok(()) = ends.changed() => {}
            Ok(()) = others.changed() => {}
            () = tokio::time::sleep(pause) => {}
            // The first one to come back.
            Ok(_) = state.wait_for(|state| state.n_listeners > 0), if pause == LINGER => {}
        }
    }
}

/// What was read.
enum Read {
    /// A full page; there may be more.
    Page,
    /// Everything.
    ToTheEnd,
    /// Everything that can be read yet.
    HeldBack,
}

impl Shared {
    /// Stops to read the log, unless somebody listens again.
    fn rest(&self) -> bool {
        self.state.send_if_modified(|state| {
            let is_alone = state.n_listeners == 0;
            if is_alone {
                state.position = None;
            }
            is_alone
        })
    }
}
