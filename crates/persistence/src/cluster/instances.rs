//! The instances, read from their rows; for people, not for decisions.

use chrono::{DateTime, Utc};
use diesel::dsl::array;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use gathering_domain::{InstanceId, RunId};
use uuid::Uuid;

use crate::db::error::DatabaseError;
use crate::db::pool::Pool;
use crate::db::schema::{active_runs, instances};

/// An instance, read from its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceRow {
    /// Its id.
    pub id: InstanceId,
    /// The host that it runs on.
    pub hostname: String,
    /// Its process id there.
    pub pid: i32,
    /// The program's version.
    pub version: String,
    /// `active` or `draining`.
    pub state: String,
    /// When it started, in UTC.
    pub started_at: DateTime<Utc>,
    /// Its last heartbeat, in UTC; written every ten seconds while it drives runs, else every thirty.
    pub heartbeat_at: DateTime<Utc>,
    /// How many runs it drives.
    pub n_runs: i64,
    /// The first [`MAX_RUNS_LISTED`] of them by id.
    pub runs: Vec<RunId>,
}

/// How many of its runs are listed of each instance.
pub const MAX_RUNS_LISTED: i64 = 100;

/// The instances that are alive, or died and are not yet recovered; the oldest first, at most 1000.
///
/// # Errors
/// [`DatabaseError::Unavailable`].
pub async fn list_instances(pool: &Pool) -> Result<Vec<InstanceRow>, DatabaseError> {
    type Owned = (Option<i64>, Vec<Uuid>);
    type Row = (Uuid, String, i32, String, String, DateTime<Utc>, DateTime<Utc>, Owned);
    let conn = pool.get().await?;
    let owned = || active_runs::table.filter(active_runs::owner.eq(instances::id.nullable()));
    let n_runs = owned().select(diesel::dsl::count_star()).single_value();
    let first = array(owned().order(active_runs::run_id).limit(MAX_RUNS_LISTED).select(active_runs::run_id));
    let rows: Vec<Row> = instances::table
        .order(instances::id)
        .limit(1000)
        .select((
            instances::id,
            instances::hostname,
            instances::pid,
            instances::version,
            instances::state,
            instances::started_at,
            instances::heartbeat_at,
            (n_runs, first),
        ))
        .load(&mut &*conn)
        .await
        .map_err(|error| DatabaseError::query("listing the instances", error))?;
    Ok(rows
        .into_iter()
        .map(|(id, hostname, pid, version, state, started_at, heartbeat_at, (n_runs, runs))| InstanceRow {
            id: id.into(),
            hostname,
            pid,
            version,
            state,
            started_at,
            heartbeat_at,
            n_runs: n_runs.unwrap_or(0),
            runs: runs.into_iter().map(Into::into).collect(),
        })
        .collect())
}
