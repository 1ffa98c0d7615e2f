//! Changing and deleting a pipeline, each only as its caller saw it.

use diesel::dsl::exists;
use diesel::prelude::*;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_control::Pipeline;
use gathering_domain::{Digest, PipelineId, RunState, UserId};
use serde_json::Value;

use super::{Pipelines, Row, insert_version};
use crate::control::deletions::{self, Hidden};
use crate::db::error::DatabaseError;
use crate::db::schema::{pipeline_versions, pipelines, runs};
use crate::runs::graphs;

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

    /// Deletes a pipeline with its versions if it is the one expected and all its runs have ended. Its runs stay, and name
    /// no pipeline any more.
    ///
    /// Once this returns, nobody finds the pipeline and no run of it starts; [`finish_deletions`] removes what is left.
    ///
    /// [`finish_deletions`]: crate::finish_deletions
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`]: whether it is deleted is unknown.
    pub async fn delete(
        &self,
        id: PipelineId,
        expected: &ExpectedPipeline,
    ) -> Result<PipelineDeletion, DatabaseError> {
        let deletion = {
            let mut conn = self.pool.get().await?;
            let conn: &mut AsyncPgConnection = &mut conn;
            let hidden = conn.transaction(async |conn| hide(conn, id, expected).await).await;
            hidden.map_err(|error| DatabaseError::query("deleting a pipeline", error))?
        };
        if deletion == PipelineDeletion::Done {
            deletions::begin(&self.pool, Hidden::Pipeline(id.as_uuid())).await;
        }
        Ok(deletion)
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
    let found = pipelines::table.find(id.as_uuid()).filter(pipelines::deleting_at.is_null());
    let locked: Option<Row> =
        found.select(Row::as_select()).for_no_key_update().first(&mut conn).await.optional()?;
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

/// The lock is the strong one: it waits for runs that are being accepted, and for changes; those that come later find the
/// mark.
async fn hide(
    mut conn: &AsyncPgConnection,
    id: PipelineId,
    expected: &ExpectedPipeline,
) -> QueryResult<PipelineDeletion> {
    let found = pipelines::table.find(id.as_uuid()).filter(pipelines::deleting_at.is_null());
    let locked: Option<Row> =
        found.select(Row::as_select()).for_update().first(&mut conn).await.optional()?;
    let Some(pipeline) = locked.map(Pipeline::from) else { return Ok(PipelineDeletion::Missing) };
    if !expected.is(&pipeline) {
        return Ok(PipelineDeletion::Unexpected);
    }
    let active_states = RunState::ALL.into_iter().filter(|state| !state.is_terminal()).map(RunState::as_str);
    let active = runs::table
        .filter(runs::pipeline_id.eq(id.as_uuid()).and(runs::state.eq_any(active_states)))
        .select(runs::id);
    if diesel::select(exists(active)).get_result(&mut conn).await? {
        return Ok(PipelineDeletion::RunsActive);
    }
    let pipeline = pipelines::table.find(id.as_uuid());
    diesel::update(pipeline).set(pipelines::deleting_at.eq(diesel::dsl::now)).execute(&mut conn).await?;
    Ok(PipelineDeletion::Done)
}
