//! Failures of nodes, edges and expressions: what handles them, and what the run says if nothing does. Under virtual time.

use std::sync::Arc;

use gathering_dag_engine::testing::StoredRun;
use gathering_dag_engine::{Graph, JournalEntry, JournalEvent, NodeRun, NodeState, NodeTypes, RunError};
use gathering_domain::{NodeId, RunState};
use serde_json::{Value, json};

use super::bench::{Bench, output};
use super::fail_fast::run_tree;

fn bench() -> Bench {
    Bench::new(|types, _| types)
}

fn node(bench: &Bench, run: &StoredRun, id: &str) -> NodeRun {
    let id: NodeId = id.parse().unwrap();
    NodeRun::fold(&bench.store.journal(run.new.id)).unwrap().remove(&id).unwrap_or_default()
}

fn error(run: &StoredRun) -> RunError {
    run.end.as_ref().unwrap().result.error().unwrap().clone()
}

/// `a` leads to `b` and `c`; the condition of the edge to `c`, `/edges/1/when`, has no value.
fn broken(more_edges: &[Value], output: &str) -> Value {
    let mut edges = vec![
        json!({"from": "a", "to": "b"}),
        json!({"from": "a", "to": "c", "when": "nodes.a.output.missing > 1"}),
    ];
    edges.extend_from_slice(more_edges);
    let nodes = ["a", "b", "c", "d"].map(|id| json!({"id": id, "type": "trigger"}));
    let n = if more_edges.is_empty() { 3 } else { 4 };
    json!({"nodes": &nodes[..n], "edges": edges, "output": output})
}

#[tokio::test(start_paused = true)]
async fn an_edge_without_a_decision_fails_the_run_and_names_its_place() {
    let bench = bench();
    let run = bench.run(broken(&[], "1")).await;
    assert_eq!(run.state, RunState::Failed);
    let error = error(&run);
    assert_eq!((error.kind.as_str(), error.node_id.as_deref()), ("expression", Some("a")));
    let start = "/edges/1/when (from `a` to `c`): expression `nodes.a.output.missing > 1`: ";
    assert!(error.message.starts_with(start), "{}", error.message);
    assert_eq!(node(&bench, &run, "a").state, NodeState::Succeeded, "its work is kept");
}

