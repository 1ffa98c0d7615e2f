//! Changing and deleting a pipeline, each only as its caller saw it.

use diesel::dsl::exists;
use diesel::prelude::*;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_domain::{Digest, PipelineId, RunState, UserId};
use serde_json::Value;

use super::{Pipeline, Pipelines, Row, insert_version};
use crate::db::error::DatabaseError;
use crate::db::schema::{pipeline_versions, pipelines, runs};
use crate::runs::graphs;

/// How many ended runs let go of their pipeline in one statement, so that none is ended for taking too long.
const RUNS_AT_ONCE: i64 = 10_000;

/// What to change of a pipeline; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PipelineChange {
    /// What people call it.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it may start runs.
    pub enabled: Option<bool>,
    /// Its definition, checked, as its author wrote it.
    pub definition: Option<Value>,
}

/// Which pipeline a change was thought for, by its [`Pipeline::revision`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedPipeline {
    /// However it stands.
    Any,
    /// One of these revisions.
    OneOf(Vec<String>),
}

impl ExpectedPipeline {
    fn is(&self, pipeline: &Pipeline) -> bool {
        match self {
            ExpectedPipeline::Any => true,
            ExpectedPipeline::OneOf(revisions) => revisions.contains(&pipeline.revision()),
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PipelineUpdate {
    /// It stands like this now.
    Done(Pipeline),
    /// It is another than the one expected; nothing was changed.
    Unexpected,
    /// There is no such pipeline.
    Missing,
}

/// What became of a request to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipelineDeletion {
    /// It is gone.
    Done,
    /// It is another than the one expected; nothing was deleted.
    Unexpected,
    /// Runs of it have not ended; nothing was deleted.
    RunsActive,
    /// There is no such pipeline.
    Missing,
}

impl Pipelines {
    /// Changes a pipeline if it is the one expected. Another definition than the latest makes a new version; runs keep
    /// theirs. Where everything is as asked for already, nothing is written.
    ///
    /// Of several changes at once that expect the same revision, one is made.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`]: whether it is changed is unknown.
    pub async fn update(
        &self,
        id: PipelineId,
        expected: &ExpectedPipeline,
        change: &PipelineChange,
        author: Option<UserId>,
    ) -> Result<PipelineUpdate, DatabaseError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let graph = change.definition.as_ref().map(Digest::of_json);
        if let Some((digest, definition)) = graph.zip(change.definition.as_ref()) {
            graphs::ensure(conn, digest, definition).await?;
        }
        conn.transaction(async |conn| update(conn, id, expected, change, graph, author).await)
            .await
            .map_err(|error| DatabaseError::query("changing a pipeline", error))
    }

    /// Deletes a pipeline with its versions if it is the one expected and none of its runs is unfinished. Its ended runs
    /// stay, and name no pipeline any more.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`]: whether it is deleted is unknown.
    pub async fn delete(
        &self,
        id: PipelineId,
        expected: &ExpectedPipeline,
    ) -> Result<PipelineDeletion, DatabaseError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        conn.transaction(async |conn| delete(conn, id, expected).await)
            .await
            .map_err(|error| DatabaseError::query("deleting a pipeline", error))
    }
}

