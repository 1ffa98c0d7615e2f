//! Runs that nodes of other runs start: their place below their parents, how they stand, and what they hand on.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{
    Array, BigInt, Bool, Bytea, Integer, Json, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::FutureExt;
use gathering_dag_engine::{
    ChildKind, ChildRuns, ChildSummary, ClaimedRun, MAX_DEPTH, NewChild, Parent, StartChildrenError,
    StoreError, Unsuccessful,
};
use gathering_domain::{Digest, InstanceId, RunId, RunState};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cluster::wake::Wake;
use crate::db::error::DatabaseError;
use crate::db::exactly_one::exactly_one;
use crate::db::schema::{child_runs, runs};
use crate::runs::accept::refused;
use crate::runs::claim::{CLAIM, ClaimedRow, ClaimedSql, push_claimant, repeat_on_fresh_entries};
use crate::runs::graphs;
use crate::runs::store::PgRunStore;

const MAX_DEPTH_SQL: i32 = MAX_DEPTH.cast_signed();

/// The children to start, column by column: one parameter per column however many there are.
#[derive(Debug)]
struct Start {
    parent: Uuid,
    node: String,
    round: i32,
    kind: &'static str,
    is_awaited: bool,
    trigger: Value,
    id: Vec<Uuid>,
    item: Vec<i32>,
    graph: Vec<Vec<u8>>,
    input: Vec<String>,
    pipeline_id: Vec<Option<Uuid>>,
    pipeline_version: Vec<Option<i32>>,
    deadline_at: Vec<Option<DateTime<Utc>>>,
}

impl Start {
    fn of(parent: &Parent, kind: ChildKind, children: &[NewChild]) -> Self {
        let each = || children.iter();
        Self {
            parent: parent.run.as_uuid(),
            node: parent.node.as_str().to_owned(),
            round: signed(parent.round),
            kind: if kind == ChildKind::Item { "item" } else { "pipeline" },
            is_awaited: kind != ChildKind::Detached,
            trigger: json!({ "type": "run", "run_id": parent.run, "node_id": parent.node }),
            id: each().map(|child| parent.child(child.item).as_uuid()).collect(),
            item: each().map(|child| signed(child.item)).collect(),
            graph: each().map(|child| child.graph.as_bytes().to_vec()).collect(),
            input: each().map(|child| child.input.to_string()).collect(),
            pipeline_id: each().map(|child| child.pipeline.map(|(id, _)| id.as_uuid())).collect(),
            pipeline_version: each().map(|child| child.pipeline.map(|(_, version)| version)).collect(),
            deadline_at: each().map(|child| child.deadline_at).collect(),
        }
    }
}

impl QueryId for Start {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for Start {
    type SqlType = Integer;
}

impl QueryFragment<Pg> for Start {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("WITH args AS (SELECT ");
        out.push_bind_param::<SqlUuid, _>(&self.parent)?;
        out.push_sql("::uuid AS parent, ");
        out.push_bind_param::<Text, _>(&self.node)?;
        out.push_sql("::text AS node, ");
        out.push_bind_param::<Integer, _>(&self.round)?;
        out.push_sql("::integer AS round, ");
        out.push_bind_param::<Text, _>(&self.kind)?;
        out.push_sql("::text AS kind, ");
        out.push_bind_param::<Bool, _>(&self.is_awaited)?;
        out.push_sql("::boolean AS is_awaited, ");
        out.push_bind_param::<Json, _>(&self.trigger)?;
        out.push_sql("::json AS trigger, ");
        out.push_bind_param::<Integer, _>(&MAX_DEPTH_SQL)?;
        out.push_sql("::integer AS max_depth), child AS (SELECT * FROM unnest(");
        out.push_bind_param::<Array<SqlUuid>, _>(&self.id)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Integer>, _>(&self.item)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Bytea>, _>(&self.graph)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Text>, _>(&self.input)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<SqlUuid>>, _>(&self.pipeline_id)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<Integer>>, _>(&self.pipeline_version)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<Timestamptz>>, _>(&self.deadline_at)?;
        out.push_sql(") AS c (id, item, graph, input, pipeline_id, pipeline_version, deadline_at)), ");
        out.push_sql(START);
        Ok(())
    }
}

