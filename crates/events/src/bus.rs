//! The bus: one bounded input queue, one task that delivers, and one bounded buffer for each subscriber.
//!
//! Invariants: a publisher waits only for the queue, never for a subscriber. Every subscriber receives its events in
//! the order of the queue. Nothing grows without bound.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::event::Interest;
use crate::recent::Recent;
use crate::subscription::Buffer;
use crate::{Event, Subscription, Topics};

/// The bounds of a bus. Each number is at least 1; 0 counts as 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusSettings {
    /// The published events that can wait for delivery before a publisher has to wait.
    pub n_queued: usize,
    /// The delivered events that can wait for one subscriber before it loses the oldest.
    pub n_buffered: usize,
    /// The maximum number of events in one batch.
    pub max_batch: usize,
    /// The maximum number of subscribers.
    pub max_subscribers: usize,
    /// The time in which a repeated event of the same key is dropped; zero drops none.
    pub window: Duration,
    /// The keys that are remembered to recognise repetitions. Repetitions of forgotten keys are delivered.
    pub max_keys: usize,
}

impl Default for BusSettings {
    /// A queue of 1024, buffers of 1024, batches of 128, 1024 subscribers, one second and 4096 keys.
    fn default() -> Self {
        Self {
            n_queued: 1024,
            n_buffered: 1024,
            max_batch: 128,
            max_subscribers: 1024,
            window: Duration::from_secs(1),
            max_keys: 4096,
        }
    }
}

/// Publishes and subscribes. Clones are cheap and refer to the same bus.
#[derive(Debug)]
pub struct Bus<P = Value> {
    queue: mpsc::Sender<Event<P>>,
    shared: Arc<Shared<P>>,
}

/// Delivers what was published. The creator must [`run`](BusService::run) it; the bus ends with it.
#[derive(Debug)]
pub struct BusService<P = Value> {
    queue: mpsc::Receiver<Event<P>>,
    shared: Arc<Shared<P>>,
    recent: Recent<P>,
}

/// The counts of the bus since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BusCounts {
    /// Events taken from the queue.
    pub n_taken: u64,
    /// Those of them that were dropped as repetitions.
    pub n_repetitions: u64,
    /// Events that slow subscribers lost, summed over the subscribers.
    pub n_lost: u64,
}

/// Why an event was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PublishError {
    /// The queue is full. Only [`Bus::try_publish`] returns this; a later call may succeed.
    #[error("the event queue is full")]
    Full,
    /// The bus has ended.
    #[error("the event bus has ended")]
    Ended,
}

/// Why a subscription was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SubscribeError {
    /// The limit of subscribers is reached.
    #[error("the event bus has reached its limit of {max_subscribers} subscribers")]
    TooMany {
        /// The limit.
        max_subscribers: usize,
    },
    /// The bus has ended.
    #[error("the event bus has ended")]
    Ended,
}

#[derive(Debug)]
struct Shared<P> {
    settings: BusSettings,
    subscribers: Mutex<Subscribers<P>>,
    n_taken: AtomicU64,
    n_repetitions: AtomicU64,
    n_lost: AtomicU64,
}

#[derive(Debug)]
struct Subscribers<P> {
    /// Weak, so that a dropped [`Subscription`] frees its buffer; the bus then removes the entry.
    buffers: Vec<Weak<Buffer<P>>>,
    is_ended: bool,
}

impl<P> Clone for Bus<P> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<P: PartialEq> Bus<P> {
    /// A bus and the service that delivers its events.
    pub fn new(settings: BusSettings) -> (Self, BusService<P>) {
        let settings = BusSettings {
            n_queued: settings.n_queued.clamp(1, tokio::sync::Semaphore::MAX_PERMITS),
            n_buffered: settings.n_buffered.max(1),
            max_batch: settings.max_batch.max(1),
            max_subscribers: settings.max_subscribers.max(1),
            window: settings.window,
            max_keys: settings.max_keys.max(1),
        };
        let (sender, receiver) = mpsc::channel(settings.n_queued);
        let shared = Arc::new(Shared {
            settings,
            subscribers: Mutex::new(Subscribers { buffers: Vec::new(), is_ended: false }),
            n_taken: AtomicU64::new(0),
            n_repetitions: AtomicU64::new(0),
            n_lost: AtomicU64::new(0),
        });
        let recent = Recent::new(settings.window, settings.max_keys);
        let service = BusService { queue: receiver, shared: Arc::clone(&shared), recent };
        (Self { queue: sender, shared }, service)
    }