/// Whoever changes the pipeline waits for this lock, and then reads what stands; runs are accepted beside it.
async fn update(
    mut conn: &AsyncPgConnection,
    id: PipelineId,
    expected: &ExpectedPipeline,
    change: &PipelineChange,
    graph: Option<Digest>,
    author: Option<UserId>,
) -> QueryResult<PipelineUpdate> {
    let locked = pipelines::table.find(id.as_uuid()).select(Row::as_select()).for_no_key_update();
    let locked: Option<Row> = locked.first(&mut conn).await.optional()?;
    let Some(pipeline) = locked.map(Pipeline::from) else { return Ok(PipelineUpdate::Missing) };
    if !expected.is(&pipeline) {
        return Ok(PipelineUpdate::Unexpected);
    }
    let mut version = pipeline.version;
    if let Some(graph) = graph
        && !is_graph_of(conn, &pipeline, graph).await?
    {
        version = version.saturating_add(1);
        insert_version(conn, id, version, graph, author).await?;
    }
    let name = change.name.as_ref().unwrap_or(&pipeline.name);
    let description = change.description.as_ref().unwrap_or(&pipeline.description);
    let enabled = change.enabled.unwrap_or(pipeline.enabled);
    let stands = (&pipeline.name, &pipeline.description, pipeline.enabled, pipeline.version);
    if (name, description, enabled, version) == stands {
        return Ok(PipelineUpdate::Done(pipeline));
    }
    // The time at which the transaction began may be before that of a change for which it waited.
    let clock = diesel::dsl::sql::<diesel::sql_types::Timestamptz>("clock_timestamp()");
    let row: Row = diesel::update(pipelines::table.find(id.as_uuid()))
        .set((
            pipelines::name.eq(name),
            pipelines::description.eq(description),
            pipelines::enabled.eq(enabled),
            pipelines::version.eq(version),
            pipelines::updated_at.eq(clock),
        ))
        .returning(Row::as_returning())
        .get_result(&mut conn)
        .await?;
    Ok(PipelineUpdate::Done(row.into()))
}

/// Whether this is the graph of the latest version. Asked after the lock, by a statement of its own: the one that waited
/// for the lock does not see a version that was made meanwhile.
async fn is_graph_of(mut conn: &AsyncPgConnection, pipeline: &Pipeline, graph: Digest) -> QueryResult<bool> {
    let latest = pipeline_versions::table.find((pipeline.id.as_uuid(), pipeline.version));
    let same = latest.filter(pipeline_versions::graph_digest.eq(graph.as_bytes().as_slice()));
    diesel::select(exists(same)).get_result(&mut conn).await
}

/// The locks are the strong ones: they wait for runs that are being accepted, which refer to a version, and for changes;
/// and they keep others from both.
async fn delete(
    mut conn: &AsyncPgConnection,
    id: PipelineId,
    expected: &ExpectedPipeline,
) -> QueryResult<PipelineDeletion> {
    let locked = pipelines::table.find(id.as_uuid()).select(Row::as_select()).for_update();
    let locked: Option<Row> = locked.first(&mut conn).await.optional()?;
    let Some(pipeline) = locked.map(Pipeline::from) else { return Ok(PipelineDeletion::Missing) };
    if !expected.is(&pipeline) {
        return Ok(PipelineDeletion::Unexpected);
    }
    let versions = pipeline_versions::table.filter(pipeline_versions::pipeline_id.eq(id.as_uuid()));
    versions.select(pipeline_versions::version).for_update().execute(&mut conn).await?;
    let active_states = RunState::ALL.into_iter().filter(|state| !state.is_terminal()).map(RunState::as_str);
    let active = runs::table
        .filter(runs::pipeline_id.eq(id.as_uuid()).and(runs::state.eq_any(active_states)))
        .select(runs::id);
    if diesel::select(exists(active)).get_result(&mut conn).await? {
        return Ok(PipelineDeletion::RunsActive);
    }
    // The foreign key would do it too, but look through all runs of the pipeline once for each version.
    let some = diesel::alias!(runs as some);
    let batch = some
        .filter(some.field(runs::pipeline_id).eq(id.as_uuid()))
        .select(some.field(runs::id))
        .limit(RUNS_AT_ONCE);
    let unlinked = (runs::pipeline_id.eq(None::<uuid::Uuid>), runs::pipeline_version.eq(None::<i32>));
    while diesel::update(runs::table.filter(runs::id.eq_any(batch))).set(unlinked).execute(&mut conn).await?
        > 0
    {}
    diesel::delete(pipelines::table.find(id.as_uuid())).execute(&mut conn).await?;
    Ok(PipelineDeletion::Done)
}
