//! A run as its row has it.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::Run;
use gathering_dag_engine::RunSource;
use gathering_domain::{Digest, PipelineId, RunId};
use serde_json::Value;
use uuid::Uuid;

use crate::db::all_runs::all_runs;
use crate::db::error::DatabaseError;
use crate::db::schema::runs;
use crate::db::stored_json::StoredJson;

#[derive(Queryable, Selectable)]
#[diesel(table_name = all_runs)]
pub(crate) struct Row {
    id: Uuid,
    project_id: Uuid,
    graph_digest: Vec<u8>,
    kind: String,
    #[diesel(deserialize_as = StoredJson)]
    trigger: Value,
    pipeline_id: Option<Uuid>,
    pipeline_version: Option<i32>,
    schedule_id: Option<Uuid>,
    parent_run_id: Option<Uuid>,
    rerun_of: Option<Uuid>,
    state: String,
    waiting_for: Option<String>,
    #[diesel(deserialize_as = StoredJson)]
    input: Value,
    output: Option<StoredJson>,
    error: Option<Value>,
    priority: i32,
    recoveries: i32,
    deadline_at: Option<DateTime<Utc>>,
    cancel_requested_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
}

/// What a run executes.
pub(crate) async fn load_source(
    mut conn: &AsyncPgConnection,
    run: RunId,
) -> Result<RunSource, DatabaseError> {
    let found: Option<(Vec<u8>, StoredJson)> = runs::table
        .find(run.as_uuid())
        .select((runs::graph_digest, runs::input))
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("loading what a run executes", error))?;
    let (graph, input) = found.ok_or(DatabaseError::Missing { what: "the run" })?;
    Ok(RunSource { graph: parse_digest(&graph)?, input: input.into() })
}

fn parse_digest(bytes: &[u8]) -> Result<Digest, DatabaseError> {
    Digest::try_from(bytes).map_err(|error| DatabaseError::corrupt("the graph of a run", error))
}

impl TryFrom<Row> for Run {
    type Error = DatabaseError;

    fn try_from(row: Row) -> Result<Self, DatabaseError> {
        let word = |error: String| DatabaseError::corrupt("the state of a run", error);
        Ok(Self {
            id: row.id.into(),
            project: row.project_id.into(),
            graph: parse_digest(&row.graph_digest)?,
            kind: row
                .kind
                .parse()
                .map_err(|error: String| DatabaseError::corrupt("the kind of a run", error))?,
            trigger: row.trigger,
            pipeline: row.pipeline_id.map(PipelineId::from).zip(row.pipeline_version),
            schedule: row.schedule_id.map(Into::into),
            parent: row.parent_run_id.map(Into::into),
            rerun_of: row.rerun_of.map(Into::into),
            state: row.state.parse().map_err(word)?,
            waiting_for: row.waiting_for.as_deref().map(str::parse).transpose().map_err(word)?,
            input: row.input,
            output: row.output.map(Value::from),
            error: row
                .error
                .map(serde_json::from_value)
                .transpose()
                .map_err(|error| DatabaseError::corrupt("the error of a run", error))?,
            priority: row.priority,
            recoveries: row.recoveries,
            deadline_at: row.deadline_at,
            cancel_requested_at: row.cancel_requested_at,
            created_at: row.created_at,
            started_at: row.started_at,
            ended_at: row.ended_at,
        })
    }
}
