//! A subscriber's buffer and its receiving end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::Notify;

use crate::Event;
use crate::event::Interest;

/// What a subscriber receives.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery<P = Value> {
    /// Events in their order, at least one.
    Events(Vec<Arc<Event<P>>>),
    /// The number of events lost at this point, because the buffer was full. What follows is newer.
    Lagged(u64),
}

/// Receives the events of some topics, starting with the subscription. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription<P = Value> {
    buffer: Arc<Buffer<P>>,
    max_batch: usize,
}

/// The events that wait for one subscriber. A full buffer loses its oldest event, so that publishers never wait for it.
#[derive(Debug)]
pub(crate) struct Buffer<P> {
    interest: Interest<P>,
    capacity: usize,
    waiting: Mutex<Waiting<P>>,
    changed: Notify,
}

#[derive(Debug)]
struct Waiting<P> {
    events: VecDeque<Arc<Event<P>>>,
    n_lost: u64,
    is_closed: bool,
}

impl<P> Subscription<P> {
    pub(crate) fn new(buffer: Arc<Buffer<P>>, max_batch: usize) -> Self {
        Self { buffer, max_batch }
    }

    /// Waits for the next delivery: all waiting events up to the batch limit, or the number of events lost before them.
    /// `None` when the bus has ended and everything was received.
    ///
    /// Cancel: safe; nothing is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<Delivery<P>> {
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
            // A notification after the check above is kept, because there is only one reader.
            self.buffer.changed.notified().await;
        }
    }
}

impl<P> Buffer<P> {
    pub(crate) fn new(interest: Interest<P>, capacity: usize) -> Self {
        let waiting = Waiting { events: VecDeque::new(), n_lost: 0, is_closed: false };
        Self { interest, capacity, waiting: Mutex::new(waiting), changed: Notify::new() }
    }

    /// Adds the events of its topics; returns how many older ones were lost.
    pub(crate) fn add(&self, events: &[Arc<Event<P>>]) -> u64 {
        let mut waiting = self.locked();
        let (n_before, mut n_lost) = (waiting.events.len(), 0);
        for event in events.iter().filter(|event| self.interest.takes(event)) {
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

    fn locked(&self) -> MutexGuard<'_, Waiting<P>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
