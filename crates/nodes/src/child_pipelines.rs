//! The port that starts a pipeline as a child run.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_dag_engine::{ChildKind, MAX_DEPTH, NodeFailure, Parent, StartChildrenError, StoreError};
use gathering_domain::{FailureKind, PipelineId, Problems, ProjectId, RunId, with_causes};
use serde_json::Value;

/// A request to run a pipeline as a child.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildPipeline {
    /// The project of the parent; the pipeline must belong to it.
    pub project: ProjectId,
    /// The attempt that starts the child.
    pub parent: Parent,
    /// Which of its children it is: its id is [`Parent::child`] of this number.
    pub item: u32,
    /// Whether the parent waits for the child.
    pub kind: ChildKind,
    /// The pipeline.
    pub pipeline: PipelineId,
    /// The child's input.
    pub input: Value,
    /// The runs in which the same node started a child before, the latest first; see [`ChildRuns::start`].
    ///
    /// [`ChildRuns::start`]: gathering_dag_engine::ChildRuns::start
    pub earlier_runs: Vec<RunId>,
    /// The start of the call, by the engine's clock: the pipeline's time limit counts from here.
    pub now: DateTime<Utc>,
}

/// Starts pipelines as child runs. It decides whether a pipeline may run, in which version, and for how long.
#[async_trait]
pub trait ChildPipelines: Send + Sync + 'static {
    /// Accepts the child. Repeats: safe, because the child's id follows from its parent; a child that exists stays as it
    /// is.
    ///
    /// # Errors
    /// [`StartPipelineError`]; no run was started, except that [`StartPipelineError::Unavailable`] leaves it unknown.
    async fn start(&self, child: ChildPipeline) -> Result<(), StartPipelineError>;
}

/// Why a pipeline was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartPipelineError {
    /// The project has no such pipeline.
    #[error("this project has no pipeline {0}")]
    Missing(PipelineId),
    /// The pipeline is disabled.
    #[error("pipeline {0} is disabled")]
    Disabled(PipelineId),
    /// The input does not fit the pipeline's input schema.
    #[error("the input does not fit the schema of pipeline {0}: {1}")]
    InvalidInput(PipelineId, Problems),
    /// The parent is as deep as a run may be.
    #[error("runs start runs at most {MAX_DEPTH} deep")]
    TooDeep,
    /// The parent has lost its claim or has ended, so nothing may start in its name.
    #[error("the run that starts the pipeline has ended")]
    ParentEnded,
    /// The earlier child, whose work this one would take up, has not ended yet: repeat soon.
    #[error("an earlier run of the pipeline has not ended yet")]
    EarlierActive,
    /// The store is unavailable or too slow; the run may or may not be started.
    #[error("pipelines are unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store holds something that is no pipeline.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for StartPipelineError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(source) | StoreError::TimedOut(source) => Self::Unavailable(source),
            error => Self::Store(error),
        }
    }
}

impl From<StartChildrenError> for StartPipelineError {
    fn from(error: StartChildrenError) -> Self {
        match error {
            StartChildrenError::TooDeep => Self::TooDeep,
            StartChildrenError::ParentEnded => Self::ParentEnded,
            StartChildrenError::EarlierActive => Self::EarlierActive,
            StartChildrenError::Store(error) => error.into(),
        }
    }
}

impl From<StartPipelineError> for NodeFailure {
    fn from(error: StartPipelineError) -> Self {
        let message = with_causes(&error);
        match error {
            StartPipelineError::Missing(_) => NodeFailure::permanent(FailureKind::NoPipeline, message),
            StartPipelineError::Disabled(_) => NodeFailure::permanent(FailureKind::PipelineDisabled, message),
            StartPipelineError::InvalidInput(..) => {
                NodeFailure::permanent(FailureKind::InvalidInput, message)
            }
            StartPipelineError::TooDeep => NodeFailure::permanent(FailureKind::TooDeep, message),
            StartPipelineError::ParentEnded | StartPipelineError::EarlierActive => {
                NodeFailure::permanent(FailureKind::Interrupted, message)
            }
            StartPipelineError::Unavailable(_) => NodeFailure::retryable(FailureKind::Unavailable, message),
            StartPipelineError::Store(_) => NodeFailure::permanent(FailureKind::Store, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use gathering_domain::Pointer;

    use super::*;

    #[test]
    fn every_refusal_has_a_kind_of_its_own_and_only_an_unavailable_store_is_retryable() {
        let id = PipelineId::new();
        let refusals = [
            StartPipelineError::Missing(id),
            StartPipelineError::Disabled(id),
            StartPipelineError::InvalidInput(id, Problems::one(Pointer::root(), "wrong")),
            StartPipelineError::TooDeep,
            StartPipelineError::ParentEnded,
            StoreError::Unavailable("no connection".into()).into(),
            StoreError::TimedOut("no answer".into()).into(),
            StoreError::Missing { what: "a graph".to_owned() }.into(),
        ];
        let failures =
            refusals.map(NodeFailure::from).map(|failure| (failure.kind.to_string(), failure.retryable));
        let expected = [
            ("no_pipeline", false),
            ("pipeline_disabled", false),
            ("invalid_input", false),
            ("too_deep", false),
            ("interrupted", false),
            ("unavailable", true),
            ("unavailable", true),
            ("store", false),
        ];
        assert_eq!(failures, expected.map(|(kind, retryable)| (kind.to_owned(), retryable)));
    }
}
