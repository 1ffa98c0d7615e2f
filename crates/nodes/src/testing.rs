//! What the tests of several node types share.

use std::path::PathBuf;

use async_trait::async_trait;
use gathering_agents::Providers;
use gathering_dag_engine::Graph;
use gathering_domain::ProjectId;
use gathering_tools::{BlockingPool, Outbound, OutboundPolicy, Toolbox, Workspace};
use serde_json::{Value, json};

use crate::{ChildPipeline, ChildPipelines, OpenFilesError, ProjectFiles, StartPipelineError, node_specs};

pub(crate) fn tools(outbound: &Outbound) -> Toolbox {
    Toolbox::with_builtin(outbound, BlockingPool::new(2)).unwrap()
}

/// The problems of one node's config, without `/nodes/0/config`.
pub(crate) fn problems(node_type: &str, config: &Value) -> Vec<String> {
    let tools = tools(&Outbound::new(OutboundPolicy::public_only()).unwrap());
    let document = json!({"nodes": [{"id": "n", "type": node_type, "config": config}]});
    match Graph::validate(&document, &node_specs(&tools, &Providers::with_scripted())) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .into_iter()
            .map(|problem| problem.to_string().replacen("/nodes/0/config", "", 1))
            .collect(),
    }
}

/// One directory for all projects.
pub(crate) struct OneDirectory(PathBuf);

impl OneDirectory {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

#[async_trait]
impl ProjectFiles for OneDirectory {
    async fn open(&self, _project: ProjectId) -> Result<Workspace, OpenFilesError> {
        let opened = Workspace::open(&self.0, BlockingPool::new(1)).await;
        opened.map_err(|error| OpenFilesError::NoWorkspace(error.into()))
    }
}

/// A project without pipelines.
pub(crate) struct NoPipelines;

#[async_trait]
impl ChildPipelines for NoPipelines {
    async fn start(&self, child: ChildPipeline) -> Result<(), StartPipelineError> {
        Err(StartPipelineError::Missing(child.pipeline))
    }
}