/// Starts what is not there yet. The parent's row is locked, so that children and the end of their parent come one
/// after the other.
const START: &str = "
    parent AS MATERIALIZED (
        SELECT runs.id, runs.project_id, runs.priority, runs.deadline_at,
            coalesce(place.root_run_id, runs.id) AS root_run_id,
            -- One that was let go is in nobody's tree, but its trigger tells how deep it is.
            coalesce(place.depth, (runs.trigger ->> 'depth')::integer, 0) + 1 AS depth
        FROM args JOIN runs ON runs.id = args.parent LEFT JOIN child_runs AS place ON place.run_id = runs.id
        WHERE runs.state IN ('running', 'waiting')
        FOR NO KEY UPDATE OF runs
    ), started AS (
        INSERT INTO runs (id, project_id, graph_digest, kind, trigger, pipeline_id, pipeline_version, parent_run_id,
            parent_node_id, input, priority, deadline_at)
        SELECT child.id, parent.project_id, child.graph, args.kind,
            (args.trigger::jsonb || jsonb_build_object('depth', parent.depth))::json, child.pipeline_id,
            child.pipeline_version, CASE WHEN args.is_awaited THEN parent.id END,
            CASE WHEN args.is_awaited THEN args.node END, child.input::json, parent.priority,
            least(CASE WHEN args.is_awaited THEN parent.deadline_at END, child.deadline_at)
        FROM child CROSS JOIN parent CROSS JOIN args
        WHERE parent.depth <= args.max_depth ORDER BY child.item
        ON CONFLICT DO NOTHING RETURNING id
    ), placed AS (
        INSERT INTO child_runs (run_id, parent_run_id, node_id, round, item, root_run_id, depth)
        SELECT started.id, parent.id, args.node, args.round, child.item, parent.root_run_id, parent.depth
        FROM started JOIN child ON child.id = started.id CROSS JOIN parent CROSS JOIN args WHERE args.is_awaited
        ON CONFLICT DO NOTHING
    )
    SELECT depth FROM parent";

/// How the children of a node stand: one row, with the first of those that did not succeed.
#[derive(QueryId)]
struct CountChildren {
    parent: Uuid,
    node: String,
    round: i32,
}

type Counted = (Option<i32>, i64, Option<Uuid>, Option<i32>, Option<String>, Option<Value>);

impl Query for CountChildren {
    type SqlType =
        (Nullable<Integer>, BigInt, Nullable<SqlUuid>, Nullable<Integer>, Nullable<Text>, Nullable<Json>);
}

