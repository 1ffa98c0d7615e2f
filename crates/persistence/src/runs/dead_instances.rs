//! Finding instances that are dead or stuck. [`recover_instance`] recovers their runs.
//!
//! It reconciles: to run it twice, or on two instances at once, is harmless.

use std::time::{Duration, Instant};

use diesel::data_types::PgInterval;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Bool, Interval, Nullable, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, RunQueryDsl};
use gathering_domain::{InstanceId, RunId};
use uuid::Uuid;

use crate::cluster::wake::WakeBus;
use crate::db::error::DatabaseError;
use crate::db::pool::Pool;
use crate::db::query_backoff::QueryBackoff;
use crate::runs::transitions::recover::recover_instance;

/// What became of the runs of one dead instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The instance. Its row is deleted.
    pub instance: InstanceId,
    /// Its runs that are queued again.
    pub requeued: Vec<RunId>,
    /// Its runs that failed, because their owners died too often.
    pub failed: Vec<RunId>,
}

/// What one search for dead instances found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recoveries {
    /// One for each dead instance.
    pub of: Vec<Recovery>,
    /// The stuck instances whose sessions were ended: the next search finds them dead.
    pub stuck: Vec<InstanceId>,
    /// Whether any instance, alive or dead, owned a run when the search began.
    pub is_anyone_driving: bool,
}

/// Recovers each instance that has lost its liveness lock. Its runs are queued again; a run that was recovered
/// `max_recoveries` times before fails as poisonous. Then the instance's row is deleted, and `wakes` sends the wake-ups
/// that this owes. That is one transaction per dead instance, and one statement where all are well.
///
/// An instance that owns runs and holds its lock, but has had no heartbeat for longer than `stuck_limit`, loses its
/// session. The next search then finds it dead, and the epoch fences what it still does.
///
/// # Errors
/// [`DatabaseError::Unavailable`]: instances that were recovered before stay recovered, and a repetition goes on with
/// the others.
pub async fn recover_dead_instances(
    pool: &Pool,
    wakes: &WakeBus,
    max_recoveries: i32,
    stuck_limit: Duration,
) -> Result<Recoveries, DatabaseError> {
    search_dead(pool, wakes, max_recoveries, stuck_limit, None).await
}

/// The same. Where `backoff` says not to query yet, it assumes that some instance drives.
pub(crate) async fn search_dead(
    pool: &Pool,
    wakes: &WakeBus,
    max_recoveries: i32,
    stuck_limit: Duration,
    backoff: Option<&QueryBackoff>,
) -> Result<Recoveries, DatabaseError> {
    let failed = |error| DatabaseError::query("recovering dead instances", error);
    let (began, asks_for_drivers) = (Instant::now(), backoff.is_none_or(QueryBackoff::is_due));
    let suspects = list_suspects(pool, Suspects::new(stuck_limit, asks_for_drivers)).await?;
    if let (Some(backoff), true) = (backoff, asks_for_drivers) {
        backoff.note(began.elapsed());
    }
    let mut found = Recoveries::default();
    for (is_anyone_driving, suspect, lock_key, is_ended) in suspects {
        found.is_anyone_driving |= is_anyone_driving;
        match (suspect, lock_key) {
            (Some(stuck), _) if is_ended == Some(true) => found.stuck.push(stuck.into()),
            (Some(dead), Some(lock_key)) => {
                let mut conn = pool.get().await?;
                let recovered = conn
                    .transaction(async |conn| recover_instance(conn, dead, lock_key, max_recoveries).await);
                if let Some((recovery, wake_ups)) = recovered.await.map_err(failed)? {
                    // At once: an error with the next instance must not cost these wake-ups.
                    wake_ups.send(wakes);
                    found.of.push(recovery);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Uses a connection that plans with indexes only: after a rush the statistics may claim that to read all of `runs` costs
/// no more.
async fn list_suspects(pool: &Pool, suspects: Suspects) -> Result<Vec<Suspect>, DatabaseError> {
    let mut own = pool.get_for_claims().await?;
    let (mut conn, wire) = own.parts();
    let listed = wire.carry(suspects.load(&mut conn)).await;
    listed.map_err(|error| DatabaseError::query("searching dead instances", error))
}

/// Whether any instance drives runs; then an instance that is not well, its lock, and whether its session was ended just
/// now.
type Suspect = (bool, Option<Uuid>, Option<i64>, Option<bool>);

/// Whether any instance drives, and the instances that are not well: one row when all are well. An instance whose lock
/// seems free is dead only if the lock can be taken.
#[derive(QueryId)]
struct Suspects {
    stuck_limit: PgInterval,
    asks_for_drivers: bool,
}

impl Suspects {
    fn new(stuck_limit: Duration, asks_for_drivers: bool) -> Self {
        let microseconds = i64::try_from(stuck_limit.as_micros()).unwrap_or(i64::MAX);
        Self { stuck_limit: PgInterval::from_microseconds(microseconds), asks_for_drivers }
    }
}

impl QueryFragment<Pg> for Suspects {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // Ordered, so that the first owner is read from the index even if the statistics promise many.
        out.push_sql(
            "SELECT anyone.is_driving, suspect.id, suspect.lock_key, suspect.is_ended
             FROM (SELECT CASE WHEN ",
        );
        out.push_bind_param::<Bool, _>(&self.asks_for_drivers)?;
        out.push_sql(
            " THEN (SELECT owner FROM active_runs WHERE owner IS NOT NULL ORDER BY owner LIMIT 1) IS NOT NULL
                 ELSE true END) AS anyone (is_driving)
             LEFT JOIN (
                 SELECT id, instances.lock_key, coalesce(pg_terminate_backend(holder.pid), false) AS is_ended
                 FROM instances LEFT JOIN (
                     SELECT (classid::bigint << 32) | objid::bigint AS lock_key, pid, virtualtransaction FROM pg_locks
                     WHERE locktype = 'advisory' AND objsubid = 1 AND granted
                         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 ) AS holder ON holder.lock_key = instances.lock_key
                 WHERE holder.pid IS NULL
                     -- A holder in a transaction is proving its liveness, or is an instance that recovers this one.
                     OR (holder.virtualtransaction LIKE '%/0' AND heartbeat_at < now() - ",
        );
        out.push_bind_param::<Interval, _>(&self.stuck_limit)?;
        out.push_sql(
            "
                         AND EXISTS (SELECT FROM active_runs WHERE owner = instances.id))
             ) AS suspect ON true ORDER BY suspect.id",
        );
        Ok(())
    }
}

impl Query for Suspects {
    type SqlType = (Bool, Nullable<SqlUuid>, Nullable<BigInt>, Nullable<Bool>);
}
