//! The database's clock, and lengths of time as it adds them.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use diesel::data_types::PgInterval;

use crate::db::connect::ConnectOptions;
use crate::db::error::DatabaseError;

diesel::define_sql_function! {
    /// The current time. `now()` is the start of the transaction, which may lie before a wait for a lock.
    fn clock_timestamp() -> diesel::sql_types::Timestamptz;
}

/// How far the database's clock is ahead of that of this machine, give or take half the time that a query takes.
///
/// # Errors
/// [`DatabaseError`] if the database does not answer.
pub async fn load_clock_difference(options: &ConnectOptions) -> Result<TimeDelta, DatabaseError> {
    let session = options.open_session().await?;
    let asked = Utc::now();
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let row = session.client.query_one(sql, &[]).await;
    let answered = Utc::now();
    let row = row.map_err(|error| DatabaseError::connection("asking for the time", error))?;
    let ours = (asked + (answered - asked) / 2).timestamp_millis();
    Ok(TimeDelta::milliseconds(row.get::<_, i64>(0).saturating_sub(ours)))
}

/// A lifetime as PostgreSQL adds it; ten years at most.
pub(crate) fn interval(lifetime: Duration) -> PgInterval {
    const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
    let micros = i64::try_from(lifetime.min(LONGEST).as_micros()).unwrap_or(i64::MAX);
    PgInterval::from_microseconds(micros)
}
