//! What a failure that no edge handles ends, and what goes on. Under virtual time.

use std::sync::Arc;
use std::time::Duration;

use gathering_dag_engine::testing::StoredRun;
use gathering_dag_engine::{Graph, NodeRun, NodeState, NodeTypes, RunError, Runner, RunnerSettings};
use gathering_domain::{InstanceId, NodeId, RunState};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::bench::Bench;

fn bench() -> Bench {
    Bench::new(|types, store| types.with_map(Arc::new(store.clone())))
}

fn node(bench: &Bench, run: &StoredRun, id: &str) -> NodeRun {
    let id: NodeId = id.parse().unwrap();
    NodeRun::fold(&bench.store.journal(run.new.id)).unwrap().remove(&id).unwrap_or_default()
}

fn error(run: &StoredRun) -> RunError {
    run.end.as_ref().unwrap().result.error().unwrap().clone()
}

/// Lets a runner drive a run and its children to their end.
pub(super) async fn run_tree(bench: &Bench, definition: Value) -> StoredRun {
    let id = bench.accept(definition).await;
    let (stop, fence) = (CancellationToken::new(), CancellationToken::new());
    let runner = Runner::new(bench.engine.clone(), InstanceId::new(), RunnerSettings::default());
    let running = tokio::spawn(runner.run(stop.clone(), fence));
    while !bench.store.run(id).unwrap().state.is_terminal() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.cancel();
    running.await.unwrap();
    bench.store.run(id).unwrap()
}

/// Two branches that fail at once, one whose edge fails, and one that takes a second.
fn branches(fail_fast: bool) -> Value {
    json!({
        "fail_fast": fail_fast,
        "nodes": [
            {"id": "start", "type": "trigger"},
            {"id": "one", "type": "condition", "config": {"expression": "input.one"}},
            {"id": "two", "type": "condition", "config": {"expression": "input.two"}},
            {"id": "edge", "type": "trigger"},
            {"id": "after", "type": "parallel"},
            {"id": "slow", "type": "delay", "config": {"seconds": 1}},
            {"id": "last", "type": "parallel"},
        ],
        "edges": [
            {"from": "start", "to": "one"},
            {"from": "start", "to": "slow"},
            {"from": "slow", "to": "two"},
            {"from": "slow", "to": "edge"},
            {"from": "one", "to": "after"},
            {"from": "edge", "to": "after", "when": "input.three"},
            {"from": "slow", "to": "last"},
        ],
    })
}

#[tokio::test(start_paused = true)]
async fn without_fail_fast_other_branches_end_and_the_run_lists_every_failure() {
    let bench = bench();
    let run = bench.run(branches(false)).await;
    assert_eq!(run.state, RunState::Failed);
    let states =
        ["one", "two", "edge", "after", "slow", "last"].map(|id| node(&bench, &run, id).state.as_str());
    assert_eq!(states, ["failed", "failed", "succeeded", "skipped", "succeeded", "succeeded"]);
    let error = error(&run);
    assert_eq!((error.kind.as_str(), error.node_id.as_deref()), ("node_failed", Some("one")));
    assert!(
        error.message.starts_with("3 failures: node `one` failed: /nodes/1/config/expression: "),
        "{error:?}"
    );
    let listed =
        error.failures.iter().map(|failure| (failure.node_id.as_deref().unwrap(), failure.kind.as_str()));
    assert_eq!(
        listed.collect::<Vec<_>>(),
        [("one", "node_failed"), ("two", "node_failed"), ("edge", "expression")]
    );
}

#[tokio::test(start_paused = true)]
async fn with_fail_fast_the_others_are_cancelled_and_say_by_which_failure() {
    let bench = bench();
    let run = bench.run(branches(true)).await;
    let error = error(&run);
    assert!(error.message.starts_with("node `one` failed: ") && error.failures.is_empty(), "{error:?}");
    let slow = node(&bench, &run, "slow");
    let why = slow.failure.unwrap();
    assert_eq!((slow.state, why.kind.as_str()), (NodeState::Cancelled, "cancelled"));
    assert_eq!(why.message, "cancelled because of the failure of node `one`");
}

