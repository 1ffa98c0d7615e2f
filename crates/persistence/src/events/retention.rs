//! Retention of events.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Timestamptz};
use diesel_async::RunQueryDsl;

use crate::db::error::DatabaseError;
use crate::db::exactly_one::exactly_one;
use crate::db::pool::Pool;

/// How many events one transaction deletes: few enough to be quick.
const ROWS_AT_ONCE: i64 = 10_000;

/// Deletes the events from before `before` (UTC), in batches; answers with how many. A reader that comes back from before
/// them is told that some are gone.
///
/// Repeats: safe. Cancel: safe between the batches.
///
/// # Errors
/// The database's; what was deleted stays so.
pub async fn delete_events_before(pool: &Pool, before: DateTime<Utc>) -> Result<usize, DatabaseError> {
    #[derive(diesel::QueryableByName)]
    struct Deleted {
        #[diesel(sql_type = BigInt)]
        n: i64,
    }
    let mut n_deleted = 0;
    loop {
        let conn = pool.get().await?;
        let batch: Deleted = diesel::sql_query(
            "WITH old AS MATERIALIZED (
                SELECT seq FROM events WHERE at < $1 ORDER BY at LIMIT $2
             ), deleted AS (
                DELETE FROM events WHERE seq = ANY (ARRAY(SELECT seq FROM old)) RETURNING seq
             ), noted AS (
                UPDATE event_retention
                SET pruned_until = greatest(pruned_until, (SELECT max(seq) FROM deleted))
                WHERE EXISTS (SELECT FROM deleted)
             )
             SELECT count(*) AS n FROM deleted",
        )
        .bind::<Timestamptz, _>(before)
        .bind::<BigInt, _>(ROWS_AT_ONCE)
        .get_results(&mut &*conn)
        .await
        .and_then(exactly_one)
        .map_err(|error| DatabaseError::query("deleting old events", error))?;
        if batch.n == 0 {
            return Ok(n_deleted);
        }
        n_deleted += usize::try_from(batch.n).unwrap_or_default();
    }
}
