//! Up to where the log is settled: no event will come any more with a `seq` up to there.
//!
//! A `seq` is given before its transaction is committed, so a later one can be readable earlier, and one whose transaction
//! fails never is. So a missing `seq` is passed only when no open transaction can have it. The transaction that has it was
//! open when a later `seq` was readable first; so it is enough that every transaction of that moment has ended.
//!
//! Neither `xact` nor any other number of a row tells this: of two transactions, the one with the smaller number may take
//! the larger `seq`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diesel::sql_types::{Array, BigInt, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tokio::time::Instant;

use crate::db::error::DatabaseError;

/// From then on a missing `seq` is waited for by asking who has the table open to write, as transactions of others in the
/// same cluster may stay open for hours.
const ASK_FOR_WRITERS_AFTER: Duration = Duration::from_millis(250);

/// How often the end of the log is read for one answer: the second time shows whether what was missing is still open.
const N_LOOKS: usize = 2;

/// How far the log is settled, as this process knows. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SettledLog(Arc<Mutex<Settled>>);

/// What was found of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogEnd {
    /// Nothing is missing up to here; `None` while that is not known.
    pub(crate) settled: Option<i64>,
    /// The last event that is readable.
    pub(super) last: i64,
    /// How far retention has come.
    pub(crate) pruned_until: i64,
}

impl LogEnd {
    /// Whether events are readable that are not settled.
    pub(crate) fn is_held_back(&self) -> bool {
        self.settled.is_none_or(|settled| settled < self.last)
    }
}

#[derive(Debug, Default)]
struct Settled {
    /// `None` until it was found out once.
    until: Option<i64>,
    waiting: Option<Waiting>,
}

/// What is waited for: that every transaction has ended that may have a missing `seq` up to `seq`.
#[derive(Debug)]
struct Waiting {
    seq: i64,
    /// Every such transaction has a smaller number.
    begun_below: i64,
    since: Instant,
    /// The transactions that had the table open to write at some moment since.
    writers: Option<Vec<String>>,
}

/// The end of the log, as one statement sees it.
#[derive(Debug, diesel::QueryableByName)]
struct Look {
    /// Every transaction with a smaller number has ended.
    #[diesel(sql_type = BigInt)]
    ended_below: i64,
    /// No transaction with this number or a greater one had begun when `last` was readable.
    #[diesel(sql_type = BigInt)]
    begun_below: i64,
    #[diesel(sql_type = BigInt)]
    last: i64,
    /// What follows what is settled, in order.
    #[diesel(sql_type = Array<BigInt>)]
    next: Vec<i64>,
    #[diesel(sql_type = BigInt)]
    pruned_until: i64,
}

impl Settled {
    fn see(&mut self, look: &Look, now: Instant) {
        if self.waiting.as_ref().is_some_and(|waiting| look.ended_below >= waiting.begun_below) {
            self.settle();
        }
        if let Some(until) = &mut self.until {
            for seq in &look.next {
                if *seq == *until + 1 {
                    *until = *seq;
                }
            }
        }
        let until = self.until.unwrap_or(-1);
        self.waiting = self.waiting.take().filter(|waiting| waiting.seq > until);
        if look.last > until && self.waiting.is_none() {
            self.waiting =
                Some(Waiting { seq: look.last, begun_below: look.begun_below, since: now, writers: None });
        }
    }

    /// What was waited for has ended.
    fn settle(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.until = self.until.max(Some(waiting.seq));
        }
    }

    /// Notes who has the table open to write.
    fn see_writers(&mut self, open: &[String]) {
        let Some(waiting) = &mut self.waiting else { return };
        match &waiting.writers {
            None => waiting.writers = Some(open.to_vec()),
            Some(writers) if writers.iter().any(|writer| open.contains(writer)) => return,
            Some(_) => {}
        }
        if waiting.writers.as_ref().is_some_and(|writers| !writers.iter().any(|writer| open.contains(writer)))
        {
            self.settle();
        }
    }

    /// Whether to ask for the writers. At the beginning that is at once: nothing can be read before.
    fn is_stuck(&self, now: Instant) -> bool {
        let is_long = |waiting: &Waiting| now - waiting.since >= ASK_FOR_WRITERS_AFTER;
        self.waiting.as_ref().is_some_and(|waiting| self.until.is_none() || is_long(waiting))
    }
}

impl SettledLog {
    /// The end of the log. It is settled as far as it can be known now.
    pub(crate) async fn look(&self, conn: &AsyncPgConnection) -> Result<LogEnd, DatabaseError> {
        let failed = |error| DatabaseError::query("reading the end of the log of events", error);
        let mut end = self.look_once(conn).await.map_err(failed)?;
        for _ in 1..N_LOOKS {
            if end.is_held_back() {
                end = self.look_once(conn).await.map_err(failed)?;
            }
        }
        if end.is_held_back() && self.locked().is_stuck(Instant::now()) {
            let open = load_writers(conn).await.map_err(failed)?;
            let mut settled = self.locked();
            settled.see_writers(&open);
            end.settled = settled.until;
        }
        Ok(end)
    }

