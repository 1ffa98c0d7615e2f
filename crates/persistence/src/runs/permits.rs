//! Permits: the runs of one key of a pipeline that execute at once, or start in a second.
//!
//! | module | content |
//! |---|---|
//! | [`request`] | what a run asks for, written with its acceptance |
//! | [`line`] | requests whose time has come join the line of their key |
//! | [`nodes`] | permits of nodes: asked for by their runs, given by waking them |
//! | [`sweep`] | deletes keys that nobody uses |
//!
//! `transitions/claim/permits.rs` gives permits: it claims the runs at the heads of the lines. `transitions/end.rs` takes
//! them back.

pub(crate) mod line;
pub(crate) mod nodes;
pub(crate) mod request;
pub(crate) mod sweep;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long each claim looks at the lines after there was something in one.
const INTEREST: Duration = Duration::from_secs(60);

/// How often claims look at lines in which there was nothing for so long.
const LOOK: Duration = Duration::from_secs(1);

/// Whether claims look at lines: each for a minute after there was something in one, and one a second otherwise, so that a
/// server without limits pays hardly anything for them. The question when a run is available next always looks.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    /// Until when each claim looks, and when one did last: a new instance looks at once.
    times: Mutex<(Option<Instant>, Option<Instant>)>,
}

impl Interest {
    /// There was something.
    pub(crate) fn note(&self) {
        self.with_times(|(until, _)| *until = Some(Instant::now() + INTEREST));
    }

    /// Whether a claim looks now.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due_at(Instant::now())
    }

    fn is_due_at(&self, now: Instant) -> bool {
        self.with_times(|(until, looked)| {
            let is_of_interest = until.is_some_and(|until| until > now);
            let is_due = is_of_interest || looked.is_none_or(|looked| now.duration_since(looked) >= LOOK);
            if is_due {
                *looked = Some(now);
            }
            is_due
        })
    }

    fn with_times<T>(&self, act: impl FnOnce(&mut (Option<Instant>, Option<Instant>)) -> T) -> T {
        // Plain values: a panic elsewhere cannot leave them half-changed.
        act(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How the claims of this instance look at the lines of keys.
#[derive(Debug)]
pub(crate) struct Lines {
    /// The lines of runs.
    pub(crate) runs: Interest,
    /// The lines of nodes.
    pub(crate) nodes: Interest,
    /// Whether the last claim found something in the queue, too.
    queue_has_runs: AtomicBool,
    is_turn_of_lines: AtomicBool,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            runs: Interest::default(),
            nodes: Interest::default(),
            queue_has_runs: AtomicBool::new(false),
            is_turn_of_lines: AtomicBool::new(true),
        }
    }
}

impl Lines {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_queue_both_get_something_of_every_few_claims() {
        let lines = Lines::default();
        assert_eq!([lines.share_of(128), lines.share_of(2)], [120, 1]);
        lines.note_queue(true);
        assert_eq!([lines.share_of(128), lines.share_of(3)], [64, 2]);
        assert_eq!([lines.share_of(1), lines.share_of(1), lines.share_of(1)], [1, 0, 1]);
    }

    #[test]
    fn an_instance_that_is_never_idle_looks_at_lines_every_second_however_long_they_were_empty() {
        let interest = Interest::default();
        let later = |milliseconds| Instant::now() + INTEREST + Duration::from_millis(milliseconds);
        assert!(interest.is_due_at(later(1000)));
        assert!(!interest.is_due_at(later(1500)) && interest.is_due_at(later(2100)));
        interest.note();
        assert!(interest.is_due() && interest.is_due(), "each claim looks again");
    }
}
