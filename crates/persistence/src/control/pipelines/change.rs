//! Changing and deleting a pipeline under a lock. What may be done, `gathering-control` decides.

use diesel::dsl::exists;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{ControlError, PipelineHead, PlannedChange, PlannedDeletion};
use gathering_domain::{PipelineId, UserId};

use super::{Row, graph_digest, insert_version, refused};
use crate::db::clock::clock_timestamp;
use crate::db::error::Aborted;
use crate::db::schema::{pipeline_versions, pipelines, runs};

/// Another transaction that changes the pipeline waits for this lock, and then reads what stands; runs are accepted
/// beside it.
pub(crate) async fn update(
    mut conn: &AsyncPgConnection,
    id: PipelineId,
    by: Option<UserId>,
    change: &PlannedChange,
) -> Result<PipelineHead, Aborted<ControlError>> {
    let found = pipelines::table.find(id.as_uuid()).filter(pipelines::deleting_at.is_null());
    let locked: Option<Row> =
        found.select(Row::as_select()).for_no_key_update().first(&mut conn).await.optional()?;
    let before = with_graph(conn, locked.ok_or(Aborted::Refused(ControlError::NotFound))?).await?;
    let after = change.of(&before).map_err(Aborted::Refused)?;
    if after == before {
        return Ok(before);
    }
    let PipelineHead { pipeline, graph } = after;
    if pipeline.version != before.pipeline.version {
        insert_version(conn, id, pipeline.version, graph, by).await?;
    }
    let row: Row = diesel::update(pipelines::table.find(id.as_uuid()))
        .set((
            pipelines::name.eq(&pipeline.name),
            pipelines::description.eq(&pipeline.description),
            pipelines::enabled.eq(pipeline.enabled),
            pipelines::version.eq(pipeline.version),
            // The time at which the transaction began may be before that of a change for which it waited.
            pipelines::updated_at.eq(clock_timestamp()),
        ))
        .returning(Row::as_returning())
        .get_result(&mut conn)
        .await?;
    Ok(PipelineHead { pipeline: row.into(), graph })
}

/// The locked pipeline with the graph of its latest version. Read after the lock, by a statement of its own: the one that
/// waited for the lock does not see a version that was made meanwhile.
async fn with_graph(
    mut conn: &AsyncPgConnection,
    locked: Row,
) -> Result<PipelineHead, Aborted<ControlError>> {
    let latest = pipeline_versions::table.find((locked.id, locked.version));
    let digest: Vec<u8> = latest.select(pipeline_versions::graph_digest).first(&mut conn).await?;
    Ok(PipelineHead { pipeline: locked.into(), graph: graph_digest(&digest).map_err(refused)? })
}

/// Marks the pipeline as being deleted. The lock is the strong one: it waits for runs that are being accepted, and for
/// changes; those that come later find the mark.
pub(crate) async fn hide(
    mut conn: &AsyncPgConnection,
    id: PipelineId,
    deletion: &PlannedDeletion,
) -> Result<(), Aborted<ControlError>> {
    let found = pipelines::table.find(id.as_uuid()).filter(pipelines::deleting_at.is_null());
    let locked: Option<Row> =
        found.select(Row::as_select()).for_update().first(&mut conn).await.optional()?;
    let stands = locked.ok_or(Aborted::Refused(ControlError::NotFound))?.into();
    let active =
        runs::table.filter(runs::pipeline_id.eq(id.as_uuid()).and(runs::ended_at.is_null())).select(runs::id);
    let has_active_runs = diesel::select(exists(active)).get_result(&mut conn).await?;
    deletion.permitted(&stands, has_active_runs).map_err(Aborted::Refused)?;
    let pipeline = pipelines::table.find(id.as_uuid());
    diesel::update(pipeline).set(pipelines::deleting_at.eq(diesel::dsl::now)).execute(&mut conn).await?;
    Ok(())
}