impl QueryFragment<Pg> for CountChildren {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // The parent's id stands in each place as a constant of its own, so that the indexes are used.
        out.push_sql("WITH unfinished AS MATERIALIZED (
            SELECT runs.id, runs.state, runs.error, place.item FROM runs JOIN child_runs AS place ON place.run_id = runs.id
            WHERE runs.state <> 'succeeded' AND runs.parent_run_id = ");
        out.push_bind_param::<SqlUuid, _>(&self.parent)?;
        out.push_sql(" AND place.node_id = ");
        out.push_bind_param::<Text, _>(&self.node)?;
        out.push_sql(" AND place.round = ");
        out.push_bind_param::<Integer, _>(&self.round)?;
        out.push_sql(") SELECT (SELECT max(item) FROM child_runs WHERE parent_run_id = ");
        out.push_bind_param::<SqlUuid, _>(&self.parent)?;
        out.push_sql(" AND node_id = ");
        out.push_bind_param::<Text, _>(&self.node)?;
        out.push_sql(" AND round = ");
        out.push_bind_param::<Integer, _>(&self.round)?;
        out.push_sql("), (SELECT count(*) FROM unfinished WHERE state IN ('queued', 'running', 'waiting')),
            first.id, first.item, first.state, first.error
            FROM (SELECT) AS one LEFT JOIN (
                SELECT id, item, state, error FROM unfinished WHERE state NOT IN ('queued', 'running', 'waiting')
                -- One that was cancelled may have been so because another failed.
                ORDER BY state = 'cancelled', item LIMIT 1) AS first ON true");
        Ok(())
    }
}

/// Ends the children that were never claimed, and leaves word for the drivers of the others. The parent is not woken: it
/// is who asks.
const CANCEL: &str = "
    WITH cancelled AS (
        UPDATE runs SET
            cancel_requested_at = coalesce(cancel_requested_at, now()),
            state = CASE WHEN epoch = 0 THEN 'cancelled' ELSE state END,
            ended_at = CASE WHEN epoch = 0 THEN now() END,
            available_at = CASE WHEN epoch > 0 THEN clock_timestamp() END
        WHERE state IN ('queued', 'running', 'waiting') AND id = ANY (ARRAY(
            SELECT child.id FROM runs AS child JOIN child_runs AS place ON place.run_id = child.id
            WHERE child.parent_run_id = $1 AND place.node_id = $2 AND place.round = $3
                AND child.state IN ('queued', 'running', 'waiting')
            ORDER BY child.id))
        RETURNING id, project_id, state
    ), announced AS (
        INSERT INTO events (project_id, type, subject)
        SELECT project_id, 'run.cancelled', id FROM cancelled WHERE state = 'cancelled'
    )
    SELECT id FROM cancelled";

/// Claims from the tree below one run. It looks through the queue for those of the tree, which the planner is kept from
/// seeing otherwise: of a large tree most have ended or wait for their turn.
#[derive(QueryId)]
struct ClaimBelow {
    owner: Uuid,
    root: Uuid,
    limit: i64,
}

impl Query for ClaimBelow {
    type SqlType = ClaimedSql;
}

impl QueryFragment<Pg> for ClaimBelow {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        push_claimant(&mut out, &self.owner)?;
        out.push_sql(
            "candidates AS (
            SELECT runs.id FROM runs
            WHERE runs.state IN ('queued', 'waiting') AND runs.available_at <= now()
                AND EXISTS (SELECT FROM child_runs WHERE run_id = runs.id AND (root_run_id = ",
        );
        out.push_bind_param::<SqlUuid, _>(&self.root)?;
        out.push_sql(
            ") IS TRUE)
            ORDER BY runs.available_at, runs.id LIMIT ",
        );
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(" FOR NO KEY UPDATE OF runs SKIP LOCKED), ");
        out.push_sql(CLAIM);
        Ok(())
    }
}

impl PgRunStore {
    /// Claims at most `limit` available runs of the tree below `root`, the oldest first, and nothing else. Runs that were
    /// started and let go are in nobody's tree.
    ///
    /// # Errors
    /// As [`gathering_dag_engine::RunStore::claim`].
    pub async fn claim_children(
        &self,
        owner: InstanceId,
        root: RunId,
        limit: usize,
    ) -> Result<Vec<ClaimedRun>, StoreError> {
        let conn = self.pool.get().await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let claimed = repeat_on_fresh_entries(owner, || {
            let mut conn: &AsyncPgConnection = &conn;
            ClaimBelow { owner: owner.as_uuid(), root: root.as_uuid(), limit }
                .load::<ClaimedRow>(&mut conn)
                .boxed()
        });
        Ok(claimed.await?)
    }
}

#[async_trait]
impl ChildRuns for PgRunStore {
    async fn ensure_graph(&self, digest: Digest, definition: &Value) -> Result<(), StoreError> {
        let conn = self.pool.get().await?;
        Ok(graphs::ensure(&conn, digest, definition).await?)
    }