    /// Puts an event into the queue. Waits while the queue is full, which slows down fast publishers.
    ///
    /// Cancel: safe; a dropped future published nothing.
    ///
    /// # Errors
    /// [`PublishError::Ended`]; nothing was published.
    pub async fn publish(&self, event: Event<P>) -> Result<(), PublishError> {
        self.queue.send(event).await.map_err(|_| PublishError::Ended)
    }

    /// Puts an event into the queue if it has room now.
    ///
    /// # Errors
    /// [`PublishError`]; nothing was published.
    pub fn try_publish(&self, event: Event<P>) -> Result<(), PublishError> {
        self.queue.try_send(event).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PublishError::Full,
            mpsc::error::TrySendError::Closed(_) => PublishError::Ended,
        })
    }

    /// Subscribes to everything that is delivered from now on.
    ///
    /// # Errors
    /// [`SubscribeError`]; nothing was subscribed.
    pub fn subscribe(&self, topics: Topics) -> Result<Subscription<P>, SubscribeError> {
        self.subscribe_to(Interest::Topics(topics))
    }

    /// Subscribes to everything that is delivered from now on and that is `wanted`. That is asked for each event while
    /// it is delivered, so it must be quick.
    ///
    /// # Errors
    /// [`SubscribeError`]; nothing was subscribed.
    pub fn subscribe_where(
        &self,
        wanted: impl Fn(&Event<P>) -> bool + Send + Sync + 'static,
    ) -> Result<Subscription<P>, SubscribeError> {
        self.subscribe_to(Interest::Where(Box::new(wanted)))
    }

    fn subscribe_to(&self, interest: Interest<P>) -> Result<Subscription<P>, SubscribeError> {
        let BusSettings { n_buffered, max_batch, max_subscribers, .. } = self.shared.settings;
        let mut subscribers = self.shared.subscribers();
        if subscribers.is_ended {
            return Err(SubscribeError::Ended);
        }
        subscribers.buffers.retain(|buffer| buffer.strong_count() > 0);
        if subscribers.buffers.len() >= max_subscribers {
            return Err(SubscribeError::TooMany { max_subscribers });
        }
        let buffer = Arc::new(Buffer::new(interest, n_buffered));
        subscribers.buffers.push(Arc::downgrade(&buffer));
        Ok(Subscription::new(buffer, max_batch))
    }

    /// The counts of the bus since its start.
    pub fn counts(&self) -> BusCounts {
        BusCounts {
            n_taken: self.shared.n_taken.load(Ordering::Relaxed),
            n_repetitions: self.shared.n_repetitions.load(Ordering::Relaxed),
            n_lost: self.shared.n_lost.load(Ordering::Relaxed),
        }
    }
}

impl<P: PartialEq> BusService<P> {
    /// Delivers until `stop`, then delivers what was published before it, and ends the bus. Subscribers receive what
    /// waits for them, then `None`. Also ends when every [`Bus`] was dropped.
    ///
    /// Cancel: dropping the future ends the bus at once; events still in the queue are not delivered.
    pub async fn run(mut self, stop: CancellationToken) {
        let max_batch = self.shared.settings.max_batch;
        let mut batch = Vec::with_capacity(max_batch);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                n_taken = self.queue.recv_many(&mut batch, max_batch) => match n_taken {
                    0 => return,
                    _ => self.deliver(batch.drain(..)),
                },
            }
        }
    }

    fn deliver(&mut self, batch: impl Iterator<Item = Event<P>>) {
        let now = Instant::now();
        let (mut n_taken, mut n_lost) = (0, 0);
        let fresh: Vec<Arc<Event<P>>> = batch
            .inspect(|_| n_taken += 1)
            .map(Arc::new)
            .filter(|event| !self.recent.is_repetition(event, now))
            .collect();
        for buffer in &self.shared.subscribers().buffers {
            n_lost += buffer.upgrade().map_or(0, |buffer| buffer.add(&fresh));
        }
        let n_repetitions = n_taken - fresh.len() as u64;
        self.shared.n_taken.fetch_add(n_taken, Ordering::Relaxed);
        self.shared.n_repetitions.fetch_add(n_repetitions, Ordering::Relaxed);
        self.shared.n_lost.fetch_add(n_lost, Ordering::Relaxed);
    }
}

impl<P> Drop for BusService<P> {
    fn drop(&mut self) {
        let mut subscribers = self.shared.subscribers();
        subscribers.is_ended = true;
        for buffer in subscribers.buffers.drain(..).filter_map(|buffer| buffer.upgrade()) {
            buffer.close();
        }
    }
}

impl<P> Shared<P> {
    /// Held only while reading the list, never across an await.
    fn subscribers(&self) -> MutexGuard<'_, Subscribers<P>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
