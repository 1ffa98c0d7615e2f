//! Where node types find what is not theirs: files, runs that they start, decisions, pipelines, budgets.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gathering_dag_engine::{
    BudgetLedger, ChildKind, ChildRuns, ChildSummary, Decision, Decisions, NewChild, NodeFailure, Parent,
    StartChildrenError, StoreError,
};
use gathering_domain::{Digest, NodeId, PipelineId, ProjectId, RunId};
use gathering_tools::Workspace;
use serde_json::Value;

/// Where the files of a project are.
#[async_trait]
pub trait ProjectFiles: Send + Sync {
    /// Opens the workspace of a project.
    ///
    /// # Errors
    /// [`NodeFailure`], which says whether trying again may help.
    async fn open(&self, project: ProjectId) -> Result<Workspace, NodeFailure>;
}

/// What a run of a pipeline needs to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipelineToRun {
    /// The latest version.
    pub version: i32,
    /// Its definition.
    pub graph: Digest,
    /// How long a run of it may take.
    pub timeout: Option<Duration>,
}

/// Where the pipelines of a project are.
#[async_trait]
pub trait ProjectPipelines: Send + Sync {
    /// The pipeline, if it is one of this project and enabled.
    ///
    /// # Errors
    /// [`NodeFailure`], which says whether trying again may help.
    async fn find(&self, project: ProjectId, pipeline: PipelineId) -> Result<PipelineToRun, NodeFailure>;
}

/// Everything that node types need of where they are executed. Cloning is cheap.
#[derive(Clone)]
pub struct NodeServices {
    /// The projects' files.
    pub files: Arc<dyn ProjectFiles>,
    /// The projects' pipelines.
    pub pipelines: Arc<dyn ProjectPipelines>,
    /// The runs that nodes start.
    pub children: Arc<dyn ChildRuns>,
    /// What people decided.
    pub decisions: Arc<dyn Decisions>,
    /// What calls may use up; without them there is no bound.
    pub budgets: Option<Arc<dyn BudgetLedger>>,
}

impl NodeServices {
    /// Nothing anywhere: for validating definitions where none are executed.
    pub fn none() -> Self {
        let nowhere = Arc::new(Nowhere);
        Self {
            files: Arc::clone(&nowhere) as _,
            pipelines: Arc::clone(&nowhere) as _,
            children: Arc::clone(&nowhere) as _,
            decisions: nowhere,
            budgets: None,
        }
    }
}

struct Nowhere;

impl Nowhere {
    fn missing(what: &str) -> StoreError {
        StoreError::Missing { what: what.to_owned() }
    }
}

#[async_trait]
impl ProjectFiles for Nowhere {
    async fn open(&self, _project: ProjectId) -> Result<Workspace, NodeFailure> {
        Err(NodeFailure::permanent("no_workspace", "this project has no files here"))
    }
}

#[async_trait]
impl ProjectPipelines for Nowhere {
    async fn find(&self, _project: ProjectId, _pipeline: PipelineId) -> Result<PipelineToRun, NodeFailure> {
        Err(NodeFailure::permanent("no_pipeline", "there are no pipelines here"))
    }
}

#[async_trait]
impl ChildRuns for Nowhere {
    async fn ensure_graph(&self, _digest: Digest, _definition: &Value) -> Result<(), StoreError> {
        Err(Self::missing("the place for graphs"))
    }

    async fn start(&self, _: &Parent, _: ChildKind, _: Vec<NewChild>) -> Result<(), StartChildrenError> {
        Err(Self::missing("the place for runs").into())
    }

    async fn summarize(&self, _parent: &Parent) -> Result<ChildSummary, StoreError> {
        Ok(ChildSummary::default())
    }

    async fn load_outputs(&self, _: &Parent, _: u32, _: usize) -> Result<Vec<(u32, Value)>, StoreError> {
        Ok(Vec::new())
    }

    async fn cancel(&self, _parent: &Parent) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl Decisions for Nowhere {
    async fn find_decision(&self, _run: RunId, _node: &NodeId) -> Result<Option<Decision>, StoreError> {
        Ok(None)
    }
}
