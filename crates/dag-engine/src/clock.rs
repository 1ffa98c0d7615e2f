//! The engine's idea of now.

use chrono::{DateTime, Utc};

/// What time it is. Waiting is tokio's, so tests under virtual time pass a clock that follows it.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> DateTime<Utc>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}
