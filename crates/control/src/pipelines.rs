//! Pipelines: a named graph in versions.

mod change;
mod define;
mod delete;
mod list;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gathering_auth::Caller;
use gathering_domain::{Digest, PipelineId, Pointer, ProjectId};
use serde_json::{Value, json};

use crate::access::right::Right;
use crate::access::{OfProject, Scoped};
use crate::graphs::Graphs;
use crate::projects::ProjectControl;
use crate::{Conflict, ControlError, ControlStore, ExpectedRevision};

pub use change::{ChangePipeline, PlannedChange};
pub use define::{DefinePipeline, NewPipeline};
pub use delete::PlannedDeletion;
pub use list::{Definitions, MAX_PIPELINE_TOOLS, PipelineTool, PipelineVersion, VersionsPage};

/// How much of a digest is in a revision: 64 bits, as nobody gains from making two of them equal.
const REVISION_DIGITS: usize = 16;

/// A pipeline as it stands, without its definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// Its id.
    pub id: PipelineId,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Whether it may start runs.
    pub enabled: bool,
    /// The latest version, from 1.
    pub version: i32,
    /// When it was created, in UTC.
    pub created_at: DateTime<Utc>,
    /// When it was last changed, in UTC.
    pub updated_at: DateTime<Utc>,
}

impl Pipeline {
    /// Whether the pipeline may start runs.
    pub(crate) fn check_enabled(&self) -> Result<(), ControlError> {
        if self.enabled { Ok(()) } else { Err(Conflict::PipelineDisabled.into()) }
    }

    /// Whether the pipeline is the expected one.
    fn check_expected(&self, expected: &ExpectedRevision) -> Result<(), ControlError> {
        if expected.includes(&self.revision()) { Ok(()) } else { Err(ControlError::PipelineChanged(self.id)) }
    }

    /// What tells the pipeline as it stands from every other state of it, its definition included: 18 or more visible
    /// ASCII characters, the version first.
    pub fn revision(&self) -> String {
        let Self { id, project, name, description, enabled, version, created_at, updated_at } = self;
        // A version's definition never changes, so its number stands for it.
        let whole = json!([id, project, name, description, enabled, version, created_at, updated_at]);
        let digest = Digest::of_json(&whole).to_string();
        format!("{version}.{}", &digest[..REVISION_DIGITS])
    }
}

/// A pipeline with the graph of its latest version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineHead {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// The graph of its latest version.
    pub graph: Digest,
}

/// A pipeline with the definition of its latest version.
#[derive(Debug, Clone, PartialEq)]
pub struct DefinedPipeline {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// The definition, as its author wrote it.
    pub definition: Value,
}

/// A definition in a request.
#[derive(Debug, Clone, PartialEq)]
pub struct SubmittedDefinition {
    /// The definition, not checked yet.
    pub value: Value,
    /// Where it stands in the request. Its problems are named there.
    pub at: Pointer,
}

impl OfProject for Pipeline {
    fn project(&self) -> ProjectId {
        self.project
    }
}

impl OfProject for PipelineHead {
    fn project(&self) -> ProjectId {
        self.pipeline.project
    }
}

/// What may be done with pipelines. Cloning is cheap and shares the store.
#[derive(Clone)]
pub struct PipelineControl {
    store: Arc<dyn ControlStore>,
    projects: ProjectControl,
    graphs: Graphs,
}

impl PipelineControl {
    /// The pipelines of this store, whose graphs are these.
    pub fn new(store: Arc<dyn ControlStore>, graphs: Graphs) -> Self {
        let projects = ProjectControl::new(Arc::clone(&store));
        Self { store, projects, graphs }
    }

    /// The pipeline, if the caller may do `R` with it.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn find<R: Right>(
        &self,
        caller: &Caller,
        pipeline: PipelineId,
    ) -> Result<Scoped<PipelineHead, R>, ControlError> {
        Scoped::check(caller, self.store.find_pipeline(caller, pipeline).await?)
    }

    /// Checks a definition and stores its graph, which no pipeline has yet.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] with everything that is wrong with the definition, or the store's.
    async fn store_definition(
        &self,
        project: ProjectId,
        submitted: SubmittedDefinition,
    ) -> Result<(Digest, Value), ControlError> {
        let (definition, checked) = self.graphs.check_in(project, submitted.value).await?;
        checked.map_err(|problems| ControlError::Invalid(problems.below(&submitted.at)))?;
        Ok((self.graphs.ensure(&definition).await?, definition))
    }

    /// The pipeline with the definition of its latest version.
    async fn defined(&self, head: PipelineHead) -> Result<DefinedPipeline, ControlError> {
        let definition = self.graphs.store().load_graph(head.graph).await?;
        Ok(DefinedPipeline { pipeline: head.pipeline, definition })
    }
}
