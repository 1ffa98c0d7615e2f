//! Permits of nodes: how many attempts of a node execute at once.
//!
//! A node asks for its permit itself (`ask_node_permit`, a function of the database). Where there is none it stands in the
//! line of its key; claims serve the lines, as they do those of runs, by waking the runs. A node that does not wait takes a
//! permit that is free (`take_node_permit`), or none.

use std::sync::LazyLock;

use async_trait::async_trait;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::{NodePermit, NodePermits, PermitScope, StoreError};
use gathering_domain::Digest;
use uuid::Uuid;

use crate::db::error::DatabaseError;
use crate::runs::states::WAKEABLE;
use crate::runs::store::PgRunStore;

/// The id of the key of a node: the first half of the digest of all that tells it from others.
fn key_id(permit: &NodePermit) -> Uuid {
    let mut text = match permit.scope {
        PermitScope::Pipeline(pipeline) => pipeline.as_uuid().as_bytes().to_vec(),
        PermitScope::Graph(graph) => graph.as_bytes().to_vec(),
    };
    // Neither ids nor keys have this character.
    text.push(0);
    text.extend_from_slice(permit.node.as_str().as_bytes());
    text.push(0);
    text.extend_from_slice(permit.key.as_bytes());
    super::request::half_of(Digest::of(&text))
}

#[derive(QueryableByName)]
struct Asked {
    #[diesel(sql_type = Nullable<Bool>)]
    has_it: Option<bool>,
}

#[async_trait]
impl NodePermits for PgRunStore {
    async fn ask(&self, permit: &NodePermit) -> Result<bool, StoreError> {
        let pipeline = match permit.scope {
            PermitScope::Pipeline(pipeline) => Some(pipeline.as_uuid()),
            PermitScope::Graph(_) => None,
        };
        let question = if permit.waits {
            diesel::sql_query("SELECT ask_node_permit($1, $2, $3, $4, $5, $6, $7, $8) AS has_it")
        } else {
            diesel::sql_query("SELECT take_node_permit($1, $2, $3, $4, $5, $6, $7, $8) AS has_it")
        };
        let conn = self.pool.get().await?;
        let asked: QueryResult<Asked> = question
            .bind::<SqlUuid, _>(permit.claim.run.as_uuid())
            .bind::<SqlUuid, _>(permit.claim.owner.as_uuid())
            .bind::<BigInt, _>(permit.claim.epoch)
            .bind::<Text, _>(permit.node.as_str())
            .bind::<SqlUuid, _>(key_id(permit))
            .bind::<Nullable<SqlUuid>, _>(pipeline)
            .bind::<Text, _>(&permit.key)
            .bind::<Integer, _>(i32::try_from(permit.limit).unwrap_or(i32::MAX))
            .get_result(&mut &*conn)
            .await;
        let asked = asked.map_err(|error| DatabaseError::query("asking for the permit of a node", error))?;
        let has_it = asked.has_it.ok_or(StoreError::ClaimLost { run: permit.claim.run })?;
        if !has_it && permit.waits {
            self.polls.lines.nodes.note();
        }
        Ok(has_it)
    }
}

/// Gives the heads of the lines their permits, and wakes their runs. The keys are locked, then the runs; a key or a run that
/// another transaction has is left out. A permit that nobody can take any more, as its run is gone, leaves the line.
static SERVE: LazyLock<String> = LazyLock::new(|| {
    format!(
        ") , head AS MATERIALIZED (
            SELECT p.run_id, p.node_id, p.key_id FROM line CROSS JOIN LATERAL (
                SELECT run_id, node_id, key_id FROM node_permits WHERE key_id = line.id AND NOT is_held
                ORDER BY asked_at, run_id, node_id LIMIT line.n_free
            ) AS p
        ), target AS MATERIALIZED (
            SELECT run_id FROM active_runs WHERE run_id = ANY (ARRAY(SELECT run_id FROM head))
            ORDER BY run_id FOR NO KEY UPDATE SKIP LOCKED
        ), given AS (
            UPDATE node_permits AS p SET is_held = true FROM head
            WHERE p.run_id = ANY (ARRAY(SELECT run_id FROM head)) AND p.run_id = head.run_id AND p.node_id = head.node_id
                AND head.run_id IN (SELECT run_id FROM target)
                -- Only the row itself tells whether another claim gave it since this statement began.
                AND NOT p.is_held
            RETURNING p.key_id, p.run_id
        ), gone AS (
            DELETE FROM node_permits AS p USING head
            WHERE p.run_id = ANY (ARRAY(SELECT run_id FROM head)) AND p.run_id = head.run_id AND p.node_id = head.node_id
                AND NOT p.is_held AND NOT EXISTS (SELECT FROM active_runs AS active WHERE active.run_id = head.run_id)
            RETURNING p.key_id
        ), woken AS (
            UPDATE active_runs SET available_at = clock_timestamp()
            WHERE run_id = ANY (ARRAY(SELECT run_id FROM given)) AND state IN {wakeable}
        ), served AS (
            UPDATE concurrency_keys AS k SET held = k.held + n.n_given, waiting = k.waiting - n.n_given - n.n_gone,
                next_at = clock_timestamp()
            FROM (
                SELECT line.id, (SELECT count(*) FROM given WHERE given.key_id = line.id)::integer AS n_given,
                    (SELECT count(*) FROM gone WHERE gone.key_id = line.id)::integer AS n_gone
                FROM line
            ) AS n
            WHERE k.id = ANY (ARRAY(SELECT id FROM line)) AND k.id = n.id
        )
        SELECT count(*) FROM given",
        wakeable = *WAKEABLE,
    )
});

#[derive(QueryId)]
struct Serve {
    limit: i64,
}

impl QueryFragment<Pg> for Serve {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "WITH line AS MATERIALIZED (
                SELECT k.id, least(k.permits - k.held, k.waiting) AS n_free FROM concurrency_keys AS k
                WHERE k.is_ready AND k.of_nodes AND k.next_at <= now() ORDER BY k.next_at LIMIT ",
        );
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(" FOR UPDATE OF k SKIP LOCKED");
        out.push_sql(&SERVE);
        Ok(())
    }
}

impl Query for Serve {
    type SqlType = BigInt;
}

/// Serves the lines of at most `limit` keys of nodes. Answers how many permits were given.
pub(crate) async fn serve(mut conn: &AsyncPgConnection, limit: i64) -> Result<usize, DatabaseError> {
    let given: i64 = Serve { limit }
        .get_result(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("giving permits to nodes", error))?;
    Ok(usize::try_from(given).unwrap_or_default())
}
