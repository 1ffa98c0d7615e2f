//! Keys that no run uses are deleted after a while: most are the name of a customer or a host, and there is no end of them.

use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

/// Deletes at most `limit` keys without a line: those that no run has used for an hour, and those of deleted pipelines, whose
/// runs have none to leave their permits to. Answers with how many.
pub(crate) async fn delete_unused(mut conn: &AsyncPgConnection, limit: i64) -> QueryResult<usize> {
    let sql = "DELETE FROM concurrency_keys WHERE id IN (
        SELECT id FROM concurrency_keys
        WHERE waiting = 0 AND (held = 0 AND next_at < now() - interval '1 hour'
            OR NOT EXISTS (SELECT FROM pipelines WHERE pipelines.id = pipeline_id))
        ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)";
    diesel::sql_query(sql).bind::<BigInt, _>(limit).execute(&mut conn).await
}