    async fn start(
        &self,
        parent: &Parent,
        kind: ChildKind,
        children: Vec<NewChild>,
    ) -> Result<(), StartChildrenError> {
        let conn = self.pool.get().await.map_err(StoreError::from)?;
        let depth: Option<i32> = Start::of(parent, kind, &children)
            .get_results(&mut &*conn)
            .await
            .and_then(exactly_one)
            .optional()
            .map_err(|error| StoreError::from(refused(error)))?;
        match depth {
            None => Err(StartChildrenError::ParentEnded),
            Some(depth) if depth > MAX_DEPTH_SQL => Err(StartChildrenError::TooDeep),
            Some(_) => {
                self.wakes.wake(Wake::Runs);
                Ok(())
            }
        }
    }

    async fn summarize(&self, parent: &Parent) -> Result<ChildSummary, StoreError> {
        let conn = self.pool.get().await?;
        let counted: Counted = CountChildren {
            parent: parent.run.as_uuid(),
            node: parent.node.as_str().to_owned(),
            round: signed(parent.round),
        }
        .get_result(&mut &*conn)
        .await
        .map_err(|error| DatabaseError::query("counting child runs", error))?;
        Ok(into_summary(counted)?)
    }

    async fn load_outputs(
        &self,
        parent: &Parent,
        from: u32,
        limit: usize,
    ) -> Result<Vec<(u32, Value)>, StoreError> {
        let conn = self.pool.get().await?;
        let rows: Vec<(i32, Option<Value>)> = child_runs::table
            .inner_join(runs::table.on(runs::id.eq(child_runs::run_id)))
            .filter(child_runs::parent_run_id.eq(parent.run.as_uuid()))
            .filter(child_runs::node_id.eq(parent.node.as_str()))
            .filter(child_runs::round.eq(signed(parent.round)))
            .filter(child_runs::item.ge(signed(from)))
            .filter(runs::state.eq(RunState::Succeeded.as_str()))
            .order(child_runs::item)
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .select((child_runs::item, runs::output))
            .load(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("reading the outputs of child runs", error))?;
        Ok(rows.into_iter().map(|(item, output)| (unsigned(item), output.unwrap_or_default())).collect())
    }

    async fn cancel(&self, parent: &Parent) -> Result<(), StoreError> {
        let conn = self.pool.get().await?;
        let n_cancelled = diesel::sql_query(CANCEL)
            .bind::<SqlUuid, _>(parent.run.as_uuid())
            .bind::<Text, _>(parent.node.as_str())
            .bind::<Integer, _>(signed(parent.round))
            .execute(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("asking for the end of child runs", error))?;
        if n_cancelled > 0 {
            self.wakes.wake(Wake::Signals);
            self.wakes.wake(Wake::Runs);
            self.wakes.wake(Wake::Events);
        }
        Ok(())
    }
}

fn into_summary(counted: Counted) -> Result<ChildSummary, DatabaseError> {
    let (last_item, n_unfinished, run, item, state, error) = counted;
    let unsuccessful = match (run, item, state) {
        (Some(run), Some(item), Some(state)) => Some(Unsuccessful {
            run: run.into(),
            item: unsigned(item),
            state: state
                .parse()
                .map_err(|error: String| DatabaseError::corrupt("the state of a run", error))?,
            error: error
                .map(serde_json::from_value)
                .transpose()
                .map_err(|error| DatabaseError::corrupt("the error of a run", error))?,
        }),
        _ => None,
    };
    // Items are started in their order and none is left out, so that the last one says how many there are.
    let n_started = last_item.map_or(0, |item| unsigned(item).saturating_add(1));
    Ok(ChildSummary {
        n_started,
        n_unfinished: u32::try_from(n_unfinished).unwrap_or(u32::MAX),
        unsuccessful,
    })
}

/// PostgreSQL has no unsigned numbers, and nothing counts so far.
fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}
