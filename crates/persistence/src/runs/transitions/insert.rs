//! The one insert of runs. A new run is queued, has no owner, and its epoch is 0.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::data_types::PgInterval;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{
    Array, Bytea, Integer, Interval, Json, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::NewRun;
use serde_json::Value;
use uuid::Uuid;

use crate::db::bind::push_values;
use crate::db::exactly_one::exactly_one;
use crate::runs::accept::RunOrigin;
use crate::runs::row::Row;

/// A timeout has at most a hundred years: PostgreSQL would refuse times beyond what it can hold.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// The columns that an insert sets. [`INSERT`] expects an earlier part of the same `WITH` that is called `new_run` and has
/// these columns.
pub(crate) const COLUMNS: &str = "id, project_id, graph_digest, kind, depth, trigger, pipeline_id, pipeline_version, \
                                  schedule_id, parent_run_id, parent_node_id, rerun_of, idempotency_key, \
                                  idempotency_digest, input, priority, available_at, deadline_at";

/// Pushes the insert of `new_run` as the part `inserted` of a `WITH`. It leaves out runs whose id or idempotency key is
/// taken.
pub(crate) fn push_insert(out: &mut AstPass<'_, '_, Pg>) {
    out.push_sql("inserted AS (INSERT INTO runs (");
    out.push_sql(COLUMNS);
    out.push_sql(") SELECT ");
    out.push_sql(COLUMNS);
    out.push_sql(" FROM new_run ON CONFLICT DO NOTHING RETURNING *)");
}

type RowColumns = <Row as Selectable<Pg>>::SelectExpression;

/// Inserts one run at the top of a tree.
struct InsertRoot<'a> {
    id: Uuid,
    project: Uuid,
    graph: &'a [u8],
    kind: &'static str,
    trigger: &'a Value,
    pipeline: Option<Uuid>,
    version: Option<i32>,
    schedule: Option<Uuid>,
    rerun_of: Option<Uuid>,
    key: Option<&'a str>,
    key_digest: Option<&'a [u8]>,
    input: &'a Value,
    priority: i32,
    available_at: Option<DateTime<Utc>>,
    timeout: Option<PgInterval>,
    row: RowColumns,
}

impl QueryId for InsertRoot<'_> {
    type QueryId = InsertRoot<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for InsertRoot<'_> {
    type SqlType = diesel::dsl::SqlTypeOf<RowColumns>;
}

impl QueryFragment<Pg> for InsertRoot<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("WITH new_run (");
        out.push_sql(COLUMNS);
        out.push_sql(") AS (SELECT ");
        push_values!(out, SqlUuid: self.id);
        // Null, and so refused, if the project or the pipeline does not exist or is being deleted.
        out.push_sql(", run_accepting_project(");
        push_values!(out, SqlUuid: self.project, Nullable<SqlUuid>: self.pipeline);
        out.push_sql("), ");
        push_values!(out, Bytea: self.graph, Text: self.kind);
        out.push_sql(", 0, ");
        push_values!(out, Json: self.trigger, Nullable<SqlUuid>: self.pipeline, Nullable<Integer>: self.version,
            Nullable<SqlUuid>: self.schedule);
        out.push_sql(", NULL::uuid, NULL::text, ");
        push_values!(out, Nullable<SqlUuid>: self.rerun_of, Nullable<Text>: self.key,
            Nullable<Bytea>: self.key_digest, Json: self.input, Integer: self.priority);
        // Not before now: claims read what has become available since the last claim.
        out.push_sql(", least(greatest(");
        out.push_bind_param::<Nullable<Timestamptz>, _>(&self.available_at)?;
        out.push_sql(", now()), now() + ");
        out.push_bind_param::<Nullable<Interval>, _>(&self.timeout)?;
        out.push_sql("), now() + ");
        out.push_bind_param::<Nullable<Interval>, _>(&self.timeout)?;
        out.push_sql("), ");
        push_insert(&mut out);
        out.push_sql(" SELECT ");
        self.row.walk_ast(out.reborrow())?;
        out.push_sql(" FROM inserted AS runs");
        Ok(())
    }
}