    async fn look_once(&self, mut conn: &AsyncPgConnection) -> diesel::QueryResult<LogEnd> {
        // Where nothing is settled yet, what follows does not matter.
        let after = self.locked().until.unwrap_or(i64::MAX);
        // The xmax of a snapshot is behind the last transaction that has ended; `age` is how many have begun since.
        let look: Look = diesel::sql_query(
            "SELECT pg_snapshot_xmin(now.snapshot)::text::bigint AS ended_below,
                pg_snapshot_xmax(now.snapshot)::text::bigint + age(pg_snapshot_xmax(now.snapshot)::xid) AS begun_below,
                (SELECT coalesce(max(seq), 0) FROM events) AS last,
                ARRAY(SELECT seq FROM events WHERE seq > $1 ORDER BY seq LIMIT 5000) AS next,
                (SELECT pruned_until FROM event_retention) AS pruned_until
             FROM pg_current_snapshot() AS now (snapshot)",
        )
        .bind::<BigInt, _>(after)
        .get_result(&mut conn)
        .await?;
        let mut settled = self.locked();
        settled.see(&look, Instant::now());
        Ok(LogEnd { settled: settled.until, last: look.last, pruned_until: look.pruned_until })
    }

    fn locked(&self) -> MutexGuard<'_, Settled> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The transactions that have the table open to write: each has it from before it takes a `seq` until it ends.
async fn load_writers(mut conn: &AsyncPgConnection) -> diesel::QueryResult<Vec<String>> {
    #[derive(diesel::QueryableByName)]
    struct Writer {
        #[diesel(sql_type = Text)]
        transaction: String,
    }
    let writers: Vec<Writer> = diesel::sql_query(
        "SELECT DISTINCT virtualtransaction AS transaction FROM pg_locks
         WHERE locktype = 'relation' AND relation = 'events'::regclass AND mode = 'RowExclusiveLock'
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .load(&mut conn)
    .await?;
    Ok(writers.into_iter().map(|writer| writer.transaction).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(ended_below: i64, begun_below: i64, next: &[i64]) -> Look {
        let last = next.last().copied().unwrap_or(0);
        Look { ended_below, begun_below, last, next: next.to_vec(), pruned_until: 0 }
    }

    fn settled_at(until: i64) -> Settled {
        Settled { until: Some(until), waiting: None }
    }

    #[test]
    fn without_a_gap_the_log_is_settled_whatever_is_open() {
        let mut log = settled_at(4);
        log.see(&look(1, 100, &[5, 6, 7]), Instant::now());
        assert_eq!(log.until, Some(7));
        assert!(log.waiting.is_none());
    }

    #[test]
    fn a_gap_is_passed_when_every_transaction_of_its_discovery_has_ended() {
        let mut log = settled_at(4);
        log.see(&look(10, 12, &[5, 7]), Instant::now());
        assert_eq!(log.until, Some(5), "6 may still come");
        // The one that has 6 may have a greater number than the one that has 7.
        log.see(&look(11, 20, &[5, 7, 8, 10]), Instant::now());
        assert_eq!(log.until, Some(5));
        log.see(&look(12, 20, &[5, 7, 8, 10]), Instant::now());
        assert_eq!(log.until, Some(8), "6 never comes, but 9 may");
        log.see(&look(13, 21, &[9, 10]), Instant::now());
        assert_eq!(log.until, Some(10), "it came");
        assert!(log.waiting.is_none());
    }

    #[test]
    fn an_unknown_log_is_settled_when_what_was_open_has_ended() {
        let mut log = Settled::default();
        log.see(&Look { next: vec![], ..look(5, 9, &[40]) }, Instant::now());
        assert_eq!(log.until, None);
        log.see(&Look { next: vec![], ..look(9, 9, &[44]) }, Instant::now());
        assert_eq!(log.until, Some(40));
        log.see(&look(9, 9, &[41, 42, 43, 44]), Instant::now());
        assert_eq!(log.until, Some(44));
        let mut empty = Settled::default();
        empty.see(&look(9, 9, &[]), Instant::now());
        empty.see(&look(9, 9, &[]), Instant::now());
        assert_eq!(empty.until, Some(0));
    }

    #[test]
    fn a_gap_is_passed_when_its_writers_have_closed_the_table() {
        let writers = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut log = settled_at(4);
        log.see(&look(10, 12, &[6]), Instant::now());
        log.see_writers(&writers(&["3/1", "4/7"]));
        log.see_writers(&writers(&["4/7", "5/2"]));
        assert_eq!(log.until, Some(4));
        log.see_writers(&writers(&["5/2"]));
        assert_eq!(log.until, Some(6));
        let mut quiet = settled_at(4);
        quiet.see(&look(10, 12, &[6]), Instant::now());
        quiet.see_writers(&[]);
        assert_eq!(quiet.until, Some(6), "nobody can have it");
    }
}
