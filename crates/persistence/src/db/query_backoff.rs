//! Back-off for queries that get slower while a transaction holds an old snapshot.
//!
//! Claimed runs leave dead entries in the indexes of the queue and of the owners. As long as any transaction in the
//! database is older, say a report or a backup, the entries cannot be removed, and every scan from the start of such an
//! index steps over all of them. Such queries run less often once they are slow, so that they take a small part of the
//! time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A slow query may take one part in this many of the time.
const SHARE: u32 = 100;

/// The longest pause: what only this query finds must not wait for longer.
const LONGEST: Duration = Duration::from_secs(30);

/// A query that takes no longer runs at its interval.
const CHEAP: Duration = Duration::from_millis(20);

/// A query counts as slow after this many slow answers in a row: a single one may only have met a busy machine.
const PROOF: u32 = 3;

/// Decides when a query runs again.
#[derive(Debug)]
pub(crate) struct QueryBackoff {
    interval: Duration,
    asked: Mutex<Asked>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    last: Option<Instant>,
    took: Duration,
    n_dear: u32,
}

impl QueryBackoff {
    /// At most once in `interval`.
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, asked: Mutex::default() }
    }

    /// Whether to query now; after `true` the caller does so, and calls [`QueryBackoff::note`].
    pub(crate) fn is_due(&self) -> bool {
        let is_due = self.due_in().is_zero();
        if is_due {
            // Concurrent callers need not query as well.
            self.lock().last = Some(Instant::now());
        }
        is_due
    }

    /// How long until it is due; zero if it is.
    pub(crate) fn due_in(&self) -> Duration {
        let Asked { last, took, n_dear } = *self.lock();
        let pause =
            if n_dear >= PROOF { self.interval.max((took * SHARE).min(LONGEST)) } else { self.interval };
        last.map_or(Duration::ZERO, |last| pause.saturating_sub(last.elapsed()))
    }

    /// Notes how long the query took.
    pub(crate) fn note(&self, took: Duration) {
        let mut asked = self.lock();
        let n_dear = if took > CHEAP { asked.n_dear.saturating_add(1) } else { 0 };
        *asked = Asked { last: Some(Instant::now()), took, n_dear };
    }

    /// Makes the query due at once.
    pub(crate) fn reset(&self) {
        self.lock().last = None;
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        // Plain values: a panic elsewhere cannot have left them half-changed.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_again_and_again_is_asked_rarely_and_all_else_at_its_interval() {
        let (quick, slow) = (Duration::from_millis(1), Duration::from_secs(1));
        let backoff = QueryBackoff::new(Duration::ZERO);
        for took in [quick, slow, slow, quick, slow, slow] {
            assert!(backoff.is_due());
            backoff.note(took);
        }
        assert!(backoff.is_due(), "it was slow twice");
        backoff.note(slow);
        assert!(
            !backoff.is_due() && backoff.due_in() > LONGEST / 2,
            "a hundredth of the time, but not for ever"
        );
        backoff.reset();
        assert!(backoff.is_due());
        let backoff = QueryBackoff::new(Duration::from_secs(3600));
        assert!(backoff.is_due());
        assert!(!backoff.is_due(), "one caller queries for all");
    }
}
