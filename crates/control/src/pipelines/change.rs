//! Changing a pipeline, if it is still the one that the caller saw.

use gathering_auth::Caller;
use gathering_domain::{Digest, PipelineId};

use super::{DefinedPipeline, PipelineControl, PipelineHead, SubmittedDefinition};
use crate::access::right;
use crate::{ControlError, ExpectedRevision};

/// What to change of a pipeline; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChangePipeline {
    /// What people call it.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it may start runs.
    pub enabled: Option<bool>,
    /// Its definition.
    pub definition: Option<SubmittedDefinition>,
}

/// A change that is to be made. Only this crate makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedChange {
    expected: ExpectedRevision,
    name: Option<String>,
    description: Option<String>,
    enabled: Option<bool>,
    /// Stored before.
    graph: Option<Digest>,
}

impl PlannedChange {
    /// The pipeline as the change leaves it, with `updated_at` as before: the store's clock decides that. Another graph
    /// than the latest makes a new version; where nothing changes, the pipeline is the same.
    ///
    /// # Errors
    /// [`ControlError::PipelineChanged`] if it is not the expected one.
    pub fn of(&self, before: &PipelineHead) -> Result<PipelineHead, ControlError> {
        before.pipeline.check_expected(&self.expected)?;
        let mut after = before.clone();
        if let Some(graph) = self.graph.filter(|graph| *graph != before.graph) {
            after.graph = graph;
            after.pipeline.version = before.pipeline.version.saturating_add(1);
        }
        let pipeline = &mut after.pipeline;
        pipeline.name.clone_from(self.name.as_ref().unwrap_or(&before.pipeline.name));
        pipeline.description.clone_from(self.description.as_ref().unwrap_or(&before.pipeline.description));
        pipeline.enabled = self.enabled.unwrap_or(pipeline.enabled);
        Ok(after)
    }
}

impl PipelineControl {
    /// Changes a pipeline if it is the expected one. Another definition than the latest makes a new version; runs keep
    /// theirs. Where everything is as requested already, nothing is written.
    ///
    /// Of several changes at once that expect the same revision, one is made.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`]; [`ControlError::Invalid`] with everything that is
    /// wrong with the definition; [`ControlError::PipelineChanged`]. After [`ControlError::Unavailable`] it is unknown
    /// whether the pipeline is changed.
    pub async fn change(
        &self,
        caller: &Caller,
        pipeline: PipelineId,
        expected: ExpectedRevision,
        change: ChangePipeline,
    ) -> Result<DefinedPipeline, ControlError> {
        let head = self.find::<right::Write>(caller, pipeline).await?;
        let stored = match change.definition {
            Some(definition) => Some(self.store_definition(head.pipeline.project, definition).await?),
            None => None,
        };
        let (graph, definition) = stored.unzip();
        let ChangePipeline { name, description, enabled, .. } = change;
        let planned = PlannedChange { expected, name, description, enabled, graph };
        let changed = self.store.change_pipeline(&head, &planned).await?;
        match definition {
            Some(definition) => Ok(DefinedPipeline { pipeline: changed.pipeline, definition }),
            None => self.defined(changed).await,
        }
    }
}