#[tokio::test(start_paused = true)]
async fn without_fail_fast_a_handled_failure_fails_nothing() {
    let bench = bench();
    let mut definition = branches(false);
    for (from, to) in [("one", "last"), ("two", "last"), ("edge", "last")] {
        definition["edges"].as_array_mut().unwrap().push(json!({"from": from, "to": to, "on": "failure"}));
    }
    assert_eq!(bench.run(definition).await.state, RunState::Succeeded);
}

/// Four items; those with 1 and 3 fail.
fn each(fail_fast: bool) -> Value {
    let graph = json!({"nodes": [
        {"id": "wait", "type": "delay", "config": {"seconds": 1}},
        {"id": "check", "type": "condition", "config": {"expression": "item % 2 == 0 || input.missing"}},
    ], "edges": [{"from": "wait", "to": "check"}]});
    let config =
        json!({"items": "[0, 1, 2, 3]", "max_concurrency": 1, "fail_fast": fail_fast, "graph": graph});
    json!({"nodes": [{"id": "each", "type": "map", "config": config}]})
}

#[tokio::test(start_paused = true)]
async fn a_map_without_fail_fast_executes_every_item_and_lists_those_that_failed() {
    let bench = bench();
    let run = run_tree(&bench, each(false)).await;
    let failure = node(&bench, &run, "each").failure.unwrap();
    assert_eq!(failure.kind.as_str(), "child_failed");
    assert!(failure.message.starts_with("2 of 4 items did not succeed: run "), "{failure:?}");
    let details = *failure.details.unwrap();
    let items: Vec<u64> =
        details.as_array().unwrap().iter().map(|item| item["item"].as_u64().unwrap()).collect();
    assert_eq!((items, &details[0]["error"]["node_id"]), (vec![1, 3], &json!("check")));
    assert_eq!(bench.store.runs().len(), 5);
    assert_eq!(error(&run).details.unwrap(), details, "the run says it, too");
}

#[tokio::test(start_paused = true)]
async fn a_map_with_fail_fast_ends_at_its_first_failure() {
    let bench = bench();
    let run = run_tree(&bench, each(true)).await;
    assert!(node(&bench, &run, "each").failure.unwrap().message.contains("(item 1) is failed"));
    assert_eq!(bench.store.runs().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_fail_node_ends_the_run_with_its_message_after_a_failure_was_handled() {
    let bench = bench();
    let run = bench
        .run(json!({
            "nodes": [
                {"id": "pay", "type": "condition", "config": {"expression": "input.missing"}},
                {"id": "note", "type": "parallel"},
                {"id": "stop", "type": "fail", "config": {
                    "message": "not paid: ${{ nodes.pay.error.kind }}", "details": {"state": "${{ nodes.pay.state }}"},
                }},
                {"id": "slow", "type": "delay", "config": {"seconds": 60}},
            ],
            "edges": [{"from": "pay", "to": "note", "on": "failure"}, {"from": "note", "to": "stop"}],
        }))
        .await;
    let error = error(&run);
    assert_eq!((error.kind.as_str(), error.node_id.as_deref()), ("raised", Some("stop")));
    assert_eq!(
        (error.message.as_str(), error.details),
        ("not paid: expression", Some(json!({"state": "failed"})))
    );
    assert_eq!(node(&bench, &run, "note").state, NodeState::Succeeded);
    assert_eq!(node(&bench, &run, "slow").state, NodeState::Cancelled);
}

#[test]
fn no_edge_leads_out_of_a_fail_node() {
    let definition = json!({
        "nodes": [{"id": "stop", "type": "fail", "config": {"message": "no"}}, {"id": "b", "type": "trigger"}],
        "edges": [{"from": "stop", "to": "b", "on": "failure"}],
    });
    let problems = Graph::validate(&definition, NodeTypes::builtin().specs()).unwrap_err().to_string();
    assert!(problems.contains("/edges/0/from: node `stop` ends the run"), "{problems}");
}
