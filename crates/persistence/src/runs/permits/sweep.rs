//! Keys that no run uses are deleted after a while: most are the name of a customer or a host, and there is no end of them.
//! So are permits of nodes whose runs are gone: an owner that is fenced off may ask while the end of its run is written.

use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

/// Deletes at most `limit` keys without a line: those that no run has used for an hour, and those of deleted pipelines, whose
/// runs have none to leave their permits to. Answers with how many.
pub(crate) async fn delete_unused(mut conn: &AsyncPgConnection, limit: i64) -> QueryResult<usize> {
    let sql = "DELETE FROM concurrency_keys WHERE id IN (
        SELECT id FROM concurrency_keys
        WHERE waiting = 0 AND (held = 0 AND next_at < now() - interval '1 hour'
            OR pipeline_id IS NOT NULL AND NOT EXISTS (SELECT FROM pipelines WHERE pipelines.id = pipeline_id))
        ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)";
    diesel::sql_query(sql).bind::<BigInt, _>(limit).execute(&mut conn).await
}

/// The rows that were read a minute ago or longer, as a run may be on its way to `active_runs`. The keys come first, as in every
/// statement that gives permits or takes them back.
const DELETE_LEFT_BEHIND: &str = "
    WITH left_behind AS MATERIALIZED (
        SELECT run_id, node_id, key_id FROM node_permits AS p
        WHERE asked_at < now() - interval '1 minute'
            AND NOT EXISTS (SELECT FROM active_runs AS active WHERE active.run_id = p.run_id)
        LIMIT $1
    ), changed_key AS MATERIALIZED (
        SELECT id FROM concurrency_keys WHERE id = ANY (ARRAY(SELECT key_id FROM left_behind)) ORDER BY id FOR UPDATE
    ), gone AS (
        DELETE FROM node_permits AS p USING left_behind AS l
        WHERE p.run_id = l.run_id AND p.node_id = l.node_id AND (SELECT count(*) FROM changed_key) >= 0
        RETURNING p.key_id, p.is_held
    ), freed AS (
        UPDATE concurrency_keys AS k SET held = k.held - n.held, waiting = k.waiting - n.waiting
        FROM (SELECT key_id, count(*) FILTER (WHERE is_held)::integer AS held,
                  count(*) FILTER (WHERE NOT is_held)::integer AS waiting FROM gone GROUP BY key_id) AS n
        WHERE k.id = n.key_id
    )
    SELECT count(*) AS n_rows FROM gone";

#[derive(QueryableByName)]
struct Deleted {
    #[diesel(sql_type = BigInt)]
    n_rows: i64,
}

/// Deletes at most `limit` permits of nodes whose runs are gone, and corrects their keys. Answers with how many.
pub(crate) async fn delete_left_behind(mut conn: &AsyncPgConnection, limit: i64) -> QueryResult<usize> {
    let deleted: Deleted =
        diesel::sql_query(DELETE_LEFT_BEHIND).bind::<BigInt, _>(limit).get_result(&mut conn).await?;
    Ok(usize::try_from(deleted.n_rows).unwrap_or_default())
}
