//! Claims of runs that wait for a permit: the heads of the lines whose keys have permits, one key after the other.
//!
//! The statement has the keys of its lines locked, and waits for nothing: a key or a run that another one has is left to
//! it. So it cannot block the end of a run, which has the run and waits for the key.

use std::sync::LazyLock;

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::FutureExt;
use gathering_dag_engine::ClaimedRun;
use gathering_domain::{InstanceId, WaitingFor};
use uuid::Uuid;

use super::{ClaimedRow, ClaimedSql, claim_sql, push_claimant, repeat_on_fresh_entries};
use crate::db::error::DatabaseError;

/// How many starts a key with a rate may catch up: those of this time. A claim comes a little after its time, and the rate
/// must not sink by that.
const CATCH_UP: &str = "interval '100 milliseconds'";

/// The keys that are served, those before others that have waited longest since they were; how many permits each has now.
static LINE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "line AS MATERIALIZED (
            SELECT k.id, k.next_at, least(k.permits - k.held, CASE WHEN k.per_second IS NULL THEN k.permits
                ELSE 1 + floor(extract(epoch FROM now() - greatest(k.next_at, now() - {CATCH_UP})) * k.per_second)
                END)::integer AS n_free
            FROM args CROSS JOIN concurrency_keys AS k
            WHERE k.is_ready AND NOT k.of_nodes AND k.next_at <= now()
            ORDER BY k.next_at LIMIT "
    )
});

/// The heads of the lines. Runs and keys are found by arrays of ids: for a join PostgreSQL may read all of them. A request whose run does not wait for it any more only leaves the line.
static HEADS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "), candidates AS MATERIALIZED (
            SELECT run_id AS id FROM active_runs
            WHERE run_id = ANY (ARRAY(SELECT run_id FROM head)) AND (waiting_for = '{concurrency}') IS TRUE
            ORDER BY run_id FOR NO KEY UPDATE SKIP LOCKED
        ), taken AS (
            DELETE FROM permit_requests WHERE run_id = ANY (ARRAY(
                SELECT id FROM candidates UNION ALL
                SELECT run_id FROM head
                WHERE (SELECT waiting_for FROM active_runs AS active WHERE active.run_id = head.run_id) IS DISTINCT FROM '{concurrency}'))
            RETURNING run_id, key_id
        ), served AS (
            UPDATE concurrency_keys AS k SET held = k.held + n.n_claimed, waiting = k.waiting - n.n_taken,
                next_at = CASE WHEN k.per_second IS NULL OR n.n_claimed = 0 THEN clock_timestamp()
                    ELSE greatest(k.next_at, now() - {CATCH_UP}) + n.n_claimed / k.per_second * interval '1 second' END
            FROM (
                SELECT line.id, count(taken.run_id)::integer AS n_taken, count(candidates.id)::integer AS n_claimed
                FROM line LEFT JOIN taken ON taken.key_id = line.id LEFT JOIN candidates ON candidates.id = taken.run_id
                GROUP BY line.id
            ) AS n
            WHERE k.id = ANY (ARRAY(SELECT id FROM line)) AND k.id = n.id
        ), {claim}",
        concurrency = WaitingFor::Concurrency.as_str(),
        claim = claim_sql(", holds_permit = true"),
    )
});

/// Claims the heads of lines. Each line gives its share, so that none takes a whole claim while others wait.
#[derive(QueryId)]
struct ClaimPermitted {
    owner: Uuid,
    limit: i64,
}

impl QueryFragment<Pg> for ClaimPermitted {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        push_claimant(&mut out, &self.owner)?;
        out.push_sql(&LINE);
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(
            " FOR UPDATE OF k SKIP LOCKED
            ), share AS (SELECT greatest(1, ",
        );
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(
            " / greatest(1, count(*))) AS n FROM line), head AS MATERIALIZED (
                SELECT request.run_id, line.id AS key_id FROM line CROSS JOIN share CROSS JOIN LATERAL (
                    SELECT run_id FROM permit_requests WHERE key_id = line.id AND in_line
                    ORDER BY priority DESC, available_at, run_id LIMIT least(line.n_free, share.n)
                ) AS request ORDER BY line.next_at LIMIT ",
        );
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(&HEADS);
        Ok(())
    }
}

impl Query for ClaimPermitted {
    type SqlType = ClaimedSql;
}

/// Claims at most `limit` runs whose keys have permits for them.
pub(crate) async fn claim_permitted(
    conn: &AsyncPgConnection,
    owner: InstanceId,
    limit: usize,
) -> Result<Vec<ClaimedRun>, DatabaseError> {
    let claimed = repeat_on_fresh_entries(owner, || {
        let mut conn = conn;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let claim = ClaimPermitted { owner: owner.as_uuid(), limit };
        async move { claim.load::<ClaimedRow>(&mut conn).await }.boxed()
    });
    claimed.await
}