#[tokio::test(start_paused = true)]
async fn a_failure_edge_of_the_source_handles_an_edge_without_a_decision() {
    for on in ["failure", "always"] {
        let bench = bench();
        let handles = json!({"from": "a", "to": "d", "on": on});
        let seen = "[nodes.a.state, nodes.b.state, nodes.c.state, nodes.d.state, nodes.a.error.kind, nodes.a.error.message]";
        let run = bench.run(broken(&[handles], seen)).await;
        assert_eq!(run.state, RunState::Succeeded, "{on}: {:?}", run.end);
        let seen = output(&run);
        let seen = seen.as_array().unwrap();
        assert_eq!(
            seen[..5],
            ["succeeded", "succeeded", "skipped", "succeeded", "expression"].map(Value::from)
        );
        assert!(seen[5].as_str().unwrap().starts_with("/edges/1/when (from `a` to `c`): "), "{seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_edge_may_decide_by_the_failure_of_another_edge() {
    for (when, state) in
        [("nodes.a.error.kind == 'expression'", "succeeded"), ("nodes.a.error.kind == 'http'", "skipped")]
    {
        let bench = bench();
        let handles = json!({"from": "a", "to": "d", "on": "failure", "when": when});
        let run = bench.run(broken(&[handles], "nodes.d.state")).await;
        match run.state {
            RunState::Succeeded => assert_eq!(output(&run), state),
            _ => assert_eq!((state, error(&run).kind.as_str()), ("skipped", "expression")),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_edge_is_not_taken_where_every_edge_was_decided() {
    let bench = bench();
    let mut definition = broken(&[json!({"from": "a", "to": "d", "on": "failure"})], "nodes.d.state");
    definition["edges"][1]["when"] = json!("has(input.n)");
    assert_eq!(output(&bench.run(definition).await), "skipped");
}

#[tokio::test(start_paused = true)]
async fn a_failed_node_whose_failure_edge_has_no_decision_names_both() {
    let bench = bench();
    let run = bench
        .run(json!({
            "nodes": [
                {"id": "a", "type": "condition", "config": {"expression": "input.missing"}},
                {"id": "b", "type": "trigger"},
            ],
            "edges": [{"from": "a", "to": "b", "on": "failure", "when": "nodes.a.output.result"}],
        }))
        .await;
    let error = error(&run);
    assert_eq!((error.kind.as_str(), error.node_id.as_deref()), ("node_failed", Some("a")));
    assert!(error.message.starts_with("node `a` failed: /nodes/0/config/expression: "), "{}", error.message);
    assert!(error.message.contains("; /edges/0/when (from `a` to `b`): "), "{}", error.message);
}

#[tokio::test(start_paused = true)]
async fn what_an_edge_decided_is_the_same_after_a_take_over() {
    let bench = Bench::new(|types, store| types.with_map(Arc::new(store.clone())));
    // The run is parked while its item waits, and the next driver polls the node before it decides anything.
    let graph = json!({"nodes": [{"id": "n", "type": "delay", "config": {"seconds": 5}}], "output": "item"});
    let definition = json!({
        "nodes": [
            {"id": "a", "type": "trigger"},
            {"id": "c", "type": "trigger"},
            {"id": "d", "type": "map", "config": {"items": "has(nodes.a.error) ? [1] : [1, 2]", "graph": graph}},
            {"id": "e", "type": "parallel"},
        ],
        "edges": [
            {"from": "a", "to": "c", "when": "nodes.a.output.missing > 1"},
            {"from": "a", "to": "d", "on": "failure"},
            {"from": "d", "to": "e", "when": "nodes.a.error.kind == 'expression'"},
        ],
        "output": "[nodes.c.state, nodes.e.state, nodes.d.output]",
    });
    let run = run_tree(&bench, definition).await;
    let takes_over = |entry: &JournalEntry| entry.record.event == JournalEvent::TakenOver;
    assert!(bench.store.journal(run.new.id).iter().any(takes_over), "it was parked");
    assert_eq!(output(&run), json!(["skipped", "succeeded", [1]]));
}

#[tokio::test(start_paused = true)]
async fn every_failure_of_an_expression_names_its_place() {
    let bench = bench();
    let run = bench.run(json!({"nodes": [{"id": "a", "type": "trigger"}], "output": "input.missing"})).await;
    let failed = error(&run);
    assert_eq!(failed.kind.as_str(), "output");
    assert!(failed.message.starts_with("/output: expression `input.missing`: "), "{}", failed.message);
    let places = [
        (json!({"seconds": "${{ input.missing }}"}), "/nodes/1/config/seconds"),
        (json!({"until": "on ${{ input.missing }}"}), "/nodes/1/config/until"),
    ];
    for (config, place) in places {
        let run = bench
            .run(json!({"nodes": [{"id": "t", "type": "trigger"}, {"id": "a", "type": "delay", "config": config}],
                        "edges": [{"from": "t", "to": "a"}]}))
            .await;
        let failure = node(&bench, &run, "a").failure.unwrap();
        assert_eq!(failure.kind.as_str(), "expression");
        assert!(
            failure.message.starts_with(&format!("{place}: expression `input.missing`: ")),
            "{failure:?}"
        );
    }
}

#[test]
fn a_failure_edge_out_of_a_node_that_cannot_fail_needs_an_edge_that_may() {
    let graph = |when: Value| {
        let mut edges =
            vec![json!({"from": "a", "to": "b"}), json!({"from": "a", "to": "c", "on": "failure"})];
        edges[0]["when"] = when;
        let nodes = ["a", "b", "c"].map(|id| json!({"id": id, "type": "trigger"}));
        Graph::validate(&json!({"nodes": nodes, "edges": edges}), NodeTypes::builtin().specs())
    };
    assert!(graph(json!("has(input.n)")).is_ok());
    let problems = graph(json!("1 < 2")).unwrap_err().to_string();
    assert!(problems.contains("it cannot fail"), "{problems}");
}
