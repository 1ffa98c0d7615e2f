//! Expressions over maps decide and list alike each time: keys come in one order.

use std::collections::BTreeSet;
use std::sync::Arc;

use gathering_dag_engine::{NodeRun, NodeState, Runner, RunnerSettings};
use gathering_domain::{InstanceId, RunState};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::bench::Bench;

/// Names, not sorted.
fn servers() -> Value {
    json!({"kappa": 1, "alpha": 2, "zeta": 3, "eta": 4, "beta": 5, "omega": 6, "mu": 7, "delta": 8})
}

#[tokio::test(start_paused = true)]
async fn of_a_condition_over_a_map_and_its_negation_exactly_one_is_taken() {
    let bench = Bench::new(|types, _| types);
    for _ in 0..20 {
        let is_early = "input.m.map(k, k)[0] in ['alpha', 'beta', 'delta', 'eta']";
        let definition = json!({
            "nodes": [
                {"id": "start", "type": "trigger"},
                {"id": "early", "type": "parallel"},
                {"id": "late", "type": "parallel"},
            ],
            "edges": [
                {"from": "start", "to": "early", "when": is_early},
                {"from": "start", "to": "late", "when": format!("!({is_early})")},
            ],
        });
        let run = bench.accept_with(definition, json!({ "m": servers() })).await;
        bench.drive(run, Default::default()).await;
        let nodes = NodeRun::fold(&bench.store.journal(run)).unwrap();
        let state = |id: &str| nodes[&id.parse().unwrap()].state;
        assert_eq!((state("early"), state("late")), (NodeState::Succeeded, NodeState::Skipped));
    }
}

#[tokio::test(start_paused = true)]
async fn a_map_node_over_the_keys_of_a_map_runs_each_key_once() {
    let bench = Bench::new(|types, store| types.with_map(Arc::new(store.clone())));
    let graph = json!({"nodes": [{"id": "n", "type": "delay", "config": {"seconds": 1}}], "output": "item"});
    let config = json!({"items": "input.servers.map(n, n)", "max_concurrency": 1, "graph": graph});
    let definition = json!({"nodes": [{"id": "each", "type": "map", "config": config}]});
    let run = bench.accept_with(definition, json!({ "servers": servers() })).await;
    let (stop, fence) = (CancellationToken::new(), CancellationToken::new());
    let runner = Runner::new(bench.engine.clone(), InstanceId::new(), RunnerSettings::default());
    let running = tokio::spawn(runner.run(stop.clone(), fence));
    while !bench.store.run(run).unwrap().state.is_terminal() {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    stop.cancel();
    running.await.unwrap();
    let run = bench.store.run(run).unwrap();
    assert_eq!(run.state, RunState::Succeeded);
    let done = super::bench::output(&run)["each"].clone();
    let names: BTreeSet<String> = servers().as_object().unwrap().keys().cloned().collect();
    assert_eq!(done, json!(names), "each once, and sorted");
}
