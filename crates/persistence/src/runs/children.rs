//! Runs that nodes of other runs start: their places below their parents, their summary, and their outputs.

mod summary;

use std::sync::LazyLock;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Array, Bool, Bytea, Integer, Json, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use gathering_dag_engine::{
    ChildKind, ChildRuns, ChildState, ChildSummary, MAX_DEPTH, NewChild, Parent, StartChildrenError,
    StoreError, Unsuccessful,
};
use gathering_domain::{Digest, RunId, RunKind, RunState};
use serde_json::{Value, json};
use uuid::Uuid;

use self::summary::{CountChildren, into_summary};
use crate::cluster::wake::Wake;
use crate::db::all_runs::all_runs;
use crate::db::error::DatabaseError;
use crate::db::exactly_one::exactly_one;
use crate::db::schema::{child_runs, runs};
use crate::runs::accept::refused;
use crate::runs::graphs;
use crate::runs::permits::request::Requests;
use crate::runs::states::{ACTIVE, WAKEABLE};
use crate::runs::store::PgRunStore;
use crate::runs::transitions::cancel::cancel_children;
use crate::runs::transitions::insert::{COLUMNS, push_insert};

const MAX_DEPTH_SQL: i32 = MAX_DEPTH.cast_signed();

/// The children to start, column by column: one parameter per column however many there are.
#[derive(Debug)]
struct Start<const PERMITS: bool> {
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
    permits: Requests,
    /// The runs whose children may be taken up, the parent first; none for children that take up nothing.
    earlier: Vec<Uuid>,
}

impl<const PERMITS: bool> Start<PERMITS> {
    fn of(
        parent: &Parent,
        kind: ChildKind,
        children: &[NewChild],
        permits: Requests,
        earlier: &[RunId],
    ) -> Self {
        let may_take_up = kind != ChildKind::Detached && (parent.round > 0 || !earlier.is_empty());
        let runs = std::iter::once(&parent.run).chain(earlier).filter(|_| may_take_up);
        let each = || children.iter();
        Self {
            parent: parent.run.as_uuid(),
            node: parent.node.as_str().to_owned(),
            round: signed(parent.round),
            kind: if kind == ChildKind::Item { RunKind::Item } else { RunKind::Pipeline }.as_str(),
            is_awaited: kind != ChildKind::Detached,
            trigger: json!({ "type": "run", "run_id": parent.run, "node_id": parent.node }),
            id: each().map(|child| parent.child(child.item).as_uuid()).collect(),
            item: each().map(|child| signed(child.item)).collect(),
            graph: each().map(|child| child.graph.as_bytes().to_vec()).collect(),
            input: each().map(|child| child.input.to_string()).collect(),
            pipeline_id: each().map(|child| child.pipeline.map(|(id, _)| id.as_uuid())).collect(),
            pipeline_version: each().map(|child| child.pipeline.map(|(_, version)| version)).collect(),
            deadline_at: each().map(|child| child.deadline_at).collect(),
            permits,
            earlier: runs.map(|run| run.as_uuid()).collect(),
        }
    }
}

impl<const PERMITS: bool> QueryId for Start<PERMITS> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const PERMITS: bool> Query for Start<PERMITS> {
    type SqlType = (Integer, Bool);
}

impl<const PERMITS: bool> QueryFragment<Pg> for Start<PERMITS> {
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
        out.push_sql("::integer AS max_depth, ");
        out.push_bind_param::<Array<SqlUuid>, _>(&self.earlier)?;
        out.push_sql("::uuid[] AS earlier), child AS (SELECT * FROM unnest(");
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
        out.push_sql(&TAKEN_UP);
        out.push_sql(&PARENT);
        push_insert(&mut out, &self.permits)?;
        out.push_sql(PLACES);
        Ok(())
    }
}

