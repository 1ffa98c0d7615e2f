//! The journal's partitions: made ahead, dropped when old.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Integer, Timestamptz};
use diesel_async::RunQueryDsl;

use crate::error::DatabaseError;
use crate::pool::Pool;

diesel::define_sql_function! {
    /// Makes the partitions of this week and of `weeks` more.
    fn run_journal_ensure_partitions(weeks: Integer) -> Integer;
}

diesel::define_sql_function! {
    /// Drops the partitions that end before a time and of which no run is alive.
    fn run_journal_drop_partitions(before: Timestamptz) -> Integer;
}

/// Makes the journal's partitions of this week and of `weeks` more; answers with how many were new. To be repeated, say
/// daily; without it nothing fails, as what has no partition of its own goes to a common one.
///
/// # Errors
/// [`DatabaseError::Unavailable`]; no partition was made.
pub async fn ensure_journal_partitions(pool: &Pool, weeks: u8) -> Result<i32, DatabaseError> {
    let conn = pool.get().await?;
    diesel::select(run_journal_ensure_partitions(i32::from(weeks)))
        .get_result(&mut &*conn)
        .await
        .map_err(|error| DatabaseError::query("making partitions of the journal", error))
}

/// Drops the journal's partitions of runs that began before `before` (UTC, by the whole week), unless one of them is
/// still alive; answers with how many.
///
/// # Errors
/// [`DatabaseError::Unavailable`]; nothing was dropped.
pub async fn drop_journal_before(pool: &Pool, before: DateTime<Utc>) -> Result<i32, DatabaseError> {
    let conn = pool.get().await?;
    diesel::select(run_journal_drop_partitions(before))
        .get_result(&mut &*conn)
        .await
        .map_err(|error| DatabaseError::query("dropping partitions of the journal", error))
}
