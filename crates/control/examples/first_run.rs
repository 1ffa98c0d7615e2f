//! A project, a pipeline and a run of it, in memory: started under the rules, driven by the engine.
//!
//! Run it with `cargo run -p gathering-control --example first_run`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;

use gathering_auth::Role;
use gathering_control::testing::{ControlFixture, MemoryControl};
use gathering_control::{DefinePipeline, Graphs, PipelineControl, RunControl, StartRun, right};
use gathering_dag_engine::{ClaimScope, Engine, EngineSettings, NodeTypes, RunStore, Signals, SystemClock};
use gathering_domain::InstanceId;
use serde_json::json;
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = MemoryControl::new();
    let types = NodeTypes::builtin();
    let graphs = Graphs::new(Arc::new(store.runs()), types.specs().clone(), 100);
    let pipelines = PipelineControl::new(Arc::new(store.clone()), graphs.clone());
    let runs = RunControl::new(Arc::new(store.clone()), graphs);

    // Ada owns a project with a pipeline, and starts a run of it.
    let ada = store.account(Role::Member).await;
    let project = store.project(&ada).await;
    let definition = json!({
        "nodes": [
            {"id": "begin", "type": "trigger"},
            {"id": "is_large", "type": "condition", "config": {"expression": "input.n > 10"}},
        ],
        "edges": [{"from": "begin", "to": "is_large"}],
        "output": "nodes.is_large.output",
    });
    let define = DefinePipeline { project: Some(project), ..DefinePipeline::new("is it large?", definition) };
    let pipeline = pipelines.define(&ada, define).await?.pipeline.id;
    let start = StartRun { input: json!({"n": 42}), ..StartRun::default() };
    let run = runs.start(&ada, pipeline, start).await?;
    println!("{}: {}, started by {}", run.id, run.state, run.trigger);

    // Bob is not a member: to him there is no such pipeline.
    let bob = store.account(Role::Member).await;
    if let Err(error) = runs.start(&bob, pipeline, StartRun::default()).await {
        println!("Bob: {error}");
    }

    // The engine drives what was accepted.
    let clock = Arc::new(SystemClock);
    let (engine, service) = Engine::new(Arc::new(store.runs()), types, clock, EngineSettings::default());
    let stop = CancellationToken::new();
    let service = tokio::spawn(service.run(stop.clone()));
    for claimed in store.runs().claim(InstanceId::new(), ClaimScope::Queue, 10).await? {
        engine.drive(claimed, Signals::default()).await;
    }
    stop.cancel();
    service.await?;

    let run = runs.find::<right::Read>(&ada, run.id).await?;
    println!("{}: {}, {}", run.id, run.state, run.output.clone().unwrap_or_default());
    Ok(())
}
