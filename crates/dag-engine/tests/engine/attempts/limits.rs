//! Whatever sets a limit to time has it kept.

use std::sync::Arc;
use std::time::Duration;

use gathering_dag_engine::{DriveEnd, Graph, NodeFailure, NodeRun, NodeSpecs, Parent, Signals};
use gathering_domain::{RunEvent, RunId, RunState};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::bench::{Bench, message};

#[tokio::test(start_paused = true)]
async fn an_item_of_a_map_that_takes_longer_than_its_graph_may_is_timed_out() {
    let bench = Bench::new(|types, store| types.with_map(Arc::new(store.clone())));
    let graph = json!({
        "nodes": [{"id": "slow", "type": "delay", "config": {"seconds": 60}}], "timeout_seconds": 1.5
    });
    let map = json!({"id": "each", "type": "map", "config": {"items": "[1, 2]", "graph": graph}});
    let run = bench.accept(json!({"nodes": [map]})).await;
    assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Parked);
    let item = Parent { run, node: "each".parse().unwrap(), round: 0 }.child(0);
    assert_eq!(bench.drive(item, Signals::default()).await, DriveEnd::Ended(RunEvent::TimedOut));
    bench.drive(run, Signals::default()).await;
    let ended = bench.store.run(run).unwrap();
    assert_eq!(ended.state, RunState::Failed);
    assert!(message(&ended).contains("its deadline passed"), "{}", message(&ended));
}

#[tokio::test(start_paused = true)]
async fn a_delay_that_is_longer_than_its_nodes_timeout_is_timed_out_and_may_be_tried_again() {
    let bench = Bench::new(|types, _| types);
    let node = json!({
        "id": "a", "type": "delay", "config": {"seconds": 4}, "timeout_seconds": 1,
        "retry": {"max_attempts": 2, "initial_backoff_ms": 10},
    });
    let began = Instant::now();
    let run = bench.run(json!({"nodes": [node]})).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(run.state, RunState::Failed);
    assert_eq!(
        bench.kinds(run.new.id),
        [
            "node_started",
            "node_waiting",
            "node_woken",
            "node_retrying",
            "node_started",
            "node_waiting",
            "node_woken",
            "node_failed"
        ]
    );
    assert!(
        matches!(last_failure(&bench, run.new.id), Some(failure) if failure.kind.as_str() == "timed_out")
    );
}

#[tokio::test(start_paused = true)]
async fn a_delay_that_is_shorter_than_its_nodes_timeout_ends_in_its_own_time() {
    let bench = Bench::new(|types, _| types);
    let node = json!({"id": "a", "type": "delay", "config": {"seconds": 1}, "timeout_seconds": 2});
    assert_eq!(bench.run(json!({"nodes": [node]})).await.state, RunState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_timed_out_by_the_driver_of_that_time() {
    let bench = Bench::new(|types, _| types);
    let node = json!({"id": "a", "type": "delay", "config": {"seconds": 600}, "timeout_seconds": 60});
    let run = bench.accept(json!({"nodes": [node]})).await;
    assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Parked);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Ended(RunEvent::Failed));
    assert!(matches!(last_failure(&bench, run), Some(failure) if failure.kind.as_str() == "timed_out"));
}

#[tokio::test(start_paused = true)]
async fn an_approval_waits_no_longer_than_its_node_may() {
    let bench = Bench::new(|types, store| types.with_approval(Arc::new(store.clone())));
    for config in [json!({"message": "May it?", "timeout_seconds": 100}), json!({"message": "May it?"})] {
        let node = json!({
            "id": "a", "type": "approval", "config": config, "timeout_seconds": 1,
            "retry": {"max_attempts": 2, "initial_backoff_ms": 10},
        });
        let began = Instant::now();
        let run = bench.run(json!({"nodes": [node]})).await;
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        assert!(
            matches!(last_failure(&bench, run.new.id), Some(failure) if failure.kind.as_str() == "timed_out")
        );
        let n_retries = bench.kinds(run.new.id).iter().filter(|kind| **kind == "node_retrying").count();
        assert_eq!(n_retries, 1, "it may be tried again, as any node that took too long");
    }
}

fn last_failure(bench: &Bench, run: RunId) -> Option<NodeFailure> {
    NodeRun::fold(&bench.store.journal(run)).unwrap().into_values().find_map(|node| node.failure)
}

#[tokio::test(start_paused = true)]
async fn a_circuit_breaker_that_would_never_act_is_refused() {
    let breaker = json!({"failure_threshold": 1, "reset_seconds": 60});
    let graph =
        |breaker: &Value| json!({"nodes": [{"id": "a", "type": "trigger", "circuit_breaker": breaker}]});
    let map = |graph: Value| json!({"id": "each", "type": "map", "config": {"items": "[1]", "graph": graph}});
    let specs = NodeSpecs::builtin();
    let problems = |node: Value| {
        let found = Graph::validate(&json!({"nodes": [node]}), &specs).err().into_iter().flatten();
        found.map(|problem| problem.pointer.to_string()).collect::<Vec<_>>()
    };
    let place = "/nodes/0/config/graph/nodes/0";
    assert_eq!(problems(map(graph(&breaker))), [format!("{place}/circuit_breaker")]);
    let nested = map(json!({"nodes": [map(graph(&breaker))]}));
    assert_eq!(problems(nested), [format!("{place}/config/graph/nodes/0/circuit_breaker")]);
    assert_eq!(problems(map(graph(&Value::Null))), Vec::<String>::new());
}
