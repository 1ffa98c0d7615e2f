//! Taking the runs of dead instances back into the queue.
//!
//! Reconciles: it reads what there is and moves it on, so that running it twice or on two instances is harmless.

use std::time::{Duration, Instant};

use diesel::data_types::PgInterval;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Array, BigInt, Bool, Interval, Json, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_domain::{InstanceId, RunId, RunState};
use uuid::Uuid;

use crate::db::error::DatabaseError;
use crate::db::pool::Pool;
use crate::db::query_backoff::QueryBackoff;
use crate::db::schema::{instances, runs};

diesel::define_sql_function! {
    /// Takes the lock until the end of the transaction, if nobody holds it.
    fn pg_try_advisory_xact_lock(key: BigInt) -> Bool;
}

/// What became of the runs of one dead instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The instance, of which nothing is left.
    pub instance: InstanceId,
    /// Its runs that can be claimed again.
    pub requeued: Vec<RunId>,
    /// Its runs that failed, because their owners died too often.
    pub failed: Vec<RunId>,
}

/// What a look for dead instances found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recoveries {
    /// What became of each dead instance.
    pub of: Vec<Recovery>,
    /// The stuck instances whose sessions were ended: the next look finds them dead.
    pub stuck: Vec<InstanceId>,
    /// Whether any instance, alive or dead, owned a run when the look began.
    pub is_anyone_driving: bool,
}

/// Recovers each instance that does not hold its lock any more: its runs are queued again or, where that happened
/// `max_recoveries` times before, failed as poisonous; then its row is deleted. One transaction per instance, and one
/// statement where all are well.
///
/// An instance that owns runs and holds its lock, but whose heartbeat stands still for longer than `stuck_limit`, loses
/// its session: the next look finds it dead then, and the epoch fences what wakes up.
///
/// # Errors
/// [`DatabaseError::Unavailable`]; instances that were recovered before stay so, and repeating goes on from there.
pub async fn recover_dead_instances(
    pool: &Pool,
    max_recoveries: i32,
    stuck_limit: Duration,
) -> Result<Recoveries, DatabaseError> {
    look_for_dead(pool, max_recoveries, stuck_limit, None).await
}

/// The same; somebody is taken to drive where `pace` says that it is not to be asked.
pub(crate) async fn look_for_dead(
    pool: &Pool,
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
                let recovered =
                    conn.transaction(async |conn| recover(conn, dead, lock_key, max_recoveries).await);
                found.of.extend(recovered.await.map_err(failed)?);
            }
            _ => {}
        }
    }
    Ok(found)
}

/// On a connection whose statements are planned by indexes only: after a rush the statistics may say that reading all of
/// `runs` is no more work.
async fn list_suspects(pool: &Pool, suspects: Suspects) -> Result<Vec<Suspect>, DatabaseError> {
    let mut own = pool.get_for_claims().await?;
    let (mut conn, wire) = own.parts();
    let listed = wire.carry(suspects.load(&mut conn)).await;
    listed.map_err(|error| DatabaseError::query("looking for dead instances", error))
}

/// Whether anybody drives runs; the instance, its lock and whether its session was ended just now, if there is one that
/// is not well.
type Suspect = (bool, Option<Uuid>, Option<i64>, Option<bool>);

/// Whether anybody drives, and the instances that are not well: one row when all are. Of those whose lock nobody seems to
/// hold, taking the lock is what decides.
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
            " THEN (SELECT owner FROM runs WHERE owner IS NOT NULL ORDER BY owner LIMIT 1) IS NOT NULL
                 ELSE true END) AS anyone (is_driving)
             LEFT JOIN (
                 SELECT id, instances.lock_key, coalesce(pg_terminate_backend(holder.pid), false) AS is_ended
                 FROM instances LEFT JOIN (
                     SELECT (classid::bigint << 32) | objid::bigint AS lock_key, pid, virtualtransaction FROM pg_locks
                     WHERE locktype = 'advisory' AND objsubid = 1 AND granted
                         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 ) AS holder ON holder.lock_key = instances.lock_key
                 WHERE holder.pid IS NULL
                     -- Who is in a transaction asks just now, or is an instance that recovers this one.
                     OR (holder.virtualtransaction LIKE '%/0' AND heartbeat_at < now() - ",
        );
        out.push_bind_param::<Interval, _>(&self.stuck_limit)?;
        out.push_sql(
            "
                         AND EXISTS (SELECT FROM runs WHERE owner = instances.id))
             ) AS suspect ON true ORDER BY suspect.id",
        );
        Ok(())
    }
}

impl Query for Suspects {
    type SqlType = (Bool, Nullable<SqlUuid>, Nullable<BigInt>, Nullable<Bool>);
}

