//! Whatever sets a limit to time has it kept.

use std::sync::Arc;

use gathering_dag_engine::{MapNode, Parent, Signals};
use gathering_domain::{RunEvent, RunState};
use serde_json::json;

use crate::bench::{Bench, message};
use gathering_dag_engine::DriveEnd;

#[tokio::test(start_paused = true)]
async fn an_item_of_a_map_that_takes_longer_than_its_graph_may_is_timed_out() {
    let bench = Bench::new(|types, store| types.with("map", MapNode::new(Arc::new(store.clone()))));
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
