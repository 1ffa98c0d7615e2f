//! The scan window: the part of a time-ordered queue that a poll reads.
//!
//! A poll of the whole queue steps over all index entries of runs that were claimed before and are not vacuumed yet. So once
//! a poll has found the end of the queue, the next ones begin a little before the time of that poll: newer runs became
//! available since. Only two kinds of runs enter the queue before the window. A run that was claimed before has an index of
//! its own. A run whose transaction was slow to commit is found by a poll of the whole queue now and then.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diesel::data_types::PgInterval;

use crate::db::query_backoff::QueryBackoff;

/// How often a claim reads the whole queue.
const WHOLE: Duration = Duration::from_secs(1);

/// How often the query for the next available run reads the whole queue.
const WHOLE_QUESTION: Duration = Duration::from_millis(200);

/// How far before the last end a scan begins: longer than the commit of an accepted run takes.
const MARGIN: Duration = Duration::from_secs(2);

/// The window of this instance on one queue.
#[derive(Debug)]
pub(crate) struct ScanWindow {
    /// When the last scan began that found the end.
    found_end: Mutex<Option<Instant>>,
    whole: QueryBackoff,
    whole_question: QueryBackoff,
}

/// A scan that begins now.
#[derive(Debug)]
pub(crate) struct Scan {
    began: Instant,
    /// The last end before it. Absent: it reads the whole queue.
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
    /// How far back from now it reads, for the database; null: everything. Each repetition reads further back.
    pub(crate) fn window(&self) -> Option<PgInterval> {
        let micros = (self.end?.elapsed() + MARGIN).as_micros();
        Some(PgInterval::from_microseconds(i64::try_from(micros).unwrap_or(i64::MAX)))
    }
}

impl ScanWindow {
    /// Begins the scan of a claim.
    pub(crate) fn begin(&self) -> Scan {
        self.begin_by(&self.whole)
    }

    /// Begins the scan of a query for the next available run.
    pub(crate) fn begin_question(&self) -> Scan {
        self.begin_by(&self.whole_question)
    }

    fn begin_by(&self, backoff: &QueryBackoff) -> Scan {
        let (began, end) = (Instant::now(), *self.lock());
        let end = end.filter(|_| !backoff.is_due());
        Scan { began, end }
    }

    /// The answer to a query that found a run available in `wait`. A query that did not read the whole queue must be
    /// repeated once one may. If a run is available now, the next claim must read the whole queue as well.
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

    /// Records a scan that was answered, and whether it took everything.
    pub(crate) fn note(&self, scan: &Scan, found_end: bool) {
        if scan.end.is_none() {
            self.whole.note(scan.began.elapsed());
        }
        if found_end {
            *self.lock() = Some(scan.began);
        }
    }

    /// Makes the next scan read the whole queue.
    pub(crate) fn reset(&self) {
        self.whole.reset();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        // A plain value: a panic elsewhere cannot leave it half-changed.
        self.found_end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
