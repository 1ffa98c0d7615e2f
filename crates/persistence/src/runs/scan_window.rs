//! From where a look at the queue begins.
//!
//! Each look at the whole queue steps over what was claimed before and cannot be cleared away yet ([`crate::db::pace`]). So once
//! a look has found the end of the queue, the next ones begin a little before the time of that look: what comes since is
//! available since. What comes into the queue behind it is a run that was claimed before, which has an index of its own,
//! or one whose transaction was slow to commit, which is found by a look at the whole queue now and then.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diesel::data_types::PgInterval;

use crate::db::query_backoff::QueryBackoff;

/// How often the whole queue is looked at, if it is looked at.
const WHOLE: Duration = Duration::from_secs(1);

/// How often it is asked of the whole queue when the next run is due.
const WHOLE_QUESTION: Duration = Duration::from_millis(200);

/// How far before the last end a look begins: longer than the commit of a run that is accepted takes.
const MARGIN: Duration = Duration::from_secs(2);

/// From where this instance looks at a queue that is ordered by time.
#[derive(Debug)]
pub(crate) struct ScanWindow {
    /// When a look began that found the end.
    found_end: Mutex<Option<Instant>>,
    whole: QueryBackoff,
    whole_question: QueryBackoff,
}

/// A look that begins now.
#[derive(Debug)]
pub(crate) struct Scan {
    began: Instant,
    /// The last end before it; it looks everywhere if absent.
    end: Option<Instant>,
}

impl Default for ScanWindow {
    fn default() -> Self {
        Self {
            found_end: Mutex::default(),
            whole: QueryBackoff::new(WHOLE),
            whole_question: QueryBackoff::new(WHOLE_QUESTION),
        }
    }
}

impl Scan {
    /// How far back from now, for the database; null is everywhere. Each repetition looks back further.
    pub(crate) fn window(&self) -> Option<PgInterval> {
        let micros = (self.end?.elapsed() + MARGIN).as_micros();
        Some(PgInterval::from_microseconds(i64::try_from(micros).unwrap_or(i64::MAX)))
    }
}

impl ScanWindow {
    /// Where a look begins now that takes what it finds.
    pub(crate) fn begin(&self) -> Scan {
        self.begin_by(&self.whole)
    }

    /// Where a look begins now that only asks when something will be there.
    pub(crate) fn begin_question(&self) -> Scan {
        self.begin_by(&self.whole_question)
    }

    fn begin_by(&self, backoff: &QueryBackoff) -> Scan {
        let (began, end) = (Instant::now(), *self.lock());
        let end = end.filter(|_| !backoff.is_due());
        Scan { began, end }
    }

    /// What a question is answered with that found something in so long: one that did not see everything is to be put again
    /// once it may. What is there already and was seen, the next look must see as well.
    pub(crate) fn answer(&self, scan: &Scan, wait: Option<Duration>) -> Option<Duration> {
        if scan.end.is_some() {
            let due_in = self.whole_question.due_in().max(Duration::from_millis(1));
            return Some(wait.map_or(due_in, |wait| wait.min(due_in)));
        }
        self.whole_question.note(scan.began.elapsed());
        if wait == Some(Duration::ZERO) {
            self.whole.reset();
        }
        wait
    }

    /// Takes note of a look that was answered, and whether it took everything that there was.
    pub(crate) fn note(&self, scan: &Scan, found_end: bool) {
        if scan.end.is_none() {
            self.whole.note(scan.began.elapsed());
        }
        if found_end {
            *self.lock() = Some(scan.began);
        }
    }

    /// Has the next look see the whole queue.
    pub(crate) fn reset(&self) {
        self.whole.reset();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        // A plain value: a panic elsewhere cannot have left it half-changed.
        self.found_end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
