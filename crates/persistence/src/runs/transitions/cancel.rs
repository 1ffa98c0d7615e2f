//! Requests to cancel: a run that was never claimed ends at once, any other run is signalled.

use std::sync::LazyLock;

use diesel::prelude::*;
use diesel::result::Error as QueryError;
use diesel::sql_types::{Array, Bool, Integer, Json, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::{Parent, RunError};
use gathering_domain::{FailureKind, RunId, RunState, WaitingFor};
use uuid::Uuid;

use crate::runs::transitions::end::{END, FREE_PERMITS, GONE, NO_NODES, wake_parents};
use crate::runs::transitions::wake_ups::WakeUps;

/// Cancels the run `$1`.
static CANCEL_RUN: LazyLock<String> =
    LazyLock::new(|| cancel_sql("active.run_id = $1", "NULL", "NULL", true));

/// Cancels the runs `$1`.
static CANCEL_RUNS: LazyLock<String> =
    LazyLock::new(|| cancel_sql("active.run_id = ANY ($1)", "NULL", "NULL", true));

/// Cancels the runs `$1` because of `$2`, with the error `$3` if they never started; with `$4` only those that still wait
/// for a permit.
static CANCEL_BECAUSE: LazyLock<String> = LazyLock::new(|| {
    let which = format!(
        "active.run_id = ANY ($1) AND (NOT $4 OR active.waiting_for = '{concurrency}')",
        concurrency = WaitingFor::Concurrency.as_str(),
    );
    cancel_sql(&which, "$2", "$3", true)
});

/// Cancels the children of the run `$1` that its node `$2` started in round `$3`. The parent is not woken: it asks for
/// this itself.
static CANCEL_CHILDREN: LazyLock<String> = LazyLock::new(|| {
    let which = "active.parent_run_id = $1 AND EXISTS (
        SELECT FROM child_runs AS place
        WHERE place.run_id = active.run_id AND place.node_id = $2 AND place.round = $3)";
    cancel_sql(which, "$4", "NULL", false)
});

/// A run that was never claimed ends; the row that was locked tells which. It has no children, so none are told of its end.
fn cancel_sql(which: &str, reason: &str, error: &str, wakes_parents: bool) -> String {
    let mut parents = String::from("parent AS (SELECT NULL::uuid AS id WHERE false)");
    if wakes_parents {
        parents = wake_parents("SELECT id FROM target");
    }
    format!(
        "WITH target AS MATERIALIZED (
            SELECT active.run_id AS id, active.epoch FROM active_runs AS active
            WHERE {which} ORDER BY active.run_id FOR NO KEY UPDATE
        ), requested AS (
            UPDATE active_runs AS active SET cancel_requested_at = coalesce(cancel_requested_at, now()),
                cancel_reason = CASE WHEN cancel_requested_at IS NULL THEN {reason} ELSE cancel_reason END,
                available_at = clock_timestamp()
            WHERE active.run_id = ANY (ARRAY(SELECT id FROM target WHERE epoch > 0))
            RETURNING active.run_id AS id
        ), gone AS (
            DELETE FROM active_runs AS active WHERE active.run_id = ANY (ARRAY(SELECT id FROM target WHERE epoch = 0))
            RETURNING {GONE}, active.epoch, active.recoveries,
                coalesce(active.cancel_requested_at, now()) AS cancel_requested_at,
                '{cancelled}' AS state, NULL::json AS output, {error}::json AS error
        ), {end}, {parents}, {NO_NODES}, {FREE_PERMITS}
        SELECT id, false AS is_ended, false AS has_parent, false AS is_scheduled FROM requested
        UNION ALL SELECT id, true, {wakes_parents} AND parent_run_id IS NOT NULL, schedule_id IS NOT NULL FROM ended",
        cancelled = RunState::Cancelled,
        end = *END,
    )
}

#[derive(QueryableByName)]
struct Cancelled {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Bool)]
    is_ended: bool,
    #[diesel(sql_type = Bool)]
    has_parent: bool,
    #[diesel(sql_type = Bool)]
    is_scheduled: bool,
}

/// Cancels a run that has not ended. `None` if there is no such run.
pub(crate) async fn cancel_run(mut conn: &AsyncPgConnection, run: RunId) -> QueryResult<Option<WakeUps>> {
    let cancelled: Vec<Cancelled> =
        diesel::sql_query(CANCEL_RUN.as_str()).bind::<SqlUuid, _>(run.as_uuid()).load(&mut conn).await?;
    Ok((!cancelled.is_empty()).then(|| wake_ups(cancelled)))
}

/// Cancels those of these runs that have not ended.
pub(crate) async fn cancel_runs(mut conn: &AsyncPgConnection, ids: &[Uuid]) -> QueryResult<WakeUps> {
    let cancelled =
        diesel::sql_query(CANCEL_RUNS.as_str()).bind::<Array<SqlUuid>, _>(ids).load(&mut conn).await?;
    Ok(wake_ups(cancelled))
}

/// Which of some runs are cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that have not ended.
    Active,
    /// Those that wait for a permit.
    Unpermitted,
}

/// Cancels runs for this reason.
pub(crate) async fn cancel_because(
    mut conn: &AsyncPgConnection,
    ids: &[Uuid],
    which: Which,
    reason: &str,
) -> QueryResult<WakeUps> {
    let error = RunError::of(FailureKind::Cancelled, format!("cancelled because {reason}"));
    let error = serde_json::to_value(error).map_err(|error| QueryError::SerializationError(error.into()))?;
    let cancelled = diesel::sql_query(CANCEL_BECAUSE.as_str())
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Text, _>(reason)
        .bind::<Json, _>(error)
        .bind::<Bool, _>(which == Which::Unpermitted)
        .load(&mut conn)
        .await?;
    Ok(wake_ups(cancelled))
}

/// Cancels the children of one round of a node that have not ended, for this reason.
pub(crate) async fn cancel_children(
    mut conn: &AsyncPgConnection,
    parent: &Parent,
    round: i32,
) -> QueryResult<WakeUps> {
    let cancelled = diesel::sql_query(CANCEL_CHILDREN.as_str())
        .bind::<SqlUuid, _>(parent.run.as_uuid())
        .bind::<Text, _>(parent.node.as_str())
        .bind::<Integer, _>(round)
        .bind::<Text, _>(parent.cancel_reason())
        .load(&mut conn)
        .await?;
    Ok(wake_ups(cancelled))
}

fn wake_ups(cancelled: Vec<Cancelled>) -> WakeUps {
    let mut wake_ups = WakeUps::default();
    for Cancelled { id, is_ended, has_parent, is_scheduled } in cancelled {
        if is_ended {
            wake_ups.add_end(id.into(), has_parent);
            if is_scheduled {
                wake_ups.add_schedule();
            }
        } else {
            wake_ups.add_signal();
        }
    }
    wake_ups
}
