//! The journal's partitions, one a week: makes them ahead and drops old ones, while runs go on.
//!
//! A lock that waits is one that everybody who comes later waits behind, and a dump reads for hours. So nothing here asks
//! for a lock that a reader of the journal is in the way of, as long as others may want the same: there is no default
//! partition, which a new one would lock; an old one is detached `CONCURRENTLY`, and dropped when no other session can get to it.
//! What waits all the same gives up after [`LOCK_TIMEOUT`], and says for whom it waited.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Integer};
use diesel_async::RunQueryDsl;
use tokio::sync::oneshot;

use crate::db::blockers::describe_blockers;
use crate::db::connect::Session;
use crate::db::error::{DatabaseError, chain};
use crate::db::keys::{LockOf, lock_key};
use crate::db::pool::Pool;

/// How long a statement here waits for a lock, or for older transactions.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// A statement that takes so long waits for somebody: the log will say for whom.
const ASK_AFTER: Duration = Duration::from_millis(500);

/// Makes the journal's partitions of last week, of this one and of `weeks` more; answers with how many were new. To be
/// repeated, say daily: what has no partition cannot be written. Readers of the journal are not in its way. Where none is
/// missing, this is one query that takes no lock.
///
/// # Errors
/// [`DatabaseError::TimedOut`] if another maintenance holds the lock, or another failure of the database; no partition was
/// made. Try again later.
pub async fn ensure_journal_partitions(pool: &Pool, weeks: u8) -> Result<i32, DatabaseError> {
    if count_missing(pool, weeks).await? == 0 {
        return Ok(0);
    }
    let maintenance = Maintenance::begin(pool, "making partitions of the journal").await?;
    let sql = "SELECT run_journal_ensure_partitions($1)";
    let weeks = i32::from(weeks);
    let row = maintenance.watched(maintenance.session.client.query_one(sql, &[&weeks])).await?;
    Ok(row.get(0))
}

/// How many of these partitions there are not. Their names are those that `run_journal_ensure_partitions` gives.
async fn count_missing(pool: &Pool, weeks: u8) -> Result<i64, DatabaseError> {
    let conn = pool.get().await?;
    let sql = "
        SELECT count(*) AS n_missing FROM generate_series(-1, $1) AS week (number)
        WHERE NOT EXISTS (
            SELECT FROM pg_inherits JOIN pg_class ON oid = inhrelid
            WHERE inhparent = 'run_journal'::regclass AND relname = 'run_journal_'
                || to_char(date_trunc('week', now() AT TIME ZONE 'UTC') + number * interval '1 week', 'YYYYMMDD'))";
    let missing: Missing = diesel::sql_query(sql)
        .bind::<Integer, _>(i32::from(weeks))
        .get_result(&mut &*conn)
        .await
        .map_err(|error| DatabaseError::query("looking for partitions of the journal", error))?;
    Ok(missing.n_missing)
}

#[derive(QueryableByName)]
struct Missing {
    #[diesel(sql_type = BigInt)]
    n_missing: i64,
}

/// Drops the journal's partitions (weeks, by when the runs were accepted) of which every run ended before `before`, one
/// after the other; answers with how many. A run that waits keeps its partition. Does nothing while another instance drops
/// partitions.
///
/// # Errors
/// [`DatabaseError::TimedOut`] while a transaction is open that has read the journal, such as a dump, or another failure of
/// the database: try again later. Dropped partitions stay dropped. One that was only detached is read and written no more,
/// and dropped the next time.
pub async fn drop_journal_before(pool: &Pool, before: DateTime<Utc>) -> Result<i32, DatabaseError> {
    let maintenance = Maintenance::begin(pool, "dropping partitions of the journal").await?;
    let key = lock_key(pool.schema(), LockOf::OldJournals);
    let client = &maintenance.session.client;
    // Ends with the session.
    let row = client.query_one("SELECT pg_try_advisory_lock($1)", &[&key]).await;
    let is_alone: bool = row.map_err(|error| maintenance.failed(error))?.get(0);
    if !is_alone {
        return Ok(0);
    }
    let (mut n_dropped, before) = (0, before.to_rfc3339());
    loop {
        let sql = "SELECT statement, is_last FROM run_journal_next_drop($1::text::timestamptz)";
        let row = client.query_opt(sql, &[&before]).await.map_err(|error| maintenance.failed(error))?;
        let Some(row) = row else { return Ok(n_dropped) };
        let (statement, is_last): (String, bool) = (row.get(0), row.get(1));
        maintenance.watched(client.batch_execute(&statement)).await?;
        n_dropped += i32::from(is_last);
    }
}

/// A session whose statements give up soon.
struct Maintenance<'a> {
    pool: &'a Pool,
    session: Session,
    pid: i32,
    doing: &'static str,
}

impl<'a> Maintenance<'a> {
    async fn begin(pool: &'a Pool, doing: &'static str) -> Result<Self, DatabaseError> {
        let session = pool.open_session().await?;
        let sql = "SELECT set_config('lock_timeout', $1, false), pg_backend_pid()";
        let lock_timeout = format!("{}ms", LOCK_TIMEOUT.as_millis());
        let row = session.client.query_one(sql, &[&lock_timeout]).await;
        let pid = row.map_err(|error| DatabaseError::session(doing, error))?.get(1);
        Ok(Self { pool, session, pid, doing })
    }

    /// Awaits a statement of this session. If it takes long, another session learns for whom it waits meanwhile.
    async fn watched<T>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, DatabaseError> {
        let (running, ended) = oneshot::channel::<()>();
        let statement = async {
            let done = statement.await;
            drop(running);
            done
        };
        let watch = async {
            let has_ended = tokio::time::timeout(ASK_AFTER, ended).await.is_ok();
            if has_ended { None } else { self.describe_blockers().await.ok() }
        };
        let (done, blockers) = tokio::join!(statement, watch);
        done.map_err(|error| match (self.failed(error), blockers) {
            (DatabaseError::TimedOut { doing, cause }, Some(blockers)) => {
                DatabaseError::timed_out(doing, format!("{}: it waited for {blockers}", chain(&*cause)))
            }
            (other, _) => other,
        })
    }

    async fn describe_blockers(&self) -> Result<String, DatabaseError> {
        let beside = self.pool.open_session().await?;
        describe_blockers(&beside.client, self.pid).await.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: tokio_postgres::Error) -> DatabaseError {
        DatabaseError::session(self.doing, error)
    }
}
