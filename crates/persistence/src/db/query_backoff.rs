//! How often something is asked that grows dearer while somebody holds an old snapshot.
//!
//! What was claimed leaves dead entries in the indexes of the queue and of the owners. As long as any transaction in the
//! database is older than they are, say a report or a backup, nobody may clear them away, and whoever reads such an index
//! from its beginning steps over all of them. Such questions are asked less often once they take long, so that they take
//! a small part of the time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The part of the time that a dear question may take, as one in so many.
const SHARE: u32 = 100;

/// The longest pause: what only this question finds must not wait for longer.
const LONGEST: Duration = Duration::from_secs(30);

/// What takes no longer is asked at its interval.
const CHEAP: Duration = Duration::from_millis(20);

/// A question is dear after so many answers in a row that took longer: one may only have met a busy machine.
const PROOF: u32 = 3;

/// Decides when a question is asked again.
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

    /// Whether to ask now; who is told so asks, and calls [`QueryBackoff::note`].
    pub(crate) fn is_due(&self) -> bool {
        let is_due = self.due_in().is_zero();
        if is_due {
            // Others at the same time need not ask as well.
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

    /// It was asked, and answered after so long.
    pub(crate) fn note(&self, took: Duration) {
        let mut asked = self.lock();
        let n_dear = if took > CHEAP { asked.n_dear.saturating_add(1) } else { 0 };
        *asked = Asked { last: Some(Instant::now()), took, n_dear };
    }

    /// Asks again at once.
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
        assert!(!backoff.is_due(), "who asks now asks for all");
    }
}
