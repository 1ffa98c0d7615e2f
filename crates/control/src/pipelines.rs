//! Pipelines: a named graph in versions.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gathering_auth::Caller;
use gathering_domain::{Digest, PipelineId, ProjectId};
use serde_json::json;

use crate::access::right::Right;
use crate::access::{OfProject, Scoped};
use crate::{Conflict, ControlError, ControlStore};

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
}

impl PipelineControl {
    /// The pipelines of this store.
    pub fn new(store: Arc<dyn ControlStore>) -> Self {
        Self { store }
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
}
