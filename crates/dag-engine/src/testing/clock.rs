//! A clock for tests.

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use crate::clock::Clock;

/// A clock that follows tokio's time: under `start_paused` it stops and jumps with it.
#[derive(Debug, Clone, Copy)]
pub struct VirtualClock {
    began: Instant,
    at: DateTime<Utc>,
}

impl VirtualClock {
    /// A clock that shows `at` now. Needs a tokio runtime.
    pub fn starting_at(at: DateTime<Utc>) -> Self {
        Self { began: Instant::now(), at }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> DateTime<Utc> {
        self.at + TimeDelta::from_std(self.began.elapsed()).unwrap_or(TimeDelta::MAX)
    }
}
