//! The database's clock, and lengths of time as it adds them.

use std::time::Duration;

use diesel::data_types::PgInterval;

diesel::define_sql_function! {
    /// The current time. `now()` is the start of the transaction, which may lie before a wait for a lock.
    fn clock_timestamp() -> diesel::sql_types::Timestamptz;
}

/// A lifetime as PostgreSQL adds it; ten years at most.
pub(crate) fn interval(lifetime: Duration) -> PgInterval {
    const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
    let micros = i64::try_from(lifetime.min(LONGEST).as_micros()).unwrap_or(i64::MAX);
    PgInterval::from_microseconds(micros)
}
