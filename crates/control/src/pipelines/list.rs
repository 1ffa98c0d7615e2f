//! Pipelines and their versions, shown and listed.

use chrono::{DateTime, Utc};
use gathering_auth::Caller;
use gathering_dag_engine::ToolOffer;
use gathering_domain::{Digest, PipelineId, ProjectId, UserId};
use serde_json::{Value, json};

use super::{DefinedPipeline, Pipeline, PipelineControl};
use crate::access::{right, visible_to};
use crate::{ControlError, Scoped};

/// A version of a pipeline. It never changes.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineVersion {
    /// Its number, from 1.
    pub version: i32,
    /// Its graph.
    pub graph: Digest,
    /// Who made it, if they still have an account.
    pub created_by: Option<UserId>,
    /// When, in UTC.
    pub created_at: DateTime<Utc>,
    /// Its definition, where the list includes it.
    pub definition: Option<Value>,
}

/// Whether a list of versions has their definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Definitions {
    /// It has none.
    Omitted,
    /// It has all of them, and is shorter when they are large; at least one version is in it.
    Included,
}

/// Some versions of a pipeline, the latest first.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionsPage {
    /// The versions.
    pub items: Vec<PipelineVersion>,
    /// Whether there are older ones.
    pub has_more: bool,
}

/// How many pipelines a caller has as tools; of more, the oldest.
pub const MAX_PIPELINE_TOOLS: usize = 1000;

/// A pipeline as a tool of models.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineTool {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// What people call it.
    pub title: String,
    /// Its name and description as a tool.
    pub offer: ToolOffer,
    /// The JSON Schema of its input: of an object.
    pub input_schema: Value,
}

impl PipelineTool {
    /// The pipeline as a tool, by the fields `tool` and `input` of its latest definition; `None` if it is none.
    pub fn new(pipeline: PipelineId, title: String, tool: &Value, input: Option<&Value>) -> Option<Self> {
        let schema = input.and_then(|input| input.get("schema")).cloned();
        let input_schema = schema.unwrap_or_else(|| json!({"type": "object"}));
        Some(Self { pipeline, title, offer: ToolOffer::of_field(tool)?, input_schema })
    }
}

impl PipelineControl {
    /// The pipeline with the definition of its latest version.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn load(&self, caller: &Caller, pipeline: PipelineId) -> Result<DefinedPipeline, ControlError> {
        let head = self.find::<right::Read>(caller, pipeline).await?;
        self.defined(head.into_thing()).await
    }

    /// At most `limit` of the pipelines that the caller may see, the newest first; those of one project if it is given.
    /// `before` is the last of the previous page.
    ///
    /// # Errors
    /// [`ControlError::Forbidden`] for an API key without the scope to read, or the store's.
    pub async fn list(
        &self,
        caller: &Caller,
        project: Option<ProjectId>,
        before: Option<PipelineId>,
        limit: usize,
    ) -> Result<Vec<Pipeline>, ControlError> {
        self.store.list_pipelines(visible_to(caller)?, project, before, limit).await
    }

    /// The enabled pipelines that the caller may see and that are tools, the oldest first: at most
    /// [`MAX_PIPELINE_TOOLS`].
    ///
    /// # Errors
    /// [`ControlError::Forbidden`] for an API key without the scope to read, or the store's.
    pub async fn list_tools(&self, caller: &Caller) -> Result<Vec<PipelineTool>, ControlError> {
        self.store.list_pipeline_tools(visible_to(caller)?, MAX_PIPELINE_TOOLS).await
    }

    /// At most `limit` versions of a pipeline, the latest first; those before version `before` if it is given.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn list_versions(
        &self,
        caller: &Caller,
        pipeline: PipelineId,
        before: Option<i32>,
        limit: usize,
        definitions: Definitions,
    ) -> Result<VersionsPage, ControlError> {
        let _readable: Scoped<_, right::Read> = self.find(caller, pipeline).await?;
        self.store.list_pipeline_versions(pipeline, before, limit, definitions).await
    }
}