/// The earlier child whose work each new one takes up: claimed, and at the same place. One with the same graph and input is
/// preferred; inputs are compared as the texts that were stored.
static TAKEN_UP: LazyLock<String> = LazyLock::new(|| {
    format!(
        "taken_up AS MATERIALIZED (
            SELECT child.id AS child_id, earlier.id, earlier.state IN {active} AS is_active
            FROM args CROSS JOIN child CROSS JOIN LATERAL (
                SELECT run.id, run.state
                FROM unnest(args.earlier) WITH ORDINALITY AS above (run_id, nearness)
                    JOIN child_runs AS place ON place.parent_run_id = above.run_id AND place.node_id = args.node
                        AND place.item = child.item
                    CROSS JOIN LATERAL (SELECT * FROM all_runs WHERE id = place.run_id LIMIT 1) AS run
                WHERE run.epoch > 0 AND (above.run_id <> args.parent OR place.round < args.round)
                ORDER BY (run.graph_digest = child.graph AND run.input::text = child.input) DESC,
                    run.state = 'succeeded' DESC, above.nearness, place.round DESC LIMIT 1
            ) AS earlier
            WHERE cardinality(args.earlier) > 0 AND (SELECT true FROM runs WHERE id = child.id) IS NULL
        ), ",
        active = *ACTIVE,
    )
});

/// Locks the parent's row, so that children and the end of their parent come one after the other. Its id is a query in each
/// place: a join with `args` would read a whole table that the statistics take for empty.
static PARENT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "parent AS MATERIALIZED (
            SELECT runs.id, runs.project_id, runs.priority, runs.deadline_at, runs.depth + 1 AS depth,
                coalesce(place.root_run_id, runs.id) AS root_run_id
            FROM active_runs AS active JOIN runs ON runs.id = (SELECT parent FROM args)
                LEFT JOIN child_runs AS place ON place.run_id = (SELECT parent FROM args)
            WHERE active.run_id = (SELECT parent FROM args) AND active.state IN {wakeable}
            FOR NO KEY UPDATE OF active
        ), new_run ({columns}) AS (
            SELECT child.id, parent.project_id, child.graph, args.kind, parent.depth, args.trigger, child.pipeline_id,
                child.pipeline_version, NULL::uuid, CASE WHEN args.is_awaited THEN parent.id END,
                CASE WHEN args.is_awaited THEN args.node END, taken_up.id, NULL::text, NULL::bytea, child.input::json,
                parent.priority, least(CASE WHEN args.is_awaited THEN parent.deadline_at END, child.deadline_at), now()
            FROM child CROSS JOIN parent CROSS JOIN args LEFT JOIN taken_up ON taken_up.child_id = child.id
            WHERE parent.depth <= args.max_depth AND NOT EXISTS (SELECT FROM taken_up WHERE taken_up.is_active)
            ORDER BY child.item
        ), ",
        wakeable = *WAKEABLE,
        columns = *COLUMNS,
    )
});

