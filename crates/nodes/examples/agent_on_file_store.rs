//! An agent whose run lives in a file: no database, no server.
//!
//! `cargo run -p gathering-nodes --example agent_on_file_store -- /tmp/agent` accepts a run of one agent node, drives it to
//! its end and prints its journal. Kill it in between and start it again: the agent continues after its last recorded
//! step, and repeats no call of the model or of a tool that was recorded.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use gathering_agents::Providers;
use gathering_dag_engine::{
    Engine, EngineSettings, NewRun, NodeTypes, RunStore, RunnerSettings, Signals, StoreError, SystemClock,
};
use gathering_domain::{Digest, InstanceId, ProjectId, RunId};
use gathering_nodes::{AgentNode, AgentSpec, NoSecrets, OpenFilesError, ProjectFiles, WithSecrets};
use gathering_tools::{BlockingPool, Outbound, OutboundPolicy, Toolbox, Workspace};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::store::FileStore;

#[path = "../../dag-engine/examples/file_store/log.rs"]
mod log;
#[path = "../../dag-engine/examples/file_store/store.rs"]
mod store;

/// All projects share one directory here.
struct OneDirectory(PathBuf, BlockingPool);

#[async_trait]
impl ProjectFiles for OneDirectory {
    async fn open(&self, _project: ProjectId) -> Result<Workspace, OpenFilesError> {
        let opened = Workspace::open(&self.0, self.1.clone()).await;
        opened.map_err(|error| OpenFilesError::NoWorkspace(error.into()))
    }
}

/// An agent that writes its answer to `answer.md`. The model is a script; name another provider to ask a real one.
fn definition() -> Value {
    let write = r#"scripted: call write_file {"path": "answer.md", "content": "$answer"}"#;
    let agent = json!({
        "provider": "scripted",
        "instructions": format!("scripted: keywords\n{write}"),
        "tools": ["write_file"],
    });
    let config = json!({"agent": agent, "prompt": "${{ input.text }}"});
    json!({"nodes": [{"id": "writer", "type": "agent", "config": config}]})
}

/// The run of an earlier start that has not ended, or a new one.
async fn unfinished_run(store: &FileStore) -> Result<RunId, StoreError> {
    for (run, state, _) in store.list_runs().await? {
        if !state.is_terminal() {
            return Ok(run);
        }
    }
    let (definition, id) = (definition(), RunId::new());
    let graph = Digest::of_json(&definition);
    store.ensure_graph(graph, &definition).await?;
    let (project, input) =
        (ProjectId::new(), json!({"text": "The moon makes the tides. Tides follow the moon."}));
    let run = NewRun { id, project, graph, input, priority: 5, available_at: None, timeout: None };
    store.enqueue(run).await?;
    Ok(id)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory =
        std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("gathering-agent"), PathBuf::from);
    let clock = Arc::new(SystemClock);
    let store = FileStore::open(&directory.join("runs"), clock.clone())?;

    let blocking = BlockingPool::new(2);
    let outbound = Outbound::new(OutboundPolicy::public_only())?;
    let tools = Toolbox::with_builtin(&outbound, blocking.clone())?;
    let files = Arc::new(OneDirectory(directory.join("files"), blocking));
    let providers = Providers::with_scripted();
    let agent = AgentNode::new(providers.clone(), tools.clone(), files);
    let agent = WithSecrets::new(agent, Arc::new(NoSecrets));
    let types = NodeTypes::builtin().with_parts("agent", AgentSpec::new(providers, tools), agent);
    let (engine, service) = Engine::new(Arc::new(store.clone()), types, clock, EngineSettings::default());
    let stop = CancellationToken::new();
    let service = tokio::spawn(service.run(stop.clone()));

    // This process holds the store alone, so the owners that an earlier one left in it are dead.
    store.recover_dead_instances(RunnerSettings::default().max_recoveries).await?;
    let run = unfinished_run(&store).await?;
    let instance = InstanceId::new();
    if let Some(claimed) = store.claim_run(instance, run).await? {
        let end = engine.drive(claimed, Signals::default()).await;
        println!("{run}: {end:?}");
    }
    stop.cancel();
    service.await?;
    store.bury(instance);
    for entry in store.load_journal(run, 0, 1000).await? {
        let payload = entry.record.event.payload().unwrap_or_default();
        println!("{:>2} {:<14} {payload}", entry.seq, entry.record.event.kind());
    }
    println!("{}", std::fs::read_to_string(directory.join("files/answer.md"))?);
    Ok(())
}
