//! Runs whose owner is dead, or owns them without driving them: requeued or failed.

use std::sync::LazyLock;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Json, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_domain::{FailureKind, InstanceId, RunId, RunState};
use uuid::Uuid;

use crate::db::schema::{active_runs, instances, runs};
use crate::runs::dead_instances::Recovery;
use crate::runs::journal::insert::take_over_entries;
use crate::runs::transitions::end::{END, FREE_PERMITS, GONE, NO_NODES, cancel_children, wake_parents};
use crate::runs::transitions::wake_ups::WakeUps;

diesel::define_sql_function! {
    /// Takes the lock until the end of the transaction, if it is free.
    fn pg_try_advisory_xact_lock(key: BigInt) -> Bool;
}

/// Recovers the runs of an instance and deletes its row, in the caller's transaction. `None` if the instance is alive, or
/// another one has recovered it.
pub(crate) async fn recover_instance(
    mut conn: &AsyncPgConnection,
    instance: Uuid,
    lock_key: i64,
    max_recoveries: i32,
) -> QueryResult<Option<(Recovery, WakeUps)>> {
    if !diesel::select(pg_try_advisory_xact_lock(lock_key)).get_result::<bool>(&mut conn).await? {
        return Ok(None);
    }
    // Locked before its runs: a claim that the dead instance still has under way waits here and is then refused.
    let row = instances::table.find(instance).select(instances::id).for_update();
    if row.first::<Uuid>(&mut conn).await.optional()?.is_none() {
        return Ok(None);
    }
    let owned: Vec<(Uuid, i32)> = active_runs::table
        .filter(active_runs::owner.eq(instance))
        .order(active_runs::run_id)
        .select((active_runs::run_id, active_runs::recoveries))
        .for_no_key_update()
        .load(&mut conn)
        .await?;
    let (requeued, failed): (Vec<_>, Vec<_>) =
        owned.into_iter().partition(|(_, recoveries)| *recoveries < max_recoveries);
    let requeued: Vec<Uuid> = requeued.into_iter().map(|(id, _)| id).collect();
    let failed: Vec<Uuid> = failed.into_iter().map(|(id, _)| id).collect();
    if !failed.is_empty() {
        fail(conn, &failed, poisonous(max_recoveries)).await?;
    }
    if !requeued.is_empty() {
        requeue(conn, &requeued).await?;
    }
    diesel::delete(instances::table.find(instance)).execute(&mut conn).await?;
    let recovery = Recovery {
        instance: instance.into(),
        requeued: requeued.into_iter().map(Into::into).collect(),
        failed: failed.into_iter().map(Into::into).collect(),
    };
    let wake_ups = owed(&recovery);
    Ok(Some((recovery, wake_ups)))
}

fn owed(recovery: &Recovery) -> WakeUps {
    let mut wake_ups = WakeUps::default();
    // Those that claim are woken even if the instance owned nothing: it may have known alone when a run comes due.
    wake_ups.add_claimable();
    for run in &recovery.requeued {
        wake_ups.add_entries(*run);
    }
    for run in &recovery.failed {
        wake_ups.add_end(*run, true);
        wake_ups.add_schedule();
    }
    wake_ups
}

/// Queues the runs `$1` again. The epoch rises and the entry `taken_over` takes the next number, so that an owner that is
/// alive after all can append nothing more. The place in the queue is by age.
static REQUEUE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH taken AS (
            UPDATE active_runs SET state = 'queued', owner = NULL, epoch = epoch + 1, recoveries = recoveries + 1,
                available_at = (SELECT created_at FROM runs WHERE runs.id = run_id)
            WHERE run_id = ANY ($1) AND state = 'running'
            RETURNING run_id AS id, epoch, owner
        )
        {entries}",
        entries = take_over_entries("taken", "true"),
    )
});

async fn requeue(mut conn: &AsyncPgConnection, ids: &[Uuid]) -> QueryResult<()> {
    let requeued = diesel::sql_query(REQUEUE.as_str()).bind::<Array<SqlUuid>, _>(ids);
    requeued.execute(&mut conn).await.map(|_n_entries| ())
}

/// Fails the runs `$1` with the error `$2`; their epoch rises as well.
static FAIL: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH gone AS (
            DELETE FROM active_runs AS active WHERE run_id = ANY ($1) AND state = 'running'
            RETURNING {GONE}, active.epoch + 1 AS epoch, active.recoveries + 1 AS recoveries, active.cancel_requested_at,
                '{failed}' AS state, NULL::json AS output, $2 AS error
        ), taken AS (SELECT id, epoch, NULL::uuid AS owner FROM gone),
        {end}, {parents}, {NO_NODES}, {FREE_PERMITS}, {children}
        {entries}",
        failed = RunState::Failed,
        end = *END,
        parents = wake_parents("SELECT id FROM gone"),
        children = cancel_children("SELECT id FROM gone"),
        entries = take_over_entries("taken", "true"),
    )
});

async fn fail(mut conn: &AsyncPgConnection, ids: &[Uuid], error: serde_json::Value) -> QueryResult<()> {
    diesel::sql_query(FAIL.as_str())
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Json, _>(error)
        .execute(&mut conn)
        .await
        .map(|_n_entries| ())
}

/// Requeues the runs that `owner` owns and does not drive. Answers with how many there were.
pub(crate) async fn release_undriven(
    mut conn: &AsyncPgConnection,
    owner: InstanceId,
    driven: &[RunId],
) -> QueryResult<usize> {
    let driven = driven.iter().map(|run| run.as_uuid());
    let created_at = runs::table.find(active_runs::run_id).select(runs::created_at).single_value();
    diesel::update(active_runs::table)
        .filter(active_runs::owner.eq(owner.as_uuid()))
        .filter(active_runs::run_id.ne_all(driven.collect::<Vec<Uuid>>()))
        .set((
            active_runs::state.eq(RunState::Queued.as_str()),
            active_runs::owner.eq(None::<Uuid>),
            active_runs::available_at.eq(created_at),
        ))
        .execute(&mut conn)
        .await
}

fn poisonous(max_recoveries: i32) -> serde_json::Value {
    serde_json::json!({
        "kind": FailureKind::Poisonous,
        "message": format!(
            "the instances that drove this run died more than {max_recoveries} times: find out what in it exhausts \
             memory or crashes the server"
        ),
    })
}
