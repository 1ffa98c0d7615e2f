//! A subscriber's own buffer and the end it reads from.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::{Event, Topics};

/// What a subscriber is given.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// Events in their order, at least one.
    Events(Vec<Arc<Event>>),
    /// So many events were lost here, because the subscriber was too slow and its buffer full. What follows is newer.
    Lagged(u64),
}

/// Receives the events of some topics from the moment of subscribing on. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    buffer: Arc<Buffer>,
    max_batch: usize,
}

/// The events that wait for one subscriber; when it is full the oldest is lost, so that nobody waits for them.
#[derive(Debug)]
pub(crate) struct Buffer {
    topics: Topics,
    capacity: usize,
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Arc<Event>>,
    n_lost: u64,
    is_closed: bool,
}

impl Subscription {
    pub(crate) fn new(buffer: Arc<Buffer>, max_batch: usize) -> Self {
        Self { buffer, max_batch }
    }

    /// Waits for what is next: all events that are there, up to the batch limit, or how many were lost before them.
    /// `None` when the bus has ended and everything was received.
    ///
    /// Cancel: safe; nothing is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<Delivery> {
        loop {
            {
                let mut waiting = self.buffer.locked();
                if waiting.n_lost > 0 {
                    return Some(Delivery::Lagged(std::mem::take(&mut waiting.n_lost)));
                }
                if !waiting.events.is_empty() {
                    let n_events = waiting.events.len().min(self.max_batch);
                    return Some(Delivery::Events(waiting.events.drain(..n_events).collect()));
                }
                if waiting.is_closed {
                    return None;
                }
            }
            // A notification since the look above was kept, as there is one reader only.
            self.buffer.changed.notified().await;
        }
    }
}

impl Buffer {
    pub(crate) fn new(topics: Topics, capacity: usize) -> Self {
        Self { topics, capacity, waiting: Mutex::default(), changed: Notify::new() }
    }

    /// Adds the events that are wanted; gives how many were lost for them.
    pub(crate) fn add(&self, events: &[Arc<Event>]) -> u64 {
        let mut waiting = self.locked();
        let (n_before, mut n_lost) = (waiting.events.len(), 0);
        for event in events.iter().filter(|event| self.topics.contain(&event.topic)) {
            if waiting.events.len() == self.capacity {
                waiting.events.pop_front();
                n_lost += 1;
            }
            waiting.events.push_back(Arc::clone(event));
        }
        waiting.n_lost += n_lost;
        if waiting.events.len() > n_before || n_lost > 0 {
            self.changed.notify_one();
        }
        n_lost
    }

    pub(crate) fn close(&self) {
        self.locked().is_closed = true;
        self.changed.notify_one();
    }

    fn locked(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
