//! From where a claim looks at the queue.
//!
//! What was claimed leaves dead entries at the head of the index, and as long as any transaction in the database is older
//! than they are, say a report or a backup, nobody may clear them away: each claim would step over all of them. So once
//! a claim has found the end of the queue, the next ones begin a little before that place. What comes into the queue
//! behind it (a run that was handed back takes its place by age, a transaction that was slow commits) is found by a
//! look at the whole queue, which is due every second, and at once when this instance itself put something back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use gathering_dag_engine::ClaimedRun;

/// How often the whole queue is looked at, if it is looked at.
const WHOLE: Duration = Duration::from_secs(1);

/// How far before the youngest run that was claimed the next look begins.
const MARGIN: TimeDelta = TimeDelta::seconds(10);

/// From where this instance's claims look at the queue.
#[derive(Debug, Default)]
pub(crate) struct Floor(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Nothing is known to be available before.
    at: DateTime<Utc>,
    last_whole: Option<Instant>,
}

impl Floor {
    /// Before everything.
    pub(crate) const WHOLE_QUEUE: DateTime<Utc> = DateTime::UNIX_EPOCH;

    /// Where the next claim begins; at the very beginning if a look at the whole queue is due.
    pub(crate) fn next(&self) -> DateTime<Utc> {
        let mut state = self.lock();
        if state.last_whole.is_some_and(|last| last.elapsed() < WHOLE) {
            return state.at;
        }
        state.last_whole = Some(Instant::now());
        Self::WHOLE_QUEUE
    }

    /// Takes note of a claim that found the end of the queue.
    pub(crate) fn note_end(&self, claimed: &[ClaimedRun]) {
        if let Some(youngest) = claimed.iter().map(|run| run.created_at).max() {
            let mut state = self.lock();
            state.at = state.at.max(youngest - MARGIN);
        }
    }

    /// Has the next claim look at the whole queue: something was put back, or the last such look left something there.
    pub(crate) fn reset(&self) {
        self.lock().last_whole = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain values: a panic elsewhere cannot have left them half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