/// A detached run has no place: it is in no tree.
const PLACES: &str = ", placed AS (
        INSERT INTO child_runs (run_id, parent_run_id, node_id, round, item, root_run_id)
        SELECT inserted.id, parent.id, args.node, args.round, child.item, parent.root_run_id
        FROM inserted JOIN child ON child.id = inserted.id CROSS JOIN parent CROSS JOIN args WHERE args.is_awaited
        ON CONFLICT DO NOTHING
    )
    SELECT depth, EXISTS (SELECT FROM taken_up WHERE is_active) FROM parent";

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
        earlier: &[RunId],
    ) -> Result<(), StartChildrenError> {
        let conn = self.pool.get().await.map_err(StoreError::from)?;
        let pipeline = |child: &NewChild| child.pipeline.map(|(pipeline, _)| pipeline);
        let permits = Requests::of(
            children.iter().map(|child| (parent.child(child.item), pipeline(child), child.permit.as_ref())),
        );
        let started: QueryResult<Vec<(i32, bool)>> = if permits.is_empty() {
            Start::<false>::of(parent, kind, &children, permits, earlier).get_results(&mut &*conn).await
        } else {
            Start::<true>::of(parent, kind, &children, permits, earlier).get_results(&mut &*conn).await
        };
        let started = started.and_then(exactly_one).optional();
        let started = started.map_err(|error| StoreError::from(refused(error)))?;
        match started {
            None => Err(StartChildrenError::ParentEnded),
            Some((depth, _)) if depth > MAX_DEPTH_SQL => Err(StartChildrenError::TooDeep),
            Some((_, true)) => Err(StartChildrenError::EarlierActive),
            Some(_) => {
                self.wakes.wake(Wake::Runs);
                Ok(())
            }
        }
    }

    async fn summarize(&self, parent: &Parent) -> Result<ChildSummary, StoreError> {
        let conn = self.pool.get().await?;
        let counted = CountChildren::of(parent).get_result(&mut &*conn).await;
        let counted = counted.map_err(|error| DatabaseError::query("counting child runs", error))?;
        Ok(into_summary(counted)?)
    }

    async fn list_unsuccessful(
        &self,
        parent: &Parent,
        limit: usize,
    ) -> Result<Vec<Unsuccessful>, StoreError> {
        let conn = self.pool.get().await?;
        let terminal =
            RunState::ALL.into_iter().filter(|state| state.is_terminal() && *state != RunState::Succeeded);
        let rows: Vec<(Uuid, i32, String, Option<Value>)> = child_runs::table
            .inner_join(runs::table.on(runs::id.eq(child_runs::run_id)))
            .filter(child_runs::parent_run_id.eq(parent.run.as_uuid()))
            .filter(child_runs::node_id.eq(parent.node.as_str()))
            .filter(child_runs::round.eq(signed(parent.round)))
            .filter(runs::state.eq_any(terminal.map(RunState::as_str)))
            .order(child_runs::item)
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .select((child_runs::run_id, child_runs::item, runs::state.assume_not_null(), runs::error))
            .load(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("listing child runs that did not succeed", error))?;
        Ok(rows.into_iter().map(into_unsuccessful).collect::<Result<_, _>>()?)
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

    async fn find(&self, parent: &Parent, item: u32) -> Result<Option<ChildState>, StoreError> {
        let conn = self.pool.get().await?;
        let row: Option<(Uuid, String, Option<Value>, Option<Value>)> = child_runs::table
            .inner_join(all_runs::table.on(all_runs::id.eq(child_runs::run_id)))
            .filter(child_runs::run_id.eq(parent.child(item).as_uuid()))
            .select((child_runs::run_id, all_runs::state, all_runs::output, all_runs::error))
            .first(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("reading a child run", error))?;
        let Some((run, state, output, error)) = row else { return Ok(None) };
        let child = into_unsuccessful((run, signed(item), state, error))?;
        Ok(Some(match child.state {
            RunState::Succeeded => ChildState::Succeeded(output.unwrap_or_default()),
            state if state.is_terminal() => ChildState::Unsuccessful(child),
            _ => ChildState::Active,
        }))
    }

    async fn cancel(&self, parent: &Parent) -> Result<(), StoreError> {
        let conn = self.pool.get().await?;
        let wake_ups = cancel_children(&conn, parent, signed(parent.round))
            .await
            .map_err(|error| DatabaseError::query("requesting the cancellation of child runs", error))?;
        wake_ups.send(&self.wakes);
        Ok(())
    }
}

fn into_unsuccessful(
    (run, item, state, error): (Uuid, i32, String, Option<Value>),
) -> Result<Unsuccessful, DatabaseError> {
    Ok(Unsuccessful {
        run: run.into(),
        item: unsigned(item),
        state: state.parse().map_err(|error: String| DatabaseError::corrupt("the state of a run", error))?,
        error: error
            .map(serde_json::from_value)
            .transpose()
            .map_err(|error| DatabaseError::corrupt("the error of a run", error))?,
    })
}

/// PostgreSQL has no unsigned numbers, and no count here comes near the limit.
fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}
