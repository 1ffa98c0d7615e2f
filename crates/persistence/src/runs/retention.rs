//! Retention: deletes ended runs, audit events, and blobs to which no entry of a journal refers.
//! [`delete_events_before`](crate::delete_events_before) deletes old events, and
//! [`drop_journal_before`](crate::drop_journal_before) old journals.

use chrono::{DateTime, Utc};
use diesel::dsl::{exists, not};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::db::error::DatabaseError;
use crate::db::exactly_one::exactly_one;
use crate::db::pool::Pool;
use crate::db::schema::runs;

/// How many rows one transaction deletes: few enough to be quick.
const ROWS_AT_ONCE: i32 = 2000;

/// How many blobs one transaction deletes; each may be 16 MiB.
const BLOBS_AT_ONCE: i64 = 200;

diesel::define_sql_function! {
    /// Deletes some audit events from before a time; answers with how many.
    fn audit_events_prune(before: Timestamptz, at_most: Integer) -> Integer;
}

diesel::define_sql_function! {
    /// The smallest UUIDv7 of a time.
    fn uuid_v7_floor(at: Timestamptz) -> SqlUuid;
}

/// Deletes the audit events from before `before`, in batches; answers with how many. Nothing else can delete one.
///
/// Repeats: safe. Cancel: safe between the batches.
///
/// # Errors
/// The database's; what was deleted stays so.
pub async fn prune_audit_events(pool: &Pool, before: DateTime<Utc>) -> Result<usize, DatabaseError> {
    let mut n_pruned = 0;
    loop {
        let conn = pool.get().await?;
        let n = diesel::select(audit_events_prune(before, ROWS_AT_ONCE))
            .get_results::<i32>(&mut &*conn)
            .await
            .and_then(exactly_one)
            .map_err(|error| DatabaseError::query("pruning audit events", error))?;
        if n == 0 {
            return Ok(n_pruned);
        }
        n_pruned += usize::try_from(n).unwrap_or_default();
    }
}

/// Deletes the runs that ended before `before`, in batches; answers with how many. A child run stays as long as its parent.
///
/// Repeats: safe. Cancel: safe between the batches.
///
/// # Errors
/// The database's; what was deleted stays so.
pub async fn prune_runs(pool: &Pool, before: DateTime<Utc>) -> Result<usize, DatabaseError> {
    let mut n_pruned = 0;
    loop {
        let conn = pool.get().await?;
        let n = delete_ended_runs(&conn, before)
            .await
            .map_err(|error| DatabaseError::query("deleting old runs", error))?;
        if n == 0 {
            return Ok(n_pruned);
        }
        n_pruned += n;
    }
}

/// Deletes the blobs to which no entry of the journal refers, and to which none was written since `before`, in batches;
/// answers with how many. `before` is at least two hours ago.
///
/// An entry that reuses a blob cannot lose it. The insert of the entry locks the blob; if this came first, the insert waits
/// and then stores the blob again. If the insert came first, this skips the locked blob. If the insert was committed after
/// this began, so that this does not see the entry, the blob's time is new, and the lock reads the time again.
///
/// Repeats: safe. Cancel: safe between the batches.
///
/// # Errors
/// The database's; what was deleted stays so.
pub async fn prune_blobs(pool: &Pool, before: DateTime<Utc>) -> Result<usize, DatabaseError> {
    let mut n_pruned = 0;
    loop {
        let conn = pool.get().await?;
        let n = delete_unreferenced_blobs(&conn, before)
            .await
            .map_err(|error| DatabaseError::query("deleting unreferenced blobs", error))?;
        if n == 0 {
            return Ok(n_pruned);
        }
        n_pruned += n;
    }
}

async fn delete_unreferenced_blobs(
    mut conn: &AsyncPgConnection,
    before: DateTime<Utc>,
) -> QueryResult<usize> {
    diesel::sql_query(
        "DELETE FROM blobs WHERE digest = ANY (ARRAY(
            SELECT digest FROM blobs
            WHERE referenced_at < $1 AND NOT EXISTS (SELECT FROM run_journal WHERE run_journal.blob = blobs.digest)
            LIMIT $2 FOR UPDATE OF blobs SKIP LOCKED))",
    )
    .bind::<Timestamptz, _>(before)
    .bind::<BigInt, _>(BLOBS_AT_ONCE)
    .execute(&mut conn)
    .await
}

/// The ids sort by age, so the oldest runs are found by the primary key; those that wait for long are few.
async fn delete_ended_runs(mut conn: &AsyncPgConnection, before: DateTime<Utc>) -> QueryResult<usize> {
    let (old, parents) = diesel::alias!(runs as old, runs as parents);
    let of_needed_parent = parents
        .filter(parents.field(runs::id).nullable().eq(old.field(runs::parent_run_id)))
        .filter(parents.field(runs::ended_at).is_null().or(parents.field(runs::ended_at).ge(before)));
    let batch = old
        .filter(old.field(runs::id).lt(uuid_v7_floor(before)))
        .filter(old.field(runs::ended_at).lt(before))
        .filter(not(exists(of_needed_parent)))
        .order(old.field(runs::id))
        .select(old.field(runs::id))
        .limit(i64::from(ROWS_AT_ONCE));
    diesel::delete(runs::table.filter(runs::id.eq_any(batch))).execute(&mut conn).await
}