/// Inserts a run. Answers with its row if it is new.
pub(crate) async fn insert(
    mut conn: &AsyncPgConnection,
    run: &NewRun,
    origin: &RunOrigin,
) -> QueryResult<Option<Row>> {
    let idempotency = origin.idempotency.as_ref();
    let insert = InsertRoot {
        id: run.id.as_uuid(),
        project: run.project.as_uuid(),
        graph: run.graph.as_bytes(),
        kind: origin.kind.as_str(),
        trigger: &origin.trigger,
        pipeline: origin.pipeline.map(|(id, _)| id.as_uuid()),
        version: origin.pipeline.map(|(_, version)| version),
        schedule: origin.schedule.map(|id| id.as_uuid()),
        rerun_of: origin.rerun_of.map(|id| id.as_uuid()),
        key: idempotency.map(|(key, _)| key.as_str()),
        key_digest: idempotency.map(|(_, digest)| digest.as_bytes().as_slice()),
        input: &run.input,
        priority: run.priority,
        available_at: run.available_at,
        timeout: timeout_of(run),
        row: <Row as Selectable<Pg>>::construct_selection(),
    };
    insert.get_results(&mut conn).await.and_then(exactly_one).optional()
}

/// Inserts runs that nobody asked for with a key, and that depend on no other; each is new. Their projects and pipelines are
/// locked against being hidden.
const INSERT_ALL: &str = "
    INSERT INTO runs (id, project_id, graph_digest, kind, trigger, pipeline_id, pipeline_version, schedule_id, input,
        priority, available_at, deadline_at)
    SELECT id, project_id, graph_digest, kind, trigger::json, pipeline_id, pipeline_version, schedule_id, input::json,
        priority, least(now(), now() + timeout), now() + timeout
    FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) AS new_run (id, project_id, graph_digest, kind, trigger,
        pipeline_id, pipeline_version, schedule_id, input, priority, timeout)";

/// Inserts new runs as one statement.
pub(crate) async fn insert_all(
    mut conn: &AsyncPgConnection,
    runs: &[(NewRun, RunOrigin)],
) -> QueryResult<usize> {
    let new = || runs.iter().map(|(new, _)| new);
    let origins = || runs.iter().map(|(_, origin)| origin);
    diesel::sql_query(INSERT_ALL)
        .bind::<Array<SqlUuid>, _>(new().map(|run| run.id.as_uuid()).collect::<Vec<_>>())
        .bind::<Array<SqlUuid>, _>(new().map(|run| run.project.as_uuid()).collect::<Vec<_>>())
        .bind::<Array<Bytea>, _>(new().map(|run| run.graph.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(origins().map(|origin| origin.kind.as_str()).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(origins().map(|origin| origin.trigger.to_string()).collect::<Vec<_>>())
        .bind::<Array<Nullable<SqlUuid>>, _>(
            origins().map(|origin| origin.pipeline.map(|(id, _)| id.as_uuid())).collect::<Vec<_>>(),
        )
        .bind::<Array<Nullable<Integer>>, _>(
            origins().map(|origin| origin.pipeline.map(|(_, version)| version)).collect::<Vec<_>>(),
        )
        .bind::<Array<Nullable<SqlUuid>>, _>(
            origins().map(|origin| origin.schedule.map(|id| id.as_uuid())).collect::<Vec<_>>(),
        )
        .bind::<Array<Text>, _>(new().map(|run| run.input.to_string()).collect::<Vec<_>>())
        .bind::<Array<Integer>, _>(new().map(|run| run.priority).collect::<Vec<_>>())
        .bind::<Array<Nullable<Interval>>, _>(new().map(timeout_of).collect::<Vec<_>>())
        .execute(&mut conn)
        .await
}

fn timeout_of(run: &NewRun) -> Option<PgInterval> {
    run.timeout.map(|timeout| {
        let micros = timeout.min(LONGEST_TIMEOUT).as_micros();
        PgInterval::from_microseconds(i64::try_from(micros).unwrap_or(i64::MAX))
    })
}
