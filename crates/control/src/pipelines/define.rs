//! Defining a pipeline: its first version.

use gathering_auth::Caller;
use gathering_domain::{Digest, KeyedBody, Once, PipelineId, Pointer, ProjectId};
use serde_json::{Value, json};

use super::{DefinedPipeline, PipelineControl, SubmittedDefinition};
use crate::access::right;
use crate::{ControlError, Creation};

/// What a pipeline is created with.
#[derive(Debug, Clone, PartialEq)]
pub struct DefinePipeline {
    /// The project that it belongs to; the caller's default project if absent.
    pub project: Option<ProjectId>,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Whether it may start runs.
    pub enabled: bool,
    /// Its definition.
    pub definition: SubmittedDefinition,
    /// The client's idempotency key, with the body that it came with.
    pub once: Option<KeyedBody>,
}

impl DefinePipeline {
    /// An enabled pipeline in the caller's default project, without an idempotency key. The problems of its definition
    /// are named below `/definition`.
    pub fn new(name: impl Into<String>, definition: Value) -> Self {
        let definition = SubmittedDefinition { value: definition, at: Pointer::root().join("definition") };
        Self {
            project: None,
            name: name.into(),
            description: String::new(),
            enabled: true,
            definition,
            once: None,
        }
    }
}

/// A pipeline that is to be created. Only this crate makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewPipeline {
    /// Its id.
    pub id: PipelineId,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Whether it may start runs.
    pub enabled: bool,
    /// The graph of its version 1, stored before.
    pub graph: Digest,
    /// What makes a repeated request the same.
    pub once: Option<Once>,
}

impl PipelineControl {
    /// Creates a pipeline in its version 1.
    ///
    /// Repeats: the same idempotency key and body answer the same pipeline, as it stands then.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`] for the project; [`ControlError::Invalid`] with
    /// everything that is wrong with the definition, or if no project is named and the caller has no default project;
    /// [`Conflict::KeyReused`] or [`Conflict::CreatedAndDeleted`]. After [`ControlError::Unavailable`] it is unknown
    /// whether the pipeline was created.
    ///
    /// [`Conflict::KeyReused`]: crate::Conflict::KeyReused
    /// [`Conflict::CreatedAndDeleted`]: crate::Conflict::CreatedAndDeleted
    pub async fn define(
        &self,
        caller: &Caller,
        define: DefinePipeline,
    ) -> Result<DefinedPipeline, ControlError> {
        let project = self.projects.find_or_default::<right::Write>(caller, define.project).await?;
        let (graph, definition) = self.store_definition(*project.thing(), define.definition).await?;
        let new = NewPipeline {
            id: PipelineId::new(),
            name: define.name,
            description: define.description,
            enabled: define.enabled,
            graph,
            once: define.once.map(|body| body.about(&json!("pipeline"))),
        };
        match self.store.create_pipeline(&project, &new).await? {
            Creation::Created(head) => Ok(DefinedPipeline { pipeline: head.pipeline, definition }),
            other => self.defined(other.into_result()?).await,
        }
    }
}
