//! Permits: the runs of one key of a pipeline that execute at once, or start in a second.
//!
//! | module | content |
//! |---|---|
//! | [`request`] | what a run asks for, written with its acceptance |
//! | [`line`] | requests whose time has come join the line of their key |
//! | [`sweep`] | deletes keys that nobody uses |
//!
//! `transitions/claim/permits.rs` gives permits: it claims the runs at the heads of the lines. `transitions/end.rs` takes
//! them back.

pub(crate) mod line;
pub(crate) mod request;
pub(crate) mod sweep;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long claims look at the lines after there was something in one.
const INTEREST: Duration = Duration::from_secs(60);

/// Whether the claims of this instance look at the lines of keys: for a minute after there was something in one, so that a
/// server without limits pays nothing for them. The question when a run is available next always looks.
#[derive(Debug)]
pub(crate) struct LineInterest {
    until: Mutex<Instant>,
    /// Whether the last claim found something in the queue, too.
    queue_has_runs: AtomicBool,
    is_turn_of_lines: AtomicBool,
}

impl Default for LineInterest {
    /// A new instance looks.
    fn default() -> Self {
        Self {
            until: Mutex::new(Instant::now() + INTEREST),
            queue_has_runs: AtomicBool::new(false),
            is_turn_of_lines: AtomicBool::new(true),
        }
    }
}

impl LineInterest {
    /// There was something.
    pub(crate) fn note(&self) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + INTEREST;
    }

    /// Whether the queue had runs for the claim.
    pub(crate) fn note_queue(&self, has_runs: bool) {
        self.queue_has_runs.store(has_runs, Ordering::Relaxed);
    }

    /// How much of a claim the lines may take first: half, or nearly all if the queue was empty the last time. A single run
    /// is theirs every other time.
    pub(crate) fn share_of(&self, limit: usize) -> usize {
        if limit < 2 {
            return limit * usize::from(self.is_turn_of_lines.fetch_xor(true, Ordering::Relaxed));
        }
        let of_queue = if self.queue_has_runs.load(Ordering::Relaxed) { limit / 2 } else { limit / 16 };
        limit - of_queue.max(1)
    }

    pub(crate) fn is_due(&self) -> bool {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) > Instant::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_queue_both_get_something_of_every_few_claims() {
        let lines = LineInterest::default();
        assert_eq!([lines.share_of(128), lines.share_of(2)], [120, 1]);
        lines.note_queue(true);
        assert_eq!([lines.share_of(128), lines.share_of(3)], [64, 2]);
        assert_eq!([lines.share_of(1), lines.share_of(1), lines.share_of(1)], [1, 0, 1]);
    }
}
