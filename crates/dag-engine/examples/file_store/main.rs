//! The engine on a store of your own: runs are kept in a file and survive `kill -9`.
//!
//! `cargo run -p gathering-dag-engine --example file_store -- /tmp/runs` accepts a run of five nodes and drives it. Kill it
//! meanwhile and start it again: it continues after the last node that ended. `store` is all that another storage needs;
//! `tests/file_store.rs` runs the cases that every store must pass against it.

#![expect(clippy::print_stdout, reason = "an example prints its progress")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gathering_dag_engine::{
    Attempt, Engine, EngineSettings, Fields, NewRun, NodeExecutor, NodeFailure, NodeSpec, NodeTypes, Outcome,
    RunStore, Runner, RunnerSettings, Shape, SystemClock,
};
use gathering_domain::{Digest, InstanceId, ProjectId, RunId};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::store::FileStore;

mod log;
mod store;

/// `step {takes_seconds}`: work that takes its time.
struct Step;

impl NodeSpec for Step {
    fn check(&self, config: &mut Fields<'_>) {
        config.required("takes_seconds", Shape::Number(0.0, 60.0));
    }
}

#[async_trait]
impl NodeExecutor for Step {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        println!("{} begins {}, attempt {}", attempt.run, attempt.node, attempt.attempt);
        let seconds = attempt.config["takes_seconds"].as_f64().unwrap_or_default();
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        println!("{} ended {}", attempt.run, attempt.node);
        Ok(Outcome::Done(json!(attempt.node.as_str())))
    }
}

fn five_steps() -> Value {
    let step = |n: usize| json!({"id": format!("step{n}"), "type": "step", "config": {"takes_seconds": 1}});
    let edge = |n: usize| json!({"from": format!("step{n}"), "to": format!("step{}", n + 1)});
    json!({
        "nodes": (1..=5).map(step).collect::<Vec<_>>(),
        "edges": (1..5).map(edge).collect::<Vec<_>>(),
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory =
        std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("gathering-runs"), PathBuf::from);
    let clock = Arc::new(SystemClock);
    let store = FileStore::open(&directory, clock.clone())?;
    let types = NodeTypes::builtin().with("step", Step);
    let (engine, service) = Engine::new(Arc::new(store.clone()), types, clock, EngineSettings::default());

    if store.list_runs().await?.iter().all(|(_, state, _)| state.is_terminal()) {
        let (definition, id) = (five_steps(), RunId::new());
        let graph = Digest::of_json(&definition);
        store.ensure_graph(graph, &definition).await?;
        let (project, input) = (ProjectId::new(), json!({}));
        store
            .enqueue(NewRun { id, project, graph, input, priority: 5, available_at: None, timeout: None })
            .await?;
        println!("{id} is accepted; from now on it cannot get lost");
    } else {
        println!("resuming a run that has not ended");
    }

    let instance = InstanceId::new();
    let runner = Runner::new(engine, instance, RunnerSettings::default());
    let (stop, fence, stop_service) = Default::default();
    let service = tokio::spawn(service.run(CancellationToken::clone(&stop_service)));
    let runner = tokio::spawn(runner.run(CancellationToken::clone(&stop), fence));
    while store.list_runs().await?.iter().any(|(_, state, _)| !state.is_terminal()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.cancel();
    runner.await?;
    stop_service.cancel();
    service.await?;
    store.bury(instance);
    for (id, state, output) in store.list_runs().await? {
        println!("{id} {state} {}", output.unwrap_or_default());
    }
    Ok(())
}
