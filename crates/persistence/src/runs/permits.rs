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

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long claims look at the lines after there was something in one.
const INTEREST: Duration = Duration::from_secs(60);

/// Whether the claims of this instance look at the lines of keys: for a minute after there was something in one, so that a
/// server without limits pays nothing for them. The question when a run is available next always looks.
#[derive(Debug)]
pub(crate) struct LineInterest {
    until: Mutex<Instant>,
}

impl Default for LineInterest {
    /// A new instance looks.
    fn default() -> Self {
        Self { until: Mutex::new(Instant::now() + INTEREST) }
    }
}

impl LineInterest {
    /// There was something.
    pub(crate) fn note(&self) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + INTEREST;
    }

    pub(crate) fn is_due(&self) -> bool {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) > Instant::now()
    }
}
