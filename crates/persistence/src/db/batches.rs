//! Deleting many rows without a long transaction.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Timestamptz};
use diesel_async::RunQueryDsl;

use crate::db::error::DatabaseError;
use crate::db::pool::Pool;

/// How many rows are deleted in one transaction.
const ROWS_AT_ONCE: i64 = 5000;

/// Deletes rows in batches until none is left; answers with how many. `sql` deletes at most `$2` of the rows from before
/// `$1`, in UTC; `what` says so in an error.
///
/// Repeats: safe, also on several instances at once. Cancel: safe between the batches.
///
/// # Errors
/// [`DatabaseError::Unavailable`], [`DatabaseError::TimedOut`] or [`DatabaseError::Fault`]; repeating goes on from there.
pub(crate) async fn delete_before(
    pool: &Pool,
    what: &'static str,
    sql: &'static str,
    before: DateTime<Utc>,
) -> Result<usize, DatabaseError> {
    let mut n_deleted = 0;
    loop {
        let conn = pool.get().await?;
        let batch = diesel::sql_query(sql)
            .bind::<Timestamptz, _>(before)
            .bind::<BigInt, _>(ROWS_AT_ONCE)
            .execute(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query(what, error))?;
        n_deleted += batch;
        if batch == 0 {
            return Ok(n_deleted);
        }
    }
}
