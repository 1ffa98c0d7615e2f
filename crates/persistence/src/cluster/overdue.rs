//! Stuck instances: they seem healthy, and yet drive a run whose deadline is long past.
//!
//! A run ends at its deadline, whatever executes. An instance that still drives it is stuck, although its heartbeat
//! goes on.

use std::time::Duration;

use diesel::data_types::PgInterval;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Interval, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use gathering_domain::InstanceId;
use uuid::Uuid;

use crate::db::error::DatabaseError;
use crate::db::pool::Pool;

#[derive(QueryableByName)]
struct Overdue {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Bool)]
    is_ended: bool,
}

/// A run that was claimed just now, or that still makes progress, proves nothing. The query asks for its owner as a
/// range, in order, so that the index is used even if the statistics predict many rows. An instance inside a
/// transaction is active.
const END_OVERDUE: &str = "
    SELECT instances.id, pg_terminate_backend(holder.pid) AS is_ended
    FROM instances JOIN (
        SELECT (classid::bigint << 32) | objid::bigint AS lock_key, pid, virtualtransaction FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 1 AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ) AS holder ON holder.lock_key = instances.lock_key
    WHERE holder.virtualtransaction LIKE '%/0' AND (
        SELECT owner FROM active_runs
        WHERE owner >= instances.id AND owner <= instances.id
            AND deadline_at < now() - $1 AND started_at < now() - $1
            AND coalesce((SELECT at FROM run_journal WHERE run_id = active_runs.run_id ORDER BY seq DESC LIMIT 1), started_at)
                < now() - $1
        ORDER BY owner LIMIT 1) IS NOT NULL
    ORDER BY instances.id";

/// Ends the sessions of the instances that drive a run whose deadline passed more than `limit` ago, and that wrote
/// nothing for as long. The next check for dead instances recovers their runs, and the epoch fences them if they wake
/// up.
///
/// # Errors
/// [`DatabaseError::Unavailable`].
pub async fn end_overdue_instances(pool: &Pool, limit: Duration) -> Result<Vec<InstanceId>, DatabaseError> {
    let conn = pool.get().await?;
    let microseconds = i64::try_from(limit.as_micros()).unwrap_or(i64::MAX);
    let overdue: Vec<Overdue> = diesel::sql_query(END_OVERDUE)
        .bind::<Interval, _>(PgInterval::from_microseconds(microseconds))
        .load(&mut &*conn)
        .await
        .map_err(|error| DatabaseError::query("ending the sessions of stuck instances", error))?;
    Ok(overdue.into_iter().filter(|one| one.is_ended).map(|one| one.id.into()).collect())
}
