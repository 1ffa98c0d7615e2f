//! Who waits for a budget, and is woken when that may pay.

use std::sync::LazyLock;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Nullable, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::runs::states::WAKEABLE;

/// `$1` are budgets: of those who wait for them, or for the project's budget of the same resource, at most `$4`, the first
/// come first, are woken that need at most `$2`; only those of the tree that began with `$3`, if it is not null. What a
/// run that has ended waited for is forgotten. A queued run looks when it is claimed. Runs are found one by one: a join would
/// read a whole table that the statistics take for empty.
static WAKE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
    WITH waited AS MATERIALIZED (
        SELECT waited.id FROM budgets AS given JOIN budgets AS waited
            ON waited.project_id = given.project_id AND waited.resource = given.resource
            AND waited.run_id IS NULL
        WHERE given.id = ANY ($1)
    ), forgotten AS (
        DELETE FROM budget_reservations AS r
        WHERE r.budget_id = ANY (ARRAY(SELECT id FROM waited)) AND NOT r.is_granted
            AND (SELECT ended_at IS NOT NULL FROM runs WHERE id = r.run_id)
    ), waiting AS MATERIALIZED (
        SELECT active.run_id AS id, active.state, active.available_at FROM active_runs AS active
        WHERE active.run_id = ANY (ARRAY(
            SELECT r.run_id FROM budget_reservations AS r
                CROSS JOIN LATERAL (SELECT * FROM active_runs WHERE run_id = r.run_id LIMIT 1) AS waiter
                LEFT JOIN LATERAL (SELECT * FROM child_runs WHERE run_id = r.run_id LIMIT 1) AS place ON true
            WHERE r.budget_id = ANY (ARRAY(SELECT id FROM waited)) AND NOT r.is_granted AND r.amount <= $2
                AND ($3 IS NULL OR coalesce(place.root_run_id, r.run_id) = $3)
                AND (waiter.state IN ('queued', 'running') OR waiter.waiting_for = 'budget_exceeded') IS TRUE
            ORDER BY r.created_at LIMIT $4))
        ORDER BY active.run_id FOR NO KEY UPDATE
    ), woken AS (
        UPDATE active_runs SET available_at = clock_timestamp() WHERE run_id = ANY (ARRAY(
            SELECT id FROM waiting
            WHERE state IN {wakeable} AND (available_at IS NULL OR available_at > now())))
    )
    SELECT count(*) AS n_woken FROM waiting",
        wakeable = *WAKEABLE,
    )
});

#[derive(QueryableByName)]
struct Woken {
    #[diesel(sql_type = BigInt)]
    n_woken: i64,
}

/// Marks those who wait, so that they are claimed or their drivers told once it is committed; answers how many there are.
pub(super) async fn wake(
    mut conn: &AsyncPgConnection,
    ids: &[Uuid],
    root: Option<Uuid>,
    within: i64,
    limit: i64,
) -> QueryResult<i64> {
    let woken: Woken = diesel::sql_query(WAKE.as_str())
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<BigInt, _>(within)
        .bind::<Nullable<SqlUuid>, _>(root)
        .bind::<BigInt, _>(limit)
        .get_result(&mut conn)
        .await?;
    Ok(woken.n_woken)
}
