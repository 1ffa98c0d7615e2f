//! Claims that are limited to the tree of one run.
//!
//! They look through the queue for the runs of the tree, which the planner is kept from seeing otherwise by `IS TRUE`: of
//! a large tree most runs have ended, or wait for their turn.

use std::time::Duration;

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Double, Nullable, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::FutureExt;
use gathering_dag_engine::ClaimedRun;
use gathering_domain::{InstanceId, RunId};
use uuid::Uuid;

use super::{CLAIM, ClaimedRow, ClaimedSql, push_claimant, repeat_on_fresh_entries};
use crate::db::error::DatabaseError;
use crate::runs::states::CLAIMABLE;

/// The condition that a run is an awaited descendant of the root.
fn push_below<'b>(out: &mut AstPass<'_, 'b, Pg>, root: &'b Uuid) -> QueryResult<()> {
    out.push_sql(
        "EXISTS (SELECT FROM child_runs WHERE child_runs.run_id = active.run_id AND (root_run_id = ",
    );
    out.push_bind_param::<SqlUuid, _>(root)?;
    out.push_sql(") IS TRUE)");
    Ok(())
}

/// Claims what is available in the tree. The root is while it is queued, whatever its time.
#[derive(QueryId)]
struct ClaimTree {
    owner: Uuid,
    root: Uuid,
    limit: i64,
}

impl QueryFragment<Pg> for ClaimTree {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        push_claimant(&mut out, &self.owner)?;
        out.push_sql("root AS (SELECT run_id AS id FROM active_runs WHERE run_id = ");
        out.push_bind_param::<SqlUuid, _>(&self.root)?;
        out.push_sql(
            " AND (state = 'queued' OR state = 'waiting' AND available_at <= now())
                FOR NO KEY UPDATE SKIP LOCKED
            ), below AS (SELECT run_id AS id FROM active_runs AS active WHERE state IN ",
        );
        out.push_sql(&CLAIMABLE);
        out.push_sql(" AND available_at <= now() AND ");
        push_below(&mut out, &self.root)?;
        out.push_sql(" ORDER BY available_at, run_id LIMIT ");
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(
            " FOR NO KEY UPDATE SKIP LOCKED
            ), candidates AS (
                SELECT id FROM (SELECT id FROM root UNION ALL SELECT id FROM below) AS tree LIMIT ",
        );
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql("), ");
        out.push_sql(&CLAIM);
        Ok(())
    }
}

impl Query for ClaimTree {
    type SqlType = ClaimedSql;
}

/// Claims what has only its end before it in the tree.
#[derive(QueryId)]
struct ClaimTreeEnding {
    owner: Uuid,
    root: Uuid,
    limit: i64,
}

impl QueryFragment<Pg> for ClaimTreeEnding {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        push_claimant(&mut out, &self.owner)?;
        out.push_sql("ending AS (SELECT run_id FROM active_runs WHERE state IN ");
        out.push_sql(&CLAIMABLE);
        out.push_sql(
            " AND cancel_requested_at IS NOT NULL UNION SELECT run_id FROM active_runs WHERE state IN ",
        );
        out.push_sql(&CLAIMABLE);
        out.push_sql(
            " AND deadline_at <= now()
            ), candidates AS (SELECT active.run_id AS id FROM ending JOIN active_runs AS active USING (run_id)
                WHERE (active.run_id = ",
        );
        out.push_bind_param::<SqlUuid, _>(&self.root)?;
        out.push_sql(" OR ");
        push_below(&mut out, &self.root)?;
        out.push_sql(") LIMIT ");
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(" FOR NO KEY UPDATE OF active SKIP LOCKED), ");
        out.push_sql(&CLAIM);
        Ok(())
    }
}

impl Query for ClaimTreeEnding {
    type SqlType = ClaimedSql;
}

/// When the next run of the tree becomes available.
#[derive(QueryId)]
struct NextAvailableInTree {
    root: Uuid,
}

impl QueryFragment<Pg> for NextAvailableInTree {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "SELECT extract(epoch FROM min(tree.available_at) - now())::double precision AS seconds FROM (
                SELECT CASE state WHEN 'queued' THEN now() WHEN 'waiting' THEN available_at END AS available_at
                FROM active_runs WHERE run_id = ",
        );
        out.push_bind_param::<SqlUuid, _>(&self.root)?;
        out.push_sql(" UNION ALL SELECT available_at FROM active_runs AS active WHERE state IN ");
        out.push_sql(&CLAIMABLE);
        out.push_sql(" AND available_at IS NOT NULL AND ");
        push_below(&mut out, &self.root)?;
        out.push_sql(") AS tree");
        Ok(())
    }
}

impl Query for NextAvailableInTree {
    type SqlType = Nullable<Double>;
}

/// Claims at most `limit` runs of the tree of `root` that are available, the root before its descendants.
pub(crate) async fn claim_tree(
    conn: &AsyncPgConnection,
    owner: InstanceId,
    root: RunId,
    limit: usize,
) -> Result<Vec<ClaimedRun>, DatabaseError> {
    let claimed = repeat_on_fresh_entries(owner, || {
        let mut conn = conn;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let claim = ClaimTree { owner: owner.as_uuid(), root: root.as_uuid(), limit };
        async move { claim.load::<ClaimedRow>(&mut conn).await }.boxed()
    });
    claimed.await
}

/// Claims at most `limit` runs of the tree of `root` that are to be cancelled or whose deadline has passed.
pub(crate) async fn claim_tree_ending(
    conn: &AsyncPgConnection,
    owner: InstanceId,
    root: RunId,
    limit: usize,
) -> Result<Vec<ClaimedRun>, DatabaseError> {
    let claimed = repeat_on_fresh_entries(owner, || {
        let mut conn = conn;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let claim = ClaimTreeEnding { owner: owner.as_uuid(), root: root.as_uuid(), limit };
        async move { claim.load::<ClaimedRow>(&mut conn).await }.boxed()
    });
    claimed.await
}

/// How long until a run of the tree of `root` can be claimed; zero when one can be now.
pub(crate) async fn next_available_in_tree(
    mut conn: &AsyncPgConnection,
    root: RunId,
) -> Result<Option<Duration>, DatabaseError> {
    let seconds: Option<f64> = NextAvailableInTree { root: root.as_uuid() }
        .get_result(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("reading when the next run of a tree is available", error))?;
    Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)))
}
