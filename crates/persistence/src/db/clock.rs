//! The database's clock, and lengths of time as it adds them.

use std::time::Duration;

use diesel::data_types::PgInterval;

diesel::define_sql_function! {
    /// The time at this very moment; `now()` is that of the transaction's begin, which a wait for a lock leaves behind.
    fn clock_timestamp() -> diesel::sql_types::Timestamptz;
}

/// A lifetime as PostgreSQL adds it; ten years at most.
pub(crate) fn interval(lifetime: Duration) -> PgInterval {
    const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
    let micros = i64::try_from(lifetime.min(LONGEST).as_micros()).unwrap_or(i64::MAX);
    PgInterval::from_microseconds(micros)
}
