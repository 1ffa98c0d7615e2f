//! The one insert of runs. A new run is queued, or waits for a permit; it has no owner, and its epoch is 0.

use std::sync::LazyLock;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::data_types::PgInterval;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Bytea, Integer, Interval, Json, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::NewRun;
use gathering_domain::{PermitRequest, PipelineId, RunId, RunState, WaitingFor};
use serde_json::Value;
use uuid::Uuid;

use crate::db::bind::{push_columns, push_values};
use crate::db::exactly_one::exactly_one;
use crate::runs::accept::RunOrigin;
use crate::runs::permits::request::{REQUESTED, Requests};
use crate::runs::row::Row;

/// A timeout has at most a hundred years: PostgreSQL would refuse times beyond what it can hold.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// The columns of a run that an insert sets.
const RUN_COLUMNS: &str = "id, project_id, graph_digest, kind, depth, trigger, pipeline_id, pipeline_version, schedule_id, \
                           parent_run_id, parent_node_id, rerun_of, idempotency_key, idempotency_digest, input, \
                           priority, deadline_at";

/// The columns of the part `new_run`: [`push_insert`] expects such an earlier part of the same `WITH`.
pub(crate) static COLUMNS: LazyLock<String> = LazyLock::new(|| format!("{RUN_COLUMNS}, available_at"));

/// The insert of runs.
static INSERT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "inserted AS (
            INSERT INTO runs ({RUN_COLUMNS}) SELECT {RUN_COLUMNS} FROM new_run ON CONFLICT DO NOTHING RETURNING *
        ), "
    )
});

/// The state of runs of which none asks for a permit.
const QUEUED: &str = "queued AS (
        INSERT INTO active_runs (run_id, project_id, parent_run_id, priority, deadline_at, available_at)
        SELECT inserted.id, inserted.project_id, inserted.parent_run_id, inserted.priority, inserted.deadline_at,
            new_run.available_at
        FROM inserted JOIN new_run ON new_run.id = inserted.id RETURNING run_id, state, waiting_for
    )";

/// The state of runs of which some ask for permits. These wait outside of the queue, where only their deadline finds them.
static QUEUED_WITH_PERMITS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "queued AS (
            INSERT INTO active_runs (run_id, project_id, parent_run_id, priority, deadline_at, available_at, state,
                waiting_for, permit_key)
            SELECT inserted.id, inserted.project_id, inserted.parent_run_id, inserted.priority, inserted.deadline_at,
                CASE WHEN permit.key_id IS NULL THEN new_run.available_at ELSE new_run.deadline_at END,
                CASE WHEN permit.key_id IS NULL THEN '{queued}' ELSE '{waiting}' END,
                CASE WHEN permit.key_id IS NOT NULL THEN '{concurrency}' END, permit.key_id
            FROM inserted JOIN new_run ON new_run.id = inserted.id
                LEFT JOIN (SELECT run_id, key_id FROM permit) AS permit ON permit.run_id = inserted.id
            RETURNING run_id, state, waiting_for
        ), {REQUESTED}",
        queued = RunState::Queued,
        waiting = RunState::Waiting,
        concurrency = WaitingFor::Concurrency.as_str(),
    )
});

/// Pushes the insert of `new_run` as the parts `inserted` and `queued` of a `WITH`. It leaves out runs whose id or
/// idempotency key is taken.
pub(crate) fn push_insert<'b>(out: &mut AstPass<'_, 'b, Pg>, permits: &'b Requests) -> QueryResult<()> {
    out.push_sql(&INSERT);
    if permits.is_empty() {
        out.push_sql(QUEUED);
        return Ok(());
    }
    permits.push_rows(out)?;
    out.push_sql(", ");
    out.push_sql(&QUEUED_WITH_PERMITS);
    Ok(())
}

/// A run that was inserted just now, with its state.
const ACCEPTED: &str = " FROM (
    SELECT inserted.id, project_id, graph_digest, kind, trigger, pipeline_id, pipeline_version, schedule_id,
        parent_run_id, rerun_of, queued.state, queued.waiting_for, input, output, error, priority, recoveries,
        deadline_at, cancel_requested_at, created_at, started_at, ended_at
    FROM inserted JOIN queued ON queued.run_id = inserted.id) AS all_runs";

type RowColumns = <Row as Selectable<Pg>>::SelectExpression;

/// Inserts one run at the top of a tree.
struct InsertRoot<'a, const PERMITS: bool> {
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
    permits: Requests,
    row: RowColumns,
}

impl<const PERMITS: bool> QueryId for InsertRoot<'_, PERMITS> {
    type QueryId = InsertRoot<'static, PERMITS>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const PERMITS: bool> Query for InsertRoot<'_, PERMITS> {
    type SqlType = diesel::dsl::SqlTypeOf<RowColumns>;
}

impl<const PERMITS: bool> QueryFragment<Pg> for InsertRoot<'_, PERMITS> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("WITH new_run (");
        out.push_sql(&COLUMNS);
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
        out.push_sql(", now() + ");
        out.push_bind_param::<Nullable<Interval>, _>(&self.timeout)?;
        // Not before now: claims read what has become available since the last claim.
        out.push_sql(", least(greatest(");
        out.push_bind_param::<Nullable<Timestamptz>, _>(&self.available_at)?;
        out.push_sql(", now()), now() + ");
        out.push_bind_param::<Nullable<Interval>, _>(&self.timeout)?;
        out.push_sql(")), ");
        push_insert(&mut out, &self.permits)?;
        out.push_sql(" SELECT ");
        self.row.walk_ast(out.reborrow())?;
        out.push_sql(ACCEPTED);
        Ok(())
    }
}

