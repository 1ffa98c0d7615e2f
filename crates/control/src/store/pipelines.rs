//! What is kept of pipelines and their versions.

use async_trait::async_trait;
use gathering_auth::Caller;
use gathering_domain::{Digest, PipelineId, ProjectId, UserId};

use crate::access::{Found, Scoped, right};
use crate::pipelines::{
    Definitions, NewPipeline, Pipeline, PipelineHead, PipelineTool, PlannedChange, PlannedDeletion,
    VersionsPage,
};
use crate::{ControlError, Creation};

/// Keeps pipelines and their versions. What [`ControlStore`](crate::ControlStore) says of every method holds here.
#[async_trait]
pub trait PipelineStore: Send + Sync + 'static {
    /// The pipeline with its latest graph, and the caller's role in its project; also if they are not a member.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_pipeline(
        &self,
        by: &Caller,
        pipeline: PipelineId,
    ) -> Result<Option<Found<PipelineHead>>, ControlError>;

    /// The pipeline with its latest graph, if it belongs to this project.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_pipeline_in(
        &self,
        project: ProjectId,
        pipeline: PipelineId,
    ) -> Result<Option<PipelineHead>, ControlError>;

    /// The graph of one version of a pipeline.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_version(&self, pipeline: PipelineId, version: i32) -> Result<Option<Digest>, ControlError>;

    /// At most `limit` pipelines of accounts, the newest first: those in the projects of this member (absent: all), in
    /// this project (absent: in any), and older than `before`.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_pipelines(
        &self,
        visible_to: Option<UserId>,
        project: Option<ProjectId>,
        before: Option<PipelineId>,
        limit: usize,
    ) -> Result<Vec<Pipeline>, ControlError>;

    /// At most `limit` of the enabled pipelines whose latest version is a tool, the oldest first, of projects that the user
    /// is a member of (absent: all).
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_pipeline_tools(
        &self,
        visible_to: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<PipelineTool>, ControlError>;

    /// At most `limit` versions of a pipeline, the latest first, before version `before` (absent: from the latest).
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_pipeline_versions(
        &self,
        pipeline: PipelineId,
        before: Option<i32>,
        limit: usize,
        definitions: Definitions,
    ) -> Result<VersionsPage, ControlError>;

    /// Creates a pipeline in its version 1.
    ///
    /// With `new.once` and a caller it creates one pipeline: a repeated request is answered with that one, for at least
    /// 24 hours. Of several such requests at once, one creates a pipeline.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] if the project is gone; nothing was created.
    async fn create_pipeline(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        new: &NewPipeline,
    ) -> Result<Creation<PipelineHead>, ControlError>;

    /// Changes the pipeline to what [`PlannedChange::of`] makes of it under a lock. A change that waited for another
    /// one gets the pipeline as that one left it. Sets `updated_at` to the store's time if anything is changed, and
    /// records the caller as the author of a new version.
    ///
    /// # Errors
    /// Those of [`PlannedChange::of`]; [`ControlError::NotFound`] if the pipeline is gone. Nothing was changed.
    async fn change_pipeline(
        &self,
        pipeline: &Scoped<PipelineHead, right::Write>,
        change: &PlannedChange,
    ) -> Result<PipelineHead, ControlError>;

    /// Deletes the pipeline with its versions if [`PlannedDeletion::permitted`] says so, under a lock that waits for
    /// runs that are being accepted. Its runs stay, and name no pipeline any more.
    ///
    /// # Errors
    /// Those of [`PlannedDeletion::permitted`]; [`ControlError::NotFound`] if the pipeline is gone. Nothing was deleted.
    async fn delete_pipeline(
        &self,
        pipeline: &Scoped<PipelineHead, right::Write>,
        deletion: &PlannedDeletion,
    ) -> Result<(), ControlError>;
}
