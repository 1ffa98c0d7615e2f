//! The port for pipelines. What its methods do is in the file of their noun.

use async_trait::async_trait;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use gathering_auth::Caller;
use gathering_control::{
    ControlError, Creation, Definitions, Found, NewPipeline, Pipeline, PipelineHead, PipelineStore,
    PipelineTool, PlannedChange, PlannedDeletion, Scoped, VersionsPage, right,
};
use gathering_domain::{Digest, PipelineId, ProjectId, UserId};

use crate::control::deletions::{self, Hidden};
use crate::control::pipelines;
use crate::control::pipelines::{change, versions};
use crate::control::store::PgControlStore;

#[async_trait]
impl PipelineStore for PgControlStore {
    async fn find_pipeline(
        &self,
        by: &Caller,
        pipeline: PipelineId,
    ) -> Result<Option<Found<PipelineHead>>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(pipelines::find_as(&conn, pipeline, by.user).await?)
    }

    async fn find_pipeline_in(
        &self,
        project: ProjectId,
        pipeline: PipelineId,
    ) -> Result<Option<PipelineHead>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(pipelines::find_in(&conn, project, pipeline).await?)
    }

    async fn find_version(&self, pipeline: PipelineId, version: i32) -> Result<Option<Digest>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(pipelines::find_version(&conn, pipeline, version).await?)
    }

    async fn list_pipelines(
        &self,
        visible_to: Option<UserId>,
        project: Option<ProjectId>,
        before: Option<PipelineId>,
        limit: usize,
    ) -> Result<Vec<Pipeline>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(pipelines::list(&conn, visible_to, project, before, limit).await?)
    }

    async fn list_pipeline_tools(
        &self,
        visible_to: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<PipelineTool>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(pipelines::list_tools(&conn, visible_to, limit).await?)
    }

    async fn list_pipeline_versions(
        &self,
        pipeline: PipelineId,
        before: Option<i32>,
        limit: usize,
        definitions: Definitions,
    ) -> Result<VersionsPage, ControlError> {
        let conn = self.pool.get().await?;
        Ok(versions::list(&conn, pipeline, before, limit, definitions).await?)
    }

    async fn create_pipeline(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        new: &NewPipeline,
    ) -> Result<Creation<PipelineHead>, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let (project, by) = (*project.thing(), project.user());
        let created = conn.transaction(async |conn| pipelines::create(conn, project, by, new).await).await;
        created.map_err(|aborted| aborted.into_error("creating a pipeline"))
    }

    async fn change_pipeline(
        &self,
        pipeline: &Scoped<PipelineHead, right::Write>,
        change: &PlannedChange,
    ) -> Result<PipelineHead, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let (id, by) = (pipeline.pipeline.id, pipeline.user());
        let changed = conn.transaction(async |conn| change::update(conn, id, by, change).await).await;
        changed.map_err(|aborted| aborted.into_error("changing a pipeline"))
    }

    async fn delete_pipeline(
        &self,
        pipeline: &Scoped<PipelineHead, right::Write>,
        deletion: &PlannedDeletion,
    ) -> Result<(), ControlError> {
        let id = pipeline.pipeline.id;
        {
            let mut conn = self.pool.get().await?;
            let conn: &mut AsyncPgConnection = &mut conn;
            let hidden = conn.transaction(async |conn| change::hide(conn, id, deletion).await).await;
            hidden.map_err(|aborted| aborted.into_error("deleting a pipeline"))?;
        }
        deletions::begin(&self.pool, Hidden::Pipeline(id.as_uuid())).await;
        Ok(())
    }
}