/// Inserts a run. Answers with its row if it is new.
pub(crate) async fn insert(
    conn: &AsyncPgConnection,
    run: &NewRun,
    origin: &RunOrigin,
) -> QueryResult<Option<Row>> {
    if origin.permit.is_some() {
        InsertRoot::<true>::of(run, origin).insert(conn).await
    } else {
        InsertRoot::<false>::of(run, origin).insert(conn).await
    }
}

impl<'a, const PERMITS: bool> InsertRoot<'a, PERMITS> {
    fn of(run: &'a NewRun, origin: &'a RunOrigin) -> Self {
        let idempotency = origin.idempotency.as_ref();
        Self {
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
            permits: Requests::of(std::iter::once(request_of(run, origin))),
            row: <Row as Selectable<Pg>>::construct_selection(),
        }
    }

    async fn insert(self, mut conn: &AsyncPgConnection) -> QueryResult<Option<Row>> {
        self.get_results(&mut conn).await.and_then(exactly_one).optional()
    }
}

fn request_of<'a>(
    run: &NewRun,
    origin: &'a RunOrigin,
) -> (RunId, Option<PipelineId>, Option<&'a PermitRequest>) {
    (run.id, origin.pipeline.map(|(pipeline, _)| pipeline), origin.permit.as_ref())
}

/// New runs that nobody asked for with a key, and that depend on no other, column by column; each is new. Their projects and
/// pipelines are locked against being hidden.
struct InsertAll<const PERMITS: bool> {
    id: Vec<Uuid>,
    project: Vec<Uuid>,
    graph: Vec<Vec<u8>>,
    kind: Vec<&'static str>,
    trigger: Vec<String>,
    pipeline: Vec<Option<Uuid>>,
    version: Vec<Option<i32>>,
    schedule: Vec<Option<Uuid>>,
    input: Vec<String>,
    priority: Vec<i32>,
    timeout: Vec<Option<PgInterval>>,
    permits: Requests,
}

impl<const PERMITS: bool> InsertAll<PERMITS> {
    fn of(runs: &[(NewRun, RunOrigin)], permits: Requests) -> Self {
        let new = || runs.iter().map(|(new, _)| new);
        let origins = || runs.iter().map(|(_, origin)| origin);
        Self {
            id: new().map(|run| run.id.as_uuid()).collect(),
            project: new().map(|run| run.project.as_uuid()).collect(),
            graph: new().map(|run| run.graph.as_bytes().to_vec()).collect(),
            kind: origins().map(|origin| origin.kind.as_str()).collect(),
            trigger: origins().map(|origin| origin.trigger.to_string()).collect(),
            pipeline: origins().map(|origin| origin.pipeline.map(|(id, _)| id.as_uuid())).collect(),
            version: origins().map(|origin| origin.pipeline.map(|(_, version)| version)).collect(),
            schedule: origins().map(|origin| origin.schedule.map(|id| id.as_uuid())).collect(),
            input: new().map(|run| run.input.to_string()).collect(),
            priority: new().map(|run| run.priority).collect(),
            timeout: new().map(timeout_of).collect(),
            permits,
        }
    }
}

impl<const PERMITS: bool> QueryId for InsertAll<PERMITS> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const PERMITS: bool> Query for InsertAll<PERMITS> {
    type SqlType = SqlUuid;
}

impl<const PERMITS: bool> QueryFragment<Pg> for InsertAll<PERMITS> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("WITH new_run (");
        out.push_sql(&COLUMNS);
        out.push_sql(
            ") AS (SELECT id, project_id, graph_digest, kind, 0, trigger::json, pipeline_id, pipeline_version, schedule_id,
                NULL::uuid, NULL::text, NULL::uuid, NULL::text, NULL::bytea, input::json, priority, now() + timeout,
                least(now(), now() + timeout) FROM unnest(",
        );
        push_columns!(out, SqlUuid: self.id, SqlUuid: self.project, Bytea: self.graph, Text: self.kind,
            Text: self.trigger, Nullable<SqlUuid>: self.pipeline, Nullable<Integer>: self.version,
            Nullable<SqlUuid>: self.schedule, Text: self.input, Integer: self.priority,
            Nullable<Interval>: self.timeout);
        out.push_sql(
            ") AS r (id, project_id, graph_digest, kind, trigger, pipeline_id, pipeline_version, schedule_id, input,
                priority, timeout)), ",
        );
        push_insert(&mut out, &self.permits)?;
        out.push_sql(" SELECT id FROM inserted");
        Ok(())
    }
}

/// Inserts new runs as one statement.
pub(crate) async fn insert_all(
    mut conn: &AsyncPgConnection,
    runs: &[(NewRun, RunOrigin)],
) -> QueryResult<usize> {
    let permits = Requests::of(runs.iter().map(|(run, origin)| request_of(run, origin)));
    let inserted: Vec<Uuid> = if permits.is_empty() {
        InsertAll::<false>::of(runs, permits).load(&mut conn).await?
    } else {
        InsertAll::<true>::of(runs, permits).load(&mut conn).await?
    };
    Ok(inserted.len())
}

fn timeout_of(run: &NewRun) -> Option<PgInterval> {
    run.timeout.map(|timeout| {
        let micros = timeout.min(LONGEST_TIMEOUT).as_micros();
        PgInterval::from_microseconds(i64::try_from(micros).unwrap_or(i64::MAX))
    })
}
