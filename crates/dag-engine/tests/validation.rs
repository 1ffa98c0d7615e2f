//! A definition is refused with everything that is wrong with it, each at its place, before anything executes.

use gathering_dag_engine::{Graph, NodeTypes};
use serde_json::{Value, json};

fn problems(definition: &Value) -> Vec<String> {
    match Graph::validate(definition, &NodeTypes::builtin()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

fn node(id: &str) -> Value {
    json!({"id": id, "type": "parallel"})
}

#[test]
fn every_problem_is_listed_with_its_pointer() {
    let definition = json!({
        "nodes": [
            {"id": "a", "type": "condition", "config": {"expression": "input.x >"}},
            {"id": "a", "type": "teleport"},
            {"id": "2b", "type": "delay", "config": {"seconds": "soon"}},
            {"id": "c", "type": "delay", "config": {"second": 1}, "timeout_seconds": "${{ input.t }}"},
            {"id": "d", "type": "parallel", "retry": {"max_attempts": 0, "backoff": 1}, "join": "some"},
            "not a node",
        ],
        "edges": [
            {"from": "a", "to": "nowhere"},
            {"from": "c", "to": "d", "on": "sometimes", "when": "nodes.zzz.output"},
        ],
        "max_concurrency": 0,
        "outputs": "1",
    });
    assert_eq!(
        problems(&definition),
        [
            "/max_concurrency: must be a whole number from 1 to 10000",
            "/outputs: is not known here: the fields are nodes, edges, timeout_seconds, max_concurrency, output, name, description",
            "/nodes/2/id: `2b` is not a node id: it must be 1 to 64 letters, digits, `_` or `-`, beginning with a letter",
            "/nodes/3/timeout_seconds: must be a number from 0.001 to 315360000",
            "/nodes/4/join: must be one of any, all",
            "/nodes/4/retry/max_attempts: must be a whole number from 1 to 1000",
            "/nodes/4/retry/backoff: is not known here: the fields are max_attempts, initial_backoff_ms, max_backoff_ms, multiplier, jitter",
            "/nodes/5: must be an object",
            "/edges/1/on: must be one of success, failure, always",
            "/nodes/0/config/expression: not an expression: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER} (line 1, column 10)",
            "/nodes/1/type: there is no node type `teleport`: the types are condition, delay, parallel, trigger",
            "/nodes/2/config/seconds: must be a number from 0 to 315360000",
            "/nodes/3/config/seconds: is missing: give either `seconds` or `until`",
            "/nodes/3/config/second: is not known here: the fields are seconds, until",
            "/nodes/1/id: `a` is the id of /nodes/0 already",
            "/edges/0/to: there is no node `nowhere`",
            "/edges/1/when: there is no node `zzz`",
        ]
    );
}

#[test]
fn a_cycle_is_named_with_its_way() {
    let definition = json!({
        "nodes": [node("start"), node("a"), node("b"), node("c"), node("self")],
        "edges": [
            {"from": "start", "to": "a"}, {"from": "a", "to": "b"}, {"from": "b", "to": "c"},
            {"from": "c", "to": "a"}, {"from": "self", "to": "self"},
        ],
    });
    let mut found = problems(&definition);
    found.sort();
    assert_eq!(
        found,
        [
            "/nodes/1: is on a cycle, and a graph must have none: a -> b -> c -> a",
            "/nodes/4: is on a cycle, and a graph must have none: self -> self",
        ]
    );
}

#[test]
fn an_expression_may_only_name_nodes_upstream() {
    let condition = |id: &str, expression: &str| json!({"id": id, "type": "condition", "config": {"expression": expression}});
    let definition = json!({
        "nodes": [node("a"), condition("b", "nodes.a.state == 'succeeded'"), condition("c", "nodes.d.output == 1"), node("d")],
        "edges": [
            {"from": "a", "to": "b"}, {"from": "b", "to": "c", "when": "nodes.b.output.result && nodes.a.output == null"},
            {"from": "c", "to": "d"},
        ],
        "output": "nodes.e.output",
    });
    assert_eq!(
        problems(&definition),
        [
            "/nodes/2/config/expression: node `d` is not upstream of `c`: no path of edges leads from it to here",
            "/output: there is no node `e`",
        ]
    );
}

#[test]
fn an_expression_may_only_read_what_a_node_can_have() {
    let condition = |id: &str, expression: &str| json!({"id": id, "type": "condition", "config": {"expression": expression}});
    let definition = json!({
        "nodes": [
            node("a"),
            condition("b", "has(nodes.a.error) && nodes.a.result == 1"),
            {"id": "c", "type": "delay", "config": {"seconds": "${{ nodes.b.output.rseult ? 1 : nodes['b'].error.code }}"}},
            {"id": "d", "type": "delay", "config": {"seconds": "${{ nodes.c.output.waited + nodes.b.state.length }}"}},
            {"id": "e", "type": "parallel"},
            condition("f", "nodes.e.output.d == null && nodes.e.output.a == null && nodes.b.output.result"),
        ],
        "edges": [
            {"from": "a", "to": "b"}, {"from": "b", "to": "c"}, {"from": "c", "to": "d"}, {"from": "d", "to": "e"},
            {"from": "e", "to": "f"},
        ],
        "output": "nodes.f.output.result ? nodes.f.outptu : nodes.b.output.result",
    });
    assert_eq!(
        problems(&definition),
        [
            "/nodes/1/config/expression: a node has no `result`: it has output, state, error",
            "/nodes/2/config/seconds: the error of node `b` has no `code`: it has kind, message, retryable",
            "/nodes/2/config/seconds: the output of node `b` has no `rseult`: it has result",
            "/nodes/3/config/seconds: the state of node `b` is a word and has no `length`",
            "/nodes/3/config/seconds: the output of node `c` has no fields, so no `waited`",
            "/nodes/5/config/expression: the output of node `e` has no `a`: it has d",
            "/output: a node has no `outptu`: it has output, state, error",
        ]
    );
}

#[test]
fn what_is_no_graph_at_all_is_refused() {
    for (definition, expected) in [
        (json!(null), "/: must be an object"),
        (json!([]), "/: must be an object"),
        (json!({}), "/nodes: is missing: it must be a list"),
        (json!({"nodes": []}), "/nodes: must hold at least one node"),
        (json!({"nodes": {}}), "/nodes: must be a list"),
    ] {
        assert_eq!(problems(&definition), [expected]);
    }
}

#[test]
fn an_edge_may_not_be_there_twice() {
    let definition = json!({
        "nodes": [node("a"), node("b")],
        "edges": [{"from": "a", "to": "b"}, {"from": "a", "to": "b", "on": "failure"}, {"from": "a", "to": "b"}],
    });
    assert_eq!(problems(&definition), ["/edges/2: this edge from `a` to `b` is there already"]);
}

#[test]
fn order_and_levels_follow_the_edges_and_then_the_text() {
    let definition = json!({
        "nodes": [node("join"), node("left"), node("right"), node("start")],
        "edges": [
            {"from": "start", "to": "left"}, {"from": "start", "to": "right"},
            {"from": "left", "to": "join"}, {"from": "right", "to": "join"},
        ],
    });
    let graph = Graph::validate(&definition, &NodeTypes::builtin()).unwrap();
    assert_eq!(graph.order().collect::<Vec<_>>(), ["start", "left", "right", "join"]);
    assert_eq!(graph.levels(), [vec!["start"], vec!["left", "right"], vec!["join"]]);
}

#[test]
fn a_graph_of_100_000_nodes_is_validated() {
    let nodes: Vec<Value> = (0..100_000).map(|n| node(&format!("n{n}"))).collect();
    let edges: Vec<Value> =
        (1..100_000).map(|n| json!({"from": format!("n{}", n - 1), "to": format!("n{n}"), "when": format!("nodes.n{}.state == 'succeeded'", n - 1)})).take(2000).collect();
    let graph = Graph::validate(&json!({"nodes": nodes, "edges": edges}), &NodeTypes::builtin()).unwrap();
    assert_eq!(graph.order().count(), 100_000);
}