async fn recover(
    mut conn: &AsyncPgConnection,
    instance: Uuid,
    lock_key: i64,
    max_recoveries: i32,
) -> QueryResult<Option<Recovery>> {
    if !diesel::select(pg_try_advisory_xact_lock(lock_key)).get_result::<bool>(&mut conn).await? {
        return Ok(None);
    }
    // Locked before its runs: a claim that the dead one still has under way waits here and is then refused.
    let is_there = instances::table
        .find(instance)
        .select(instances::id)
        .for_update()
        .first::<Uuid>(&mut conn)
        .await
        .optional()?;
    if is_there.is_none() {
        return Ok(None);
    }
    let owned: Vec<(Uuid, i32)> = runs::table
        .filter(runs::owner.eq(instance))
        .order(runs::id)
        .select((runs::id, runs::recoveries))
        .for_no_key_update()
        .load(&mut conn)
        .await?;
    let (requeued, failed): (Vec<_>, Vec<_>) =
        owned.into_iter().partition(|(_, recoveries)| *recoveries < max_recoveries);
    let requeued: Vec<Uuid> = requeued.into_iter().map(|(id, _)| id).collect();
    let failed: Vec<Uuid> = failed.into_iter().map(|(id, _)| id).collect();
    if !failed.is_empty() {
        take_over(conn, &failed, TakeOver::Fail(poisonous(max_recoveries))).await?;
    }
    if !requeued.is_empty() {
        take_over(conn, &requeued, TakeOver::Requeue).await?;
    }
    diesel::delete(instances::table.find(instance)).execute(&mut conn).await?;
    Ok(Some(Recovery {
        instance: instance.into(),
        requeued: requeued.into_iter().map(Into::into).collect(),
        failed: failed.into_iter().map(Into::into).collect(),
    }))
}

/// Takes these runs from their owner: queued again, or failed with `error`. The epoch rises and `taken_over` takes a
/// number, so that an owner that is alive after all can append nothing more.
async fn take_over(mut conn: &AsyncPgConnection, ids: &[Uuid], end: TakeOver) -> QueryResult<()> {
    let (state, error) = match end {
        TakeOver::Requeue => (RunState::Queued, None),
        TakeOver::Fail(error) => (RunState::Failed, Some(error)),
    };
    diesel::sql_query(
        "WITH taken AS (
             UPDATE runs SET state = $2, owner = NULL, epoch = epoch + 1, recoveries = recoveries + 1, error = $3,
                 -- Its place in the queue is by its age.
                 available_at = CASE WHEN $2 = 'queued' THEN created_at END,
                 ended_at = CASE WHEN $2 = 'failed' THEN now() END
             WHERE id = ANY ($1) RETURNING id, epoch, project_id, parent_run_id, state
         ), woken AS (
             UPDATE runs SET available_at = clock_timestamp() FROM taken
             WHERE runs.id = taken.parent_run_id AND taken.state = 'failed' AND runs.state IN ('running', 'waiting')
                 AND runs.id <> ALL ($1)
         ), abandoned AS (
             UPDATE runs SET cancel_requested_at = coalesce(cancel_requested_at, now()), available_at = clock_timestamp()
             WHERE parent_run_id IN (SELECT id FROM taken WHERE state = 'failed')
                 AND runs.state IN ('queued', 'running', 'waiting') AND runs.id <> ALL ($1)
         ), announced AS (
             INSERT INTO events (project_id, type, subject)
             SELECT project_id, 'run.failed', id FROM taken WHERE state = 'failed'
         )
         INSERT INTO run_journal (run_id, seq, kind, epoch)
         SELECT id, coalesce((SELECT max(seq) FROM run_journal WHERE run_id = taken.id), 0) + 1, 'taken_over', epoch
         FROM taken ORDER BY id",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<Text, _>(state.as_str())
    .bind::<Nullable<Json>, _>(error)
    .execute(&mut conn)
    .await?;
    Ok(())
}

/// Queues again what `owner` holds without driving it. Answers with how many runs that were.
pub(crate) async fn release_undriven(
    mut conn: &AsyncPgConnection,
    owner: InstanceId,
    driven: &[RunId],
) -> Result<usize, DatabaseError> {
    let driven = driven.iter().map(|run| run.as_uuid());
    diesel::update(runs::table)
        .filter(runs::owner.eq(owner.as_uuid()).and(runs::id.ne_all(driven.collect::<Vec<Uuid>>())))
        .set((
            runs::state.eq(RunState::Queued.as_str()),
            runs::owner.eq(None::<Uuid>),
            runs::available_at.eq(runs::created_at.nullable()),
        ))
        .execute(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("releasing runs that nobody drives", error))
}

enum TakeOver {
    Requeue,
    Fail(serde_json::Value),
}

fn poisonous(max_recoveries: i32) -> serde_json::Value {
    serde_json::json!({
        "kind": "poisonous",
        "message": format!(
            "the instances that drove this run died more than {max_recoveries} times: look for what of it exhausts \
             memory or crashes the server"
        ),
    })
}
