//! What the tests of several node types share.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use gathering_agents::Providers;
use gathering_dag_engine::testing::MemoryStore;
use gathering_dag_engine::{
    Engine, EngineSettings, Graph, JournalEvent, NewRun, NodeTypes, RunStore as _, Signals, SystemClock,
};
use gathering_domain::{Digest, InstanceId, ProjectId, RunId};
use gathering_tools::{BlockingPool, Outbound, OutboundPolicy, Toolbox, Workspace};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    ChildPipeline, ChildPipelines, NoSecrets, OpenFilesError, OutsideNode, ProjectFiles, RunPipeline,
    StartPipelineError, WithSecrets, node_specs,
};

pub(crate) fn tools(outbound: &Outbound) -> Toolbox {
    let mut tools = Toolbox::with_builtin(outbound, BlockingPool::new(2)).unwrap();
    tools.register(RunPipeline::new()).unwrap();
    tools
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

/// Drives one run of a definition until its instance releases it; returns the events of its journal.
pub(crate) async fn drive(types: NodeTypes, definition: &Value) -> Vec<JournalEvent> {
    let memory = MemoryStore::new(Arc::new(SystemClock));
    let (engine, service) =
        Engine::new(Arc::new(memory.clone()), types, Arc::new(SystemClock), EngineSettings::default());
    let stop = CancellationToken::new();
    let service = tokio::spawn(service.run(stop.clone()));
    let (id, graph, project) = (RunId::new(), Digest::of_json(definition), ProjectId::new());
    memory.ensure_graph(graph, definition).await.unwrap();
    let input = json!({});
    let new = NewRun { id, project, graph, input, priority: 5, available_at: None, timeout: None };
    memory.enqueue(new).await.unwrap();
    let claimed = memory.claim_run(InstanceId::new(), id).await.unwrap().unwrap();
    engine.drive(claimed, Signals::default()).await;
    stop.cancel();
    service.await.unwrap();
    memory.journal(id).into_iter().map(|entry| entry.record.event).collect()
}

/// The executor of a node in projects without secrets.
pub(crate) fn without_secrets<N: OutsideNode>(node: N) -> WithSecrets<N> {
    WithSecrets::new(node, Arc::new(NoSecrets))
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
