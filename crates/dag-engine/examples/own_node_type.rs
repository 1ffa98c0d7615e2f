//! Embeds the engine alone: a node type of its own, the in-memory store, one graph with a retry and a barrier.
//!
//! Run it with `cargo run -p gathering-dag-engine --example own_node_type`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;

use async_trait::async_trait;
use gathering_dag_engine::testing::MemoryStore;
use gathering_dag_engine::{
    Attempt, Engine, EngineSettings, FailureKind, Fields, NewRun, NodeExecutor, NodeFailure, NodeSpec,
    NodeTypes, Outcome, RunStore, Shape, Signals, SystemClock,
};
use gathering_domain::{Digest, InstanceId, ProjectId, RunId};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// `shout {text}`: fails on its first attempt, then returns the text in capitals.
struct Shout {
    /// A kind of failure of its own.
    hoarse: FailureKind,
}

impl NodeSpec for Shout {
    fn check(&self, config: &mut Fields<'_>) {
        config.required("text", Shape::Text);
    }
}

#[async_trait]
impl NodeExecutor for Shout {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        if attempt.attempt == 1 {
            return Err(NodeFailure::retryable(self.hoarse.clone(), "the voice failed"));
        }
        let text = attempt.config["text"].as_str().unwrap_or_default();
        Ok(Outcome::Done(json!({ "text": text.to_uppercase() })))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let definition = json!({
        "nodes": [
            {"id": "hello", "type": "shout", "config": {"text": "hello"}, "retry": {"max_attempts": 3, "initial_backoff_ms": 10}},
            {"id": "name", "type": "shout", "config": {"text": "${{ input.name }}"}, "retry": {"max_attempts": 3, "initial_backoff_ms": 10}},
            {"id": "both", "type": "parallel", "join": "all"},
        ],
        "edges": [{"from": "hello", "to": "both"}, {"from": "name", "to": "both"}],
        "output": "nodes.both.output.hello.text + ', ' + nodes.both.output.name.text",
    });

    // The store of the runs: memory here, PostgreSQL in the server, in your service anything that implements `RunStore`.
    let clock = Arc::new(SystemClock);
    let store = MemoryStore::new(clock.clone());
    let types = NodeTypes::builtin().with("shout", Shout { hoarse: "hoarse".parse()? });
    let (engine, service) = Engine::new(Arc::new(store.clone()), types, clock, EngineSettings::default());
    let stop = CancellationToken::new();
    let service = tokio::spawn(service.run(stop.clone()));

    let graph = Digest::of_json(&definition);
    store.ensure_graph(graph, &definition).await?;
    let run = RunId::new();
    let input = json!({"name": "world"});
    let project = ProjectId::new();
    store
        .enqueue(NewRun { id: run, project, graph, input, priority: 5, available_at: None, timeout: None })
        .await?;
    if let Some(claimed) = store.claim_run(InstanceId::new(), run).await? {
        let end = engine.drive(claimed, Signals::default()).await;
        println!("{end:?}: {:?}", store.run(run).and_then(|run| run.end));
    }
    for entry in store.journal(run) {
        let node = entry.record.node.map(|node| node.to_string()).unwrap_or_default();
        println!("{:>2} {node:<6} attempt {} {}", entry.seq, entry.record.attempt, entry.record.event.kind());
    }
    stop.cancel();
    service.await?;
    Ok(())
}
