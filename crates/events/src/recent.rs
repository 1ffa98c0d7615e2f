//! Recognises repetitions: remembers the last event of each key for the length of the window.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Event;

/// The last events by topic and key, at most `max_keys` of them. The oldest is forgotten first.
#[derive(Debug)]
pub(crate) struct Recent<P> {
    window: Duration,
    max_keys: usize,
    last: HashMap<(String, String), Last<P>>,
    /// By age. An entry is stale if its number is no longer the key's.
    ages: VecDeque<(Instant, u64, (String, String))>,
    next_number: u64,
}

#[derive(Debug)]
struct Last<P> {
    event: Arc<Event<P>>,
    number: u64,
}

impl<P: PartialEq> Recent<P> {
    pub(crate) fn new(window: Duration, max_keys: usize) -> Self {
        Self { window, max_keys, last: HashMap::new(), ages: VecDeque::new(), next_number: 0 }
    }

    /// Whether `event` repeats the last one of its topic and key within the window. If not, it becomes the last one.
    pub(crate) fn is_repetition(&mut self, event: &Arc<Event<P>>, now: Instant) -> bool {
        let Some(key) = &event.key else { return false };
        if self.window.is_zero() {
            return false;
        }
        self.forget(now);
        let place = (event.topic.clone(), key.clone());
        if self.last.get(&place).is_some_and(|last| last.event.payload == event.payload) {
            return true;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.last.insert(place.clone(), Last { event: Arc::clone(event), number });
        self.ages.push_back((now, number, place));
        false
    }

    /// Forgets entries older than the window, and the oldest beyond the bound. Stale entries count towards the bound,
    /// so one busy key cannot grow the list of ages.
    fn forget(&mut self, now: Instant) {
        while let Some((at, number, place)) = self.ages.front() {
            if now.duration_since(*at) < self.window && self.ages.len() < self.max_keys {
                break;
            }
            if self.last.get(place).is_some_and(|last| last.number == *number) {
                self.last.remove(place);
            }
            self.ages.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_never_exceeds_its_bound() {
        let mut recent = Recent::new(Duration::from_secs(60), 3);
        let now = Instant::now();
        for number in 0..100 {
            for key in ["busy".to_owned(), number.to_string()] {
                let event = Event { topic: "t".to_owned(), key: Some(key), payload: json!(number) };
                assert!(!recent.is_repetition(&Arc::new(event), now));
                assert!(recent.ages.len() <= 3 && recent.last.len() <= 3);
            }
        }
    }
}
