//! How often something is asked that grows dearer while somebody holds an old snapshot.
//!
//! What was claimed leaves dead entries in the indexes of the queue and of the owners. As long as any transaction in the
//! database is older than they are, say a report or a backup, nobody may clear them away, and whoever reads such an index
//! from its beginning steps over all of them. Such questions are asked less often the longer they take, so that together
//! they never take more than a small part of the time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The part of the time that a question may take, as one in so many.
const SHARE: u32 = 100;

/// What takes no longer is asked at its interval.
const CHEAP: Duration = Duration::from_millis(20);

/// Decides when a question is asked again.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    last: Mutex<Option<Asked>>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    took: Duration,
}

impl Pace {
    /// At most once in `interval`.
    pub(crate) const fn new(interval: Duration) -> Self {
        Self { interval, last: Mutex::new(None) }
    }

    /// Whether to ask now; who is told so asks and calls [`Pace::note`].
    pub(crate) fn is_due(&self) -> bool {
        let mut last = self.lock();
        let pause =
            |took: Duration| if took > CHEAP { self.interval.max(took * SHARE) } else { self.interval };
        let is_due = last.is_none_or(|last| last.at.elapsed() >= pause(last.took));
        if is_due {
            // Others at the same time need not ask as well.
            let took = last.map(|last| last.took).unwrap_or_default();
            *last = Some(Asked { at: Instant::now(), took });
        }
        is_due
    }

    /// It was asked, and answered: it began then.
    pub(crate) fn note(&self, began: Instant) {
        *self.lock() = Some(Asked { at: Instant::now(), took: began.elapsed() });
    }

    /// Asks again at once.
    pub(crate) fn reset(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Asked>> {
        // Plain values: a panic elsewhere cannot have left them half-changed.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_asked_rarely_and_what_is_cheap_at_its_interval() {
        let long_ago = |ago: u64| Instant::now().checked_sub(Duration::from_millis(ago)).unwrap();
        let pace = Pace::new(Duration::ZERO);
        assert!(pace.is_due());
        pace.note(Instant::now());
        assert!(pace.is_due(), "it was cheap");
        pace.note(long_ago(100));
        assert!(!pace.is_due(), "a hundredth of the time is up in ten seconds");
        pace.reset();
        assert!(pace.is_due());
        let pace = Pace::new(Duration::from_secs(3600));
        assert!(pace.is_due());
        assert!(!pace.is_due(), "who asks now asks for all");
    }
}
