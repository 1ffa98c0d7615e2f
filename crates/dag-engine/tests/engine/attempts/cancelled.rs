//! A child run that is cancelled says which run above it caused that, and how.

use std::sync::Arc;
use std::time::Duration;

use gathering_dag_engine::testing::{MemoryStore, StoredRun};
use gathering_dag_engine::{Attempt, JournalEvent, Parent};
use gathering_domain::{RunId, RunState};
use serde_json::{Value, json};

use super::bench::{Bench, Do, finish, message};

/// Items that wait for a long time, one driven and one parked.
fn items() -> Value {
    let nodes = json!([
        {"id": "hang", "type": "hang"},
        {"id": "rest", "type": "delay", "config": {"seconds": 3600}},
        {"id": "break", "type": "fail", "config": {"message": "it broke"}},
    ]);
    let mut graph = json!({"nodes": [{"id": "begin", "type": "trigger"}], "edges": []});
    for node in nodes.as_array().unwrap() {
        let when = format!("item == '{}'", node["id"].as_str().unwrap());
        graph["edges"].as_array_mut().unwrap().push(json!({"from": "begin", "to": node["id"], "when": when}));
        graph["nodes"].as_array_mut().unwrap().push(node.clone());
    }
    json!({"id": "each", "type": "map", "config": {"items": "input.items", "graph": graph}})
}

fn bench() -> Bench {
    let hangs = Do(|_: Attempt| std::future::pending());
    Bench::new(|types, store: &MemoryStore| types.with("hang", hangs).with_map(Arc::new(store.clone())))
}

/// The children of a run that has ended, once they have ended as well.
async fn children(bench: &Bench, run: RunId, items: std::ops::Range<u32>) -> Vec<StoredRun> {
    let parent = Parent { run, node: "each".parse().unwrap(), round: 0 };
    let mut children = Vec::new();
    for item in items {
        children.push(finish(bench, parent.child(item)).await);
    }
    children
}

#[tokio::test(start_paused = true)]
async fn a_child_whose_parent_failed_says_so() {
    let bench = bench();
    let definition = json!({"nodes": [
        items(),
        {"id": "wait", "type": "delay", "config": {"seconds": 10}},
        {"id": "break", "type": "fail", "config": {"message": "it broke"}},
    ], "edges": [{"from": "wait", "to": "break"}]});
    let run = bench.accept_with(definition, json!({"items": ["hang", "rest"]})).await;
    assert_eq!(finish(&bench, run).await.state, RunState::Failed);
    for child in children(&bench, run, 0..2).await {
        assert_eq!(child.state, RunState::Cancelled);
        assert_eq!(message(&child), format!("cancelled because run {run} failed"));
        let said = bench.store.journal(child.new.id).into_iter().find_map(|entry| match entry.record.event {
            JournalEvent::Cancelled(failure) => Some(failure.message),
            _ => None,
        });
        assert_eq!(said, Some(format!("the run was cancelled because run {run} failed")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_whose_sibling_failed_says_which_node_gave_up() {
    let bench = bench();
    let definition = json!({"nodes": [items()]});
    let run = bench.accept_with(definition, json!({"items": ["hang", "rest", "break"]})).await;
    assert_eq!(finish(&bench, run).await.state, RunState::Failed);
    for child in children(&bench, run, 0..2).await {
        let expected = format!("cancelled because node `each` of run {run} no longer waits for it");
        assert_eq!((child.state, message(&child)), (RunState::Cancelled, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_a_person_cancels_says_that_it_was_asked_to() {
    let bench = bench();
    let run = bench.accept_with(json!({"nodes": [items()]}), json!({"items": ["rest"]})).await;
    let store = bench.store.clone();
    let cancel = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        store.request_cancel(run);
    };
    let (ended, ()) = tokio::join!(finish(&bench, run), cancel);
    assert_eq!((ended.state, message(&ended)), (RunState::Cancelled, "cancelled on request".to_owned()));
    let child = children(&bench, run, 0..1).await.remove(0);
    assert_eq!(message(&child), format!("cancelled because run {run} was cancelled"));
}
