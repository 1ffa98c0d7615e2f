//! Runs whose owner is dead, or owns them without driving them: requeued or failed.

use std::sync::LazyLock;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Json, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_domain::{FailureKind, InstanceId, RunId, RunState};
use uuid::Uuid;

use crate::db::schema::{instances, runs};
use crate::runs::dead_instances::Recovery;
use crate::runs::journal::insert::take_over_entries;
use crate::runs::states::TERMINAL;
use crate::runs::transitions::end::{FACTS, announce_and_wake_parents, cancel_children, free_permits};
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
        take_over(conn, &failed, RunState::Failed, Some(poisonous(max_recoveries))).await?;
    }
    if !requeued.is_empty() {
        take_over(conn, &requeued, RunState::Queued, None).await?;
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

/// Takes the runs `$1` from their owner, to the state `$2`, with the error `$3`. The epoch rises and the entry
/// `taken_over` takes the next number, so that an owner that is alive after all can append nothing more.
static TAKE_OVER: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH taken AS (
            UPDATE runs SET state = $2, owner = NULL, epoch = epoch + 1, recoveries = recoveries + 1, error = $3,
                -- Its place in the queue is by its age.
                available_at = CASE WHEN $2 = 'queued' THEN created_at END,
                ended_at = CASE WHEN $2 IN {terminal} THEN now() END
            WHERE id = ANY ($1) AND state = 'running'
            RETURNING id, epoch, owner, project_id, parent_run_id, state, permit_key, holds_permit, {FACTS}
        ), {ends}, {freed}, {children}
        {entries}",
        terminal = *TERMINAL,
        ends = announce_and_wake_parents("taken"),
        freed = free_permits("taken"),
        children = cancel_children("taken"),
        entries = take_over_entries("taken", "true"),
    )
});

async fn take_over(
    mut conn: &AsyncPgConnection,
    ids: &[Uuid],
    state: RunState,
    error: Option<serde_json::Value>,
) -> QueryResult<()> {
    diesel::sql_query(TAKE_OVER.as_str())
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Text, _>(state.as_str())
        .bind::<Nullable<Json>, _>(error)
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
    diesel::update(runs::table)
        .filter(runs::owner.eq(owner.as_uuid()).and(runs::id.ne_all(driven.collect::<Vec<Uuid>>())))
        .set((
            runs::state.eq(RunState::Queued.as_str()),
            runs::owner.eq(None::<Uuid>),
            runs::available_at.eq(runs::created_at.nullable()),
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
