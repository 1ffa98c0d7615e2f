//! A definition is refused with everything that is wrong with it, each at its place, before anything executes.

use gathering_dag_engine::{
    Graph, MAX_DOCUMENT_BYTES, MAX_EDGES, MAX_NESTING, MAX_NODES, NodeSpecs, SourceMap,
};
use serde_json::{Value, json};

fn problems(definition: &Value) -> Vec<String> {
    match Graph::validate(definition, &NodeSpecs::builtin()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// A problem without the words of the parser, which belong to its library: the kind of problem and the place stay.
fn without_the_parsers_words(problem: String) -> String {
    let Some((start, said)) = problem.split_once("not an expression: ") else { return problem };
    let place = said.rfind("(line ").map_or("", |at| &said[at..]);
    format!("{start}not an expression: … {place}")
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
    let found: Vec<String> = problems(&definition).into_iter().map(without_the_parsers_words).collect();
    assert_eq!(
        found,
        [
            "/max_concurrency: must be a whole number from 1 to 10000",
            "/outputs: is not known here: the fields are nodes, edges, timeout_seconds, max_concurrency, fail_fast, input, tool, concurrency, rate_limit, output, name, description",
            "/nodes/2/id: `2b` is not a node id: it must be 1 to 64 letters, digits, `_` or `-`, beginning with a letter",
            "/nodes/3/timeout_seconds: must be a number from 0.001 to 315360000",
            "/nodes/4/join: must be one of any, all",
            "/nodes/4/retry/max_attempts: must be a whole number from 1 to 1000",
            "/nodes/4/retry/backoff: is not known here: the fields are max_attempts, initial_backoff_ms, max_backoff_ms, multiplier, jitter",
            "/nodes/5: must be an object",
            "/edges/1/on: must be one of success, failure, always",
            "/nodes/0/config/expression: not an expression: … (line 1, column 10)",
            "/nodes/1/type: there is no node type `teleport`: the types are approval, condition, delay, fail, map, parallel, trigger",
            "/nodes/2/config/seconds: must be a number from 0 to 315360000",
            "/nodes/3/config/seconds: is missing: give `seconds` or `until`",
            "/nodes/3/config/second: is not known here: the fields are seconds, until",
            "/nodes/1/id: `a` is the id of /nodes/0 already",
            "/edges/0/to: there is no node `nowhere`",
            "/edges/1/when: there is no node `zzz`",
        ]
    );
}

#[test]
fn only_the_output_of_a_run_reads_nodes_by_names_that_are_not_known_before() {
    for computed in [
        "nodes[input.x].state == 'succeeded'",
        "nodes.exists(id, nodes[id].state == 'failed')",
        "size(nodes) > 1",
        "[nodes].size() > 0",
    ] {
        let with = |expression: &str, config: &str, when: &str, output: &str| {
            problems(&json!({
                "nodes": [
                    {"id": "a", "type": "condition", "config": {"expression": expression}},
                    {"id": "b", "type": "delay", "config": {"seconds": config}},
                ],
                "edges": [{"from": "a", "to": "b", "when": when}],
                "output": output,
            }))
        };
        let found = with(computed, &format!("${{{{ {computed} ? 1 : 2 }}}}"), computed, "1");
        let places: Vec<&str> =
            found.iter().filter_map(|problem| problem.split(": must name the nodes").next()).collect();
        assert_eq!(places, ["/nodes/0/config/expression", "/nodes/1/config/seconds", "/edges/0/when"]);
        assert_eq!(with("true", "${{ 1 }}", "true", computed), [""; 0]);
    }
    let asks = json!({
        "nodes": [
            {"id": "a", "type": "trigger"},
            {"id": "b", "type": "condition", "config": {"expression": "has(nodes.a)"}},
        ],
        "edges": [{"from": "a", "to": "b"}],
    });
    assert_eq!(problems(&asks), [""; 0]);
}

#[test]
fn a_condition_that_is_never_true_or_false_is_refused_as_an_edge_is() {
    let found = problems(&json!({
        "nodes": [
            {"id": "a", "type": "condition", "config": {"expression": "1/0 == 1"}},
            {"id": "b", "type": "condition", "config": {"expression": "'yes'"}},
            {"id": "c", "type": "condition", "config": {"expression": "1 + 1 == 2"}},
        ],
    }));
    assert!(
        found[0].starts_with("/nodes/0/config/expression: has no value: expression `1/0 == 1`: "),
        "{found:?}"
    );
    assert_eq!(
        found[1..],
        ["/nodes/1/config/expression: must be true or false, and is always something else"]
    );
}

#[test]
fn what_is_wrong_in_the_graph_of_a_map_is_said_as_seen_from_the_whole() {
    let specs = NodeSpecs::builtin();
    let inner = json!({
        "nodes": [
            {"id": "x", "type": "trigger"},
            {"id": "x", "type": "condition", "config": {"expression": "itme == 1"}},
        ],
    });
    let graph = json!({"nodes": [{"id": "m", "type": "map", "config": {"items": "[1]", "graph": inner}}]});
    let definition = json!({
        "nodes": [{"id": "outer", "type": "map", "config": {"items": "itme", "graph": graph}}],
    });
    let found: Vec<String> =
        Graph::validate(&definition, &specs).unwrap_err().iter().map(ToString::to_string).collect();
    let place = "/nodes/0/config/graph/nodes/0/config/graph/nodes";
    assert_eq!(
        found,
        [
            format!(
                "{place}/1/config/expression: there is no variable `itme`: in scope are `input`, `nodes`, `run`, `item` and `index`"
            ),
            format!("{place}/1/id: `x` is the id of {place}/0 already"),
            "/nodes/0/config/items: there is no variable `itme`: in scope are `input`, `nodes` and `run`"
                .to_owned(),
        ]
    );
}

#[test]
fn who_may_approve_is_named_by_what_can_be_an_e_mail_address() {
    let specs = NodeSpecs::builtin();
    let with = |approvers: Value| {
        let config = json!({"message": "may it?", "approvers": approvers});
        let definition = json!({"nodes": [{"id": "a", "type": "approval", "config": config}]});
        Graph::validate(&definition, &specs).map(drop).map_err(|problems| problems.to_string())
    };
    assert_eq!(with(json!(["ada@example.org", "Bob@Example.org"])), Ok(()));
    for wrong in [
        json!(["nobody"]),
        json!(["ada@example.org", "bob"]),
        json!([]),
        json!([1]),
        json!(["${{input.x}}@example.org"]),
    ] {
        let found = with(wrong.clone()).unwrap_err();
        assert!(found.contains("/nodes/0/config/approvers"), "{wrong}: {found}");
    }
}

#[test]
fn null_is_no_value_of_a_required_field() {
    let whole = json!({
        "nodes": [
            {"id": "a", "type": "condition", "config": {"expression": "input.x"},
                "circuit_breaker": {"failure_threshold": 1, "reset_seconds": 1}},
            {"id": "b", "type": "delay", "config": {"seconds": 1}},
            {"id": "c", "type": "map", "config": {"items": "input.l", "graph": {"nodes": [{"id": "x", "type": "trigger"}]}}},
            {"id": "d", "type": "approval", "config": {"message": "may it?"}},
        ],
        "edges": [{"from": "a", "to": "b"}],
    });
    let specs = NodeSpecs::builtin();
    let problems = |definition: &Value| match Graph::validate(definition, &specs) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(problems(&whole), [""; 0]);
    for pointer in [
        "/nodes",
        "/nodes/0/id",
        "/nodes/0/type",
        "/nodes/0/config/expression",
        "/nodes/0/circuit_breaker/failure_threshold",
        "/nodes/0/circuit_breaker/reset_seconds",
        "/nodes/1/config/seconds",
        "/nodes/2/config/items",
        "/nodes/2/config/graph",
        "/nodes/2/config/graph/nodes",
        "/nodes/2/config/graph/nodes/0/id",
        "/nodes/2/config/graph/nodes/0/type",
        "/nodes/3/config/message",
        "/edges/0/from",
        "/edges/0/to",
    ] {
        let mut definition = whole.clone();
        *definition.pointer_mut(pointer).unwrap() = Value::Null;
        let found = problems(&definition);
        assert!(
            found.iter().any(|problem| problem.starts_with(&format!("{pointer}: is missing"))),
            "{pointer}: {found:?}"
        );
    }
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
            "/nodes/2/config/seconds: the error of node `b` has no `code`: it has kind, message, retryable, details",
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
    let graph = Graph::validate(&definition, &NodeSpecs::builtin()).unwrap();
    assert_eq!(graph.order().collect::<Vec<_>>(), ["start", "left", "right", "join"]);
    assert_eq!(graph.levels(), [vec!["start"], vec!["left", "right"], vec!["join"]]);
}

#[test]
fn a_graph_of_100_000_nodes_is_validated() {
    let nodes: Vec<Value> = (0..100_000).map(|n| node(&format!("n{n}"))).collect();
    let edges: Vec<Value> =
        (1..100_000).map(|n| json!({"from": format!("n{}", n - 1), "to": format!("n{n}"), "when": format!("nodes.n{}.state == 'succeeded'", n - 1)})).take(2000).collect();
    let graph = Graph::validate(&json!({"nodes": nodes, "edges": edges}), &NodeSpecs::builtin()).unwrap();
    assert_eq!(graph.order().count(), 100_000);
}

#[test]
fn a_node_that_can_never_run_is_named_with_the_reason() {
    let definition = json!({
        "nodes": [
            {"id": "start", "type": "trigger"},
            {"id": "wait", "type": "delay", "config": {"seconds": "${{ input.n }}"}},
            {"id": "cannot", "type": "parallel"},
            {"id": "off", "type": "parallel"},
            {"id": "behind", "type": "parallel"},
            {"id": "both", "type": "parallel", "join": "all"},
            {"id": "every", "type": "parallel", "join": "all"},
            {"id": "fine", "type": "parallel"},
        ],
        "edges": [
            {"from": "start", "to": "wait"},
            {"from": "start", "to": "cannot", "on": "failure"},
            {"from": "wait", "to": "off", "when": "1 > 2"},
            {"from": "off", "to": "behind", "on": "always"}, {"from": "cannot", "to": "behind"},
            {"from": "wait", "to": "both"}, {"from": "wait", "to": "both", "on": "failure"},
            {"from": "wait", "to": "every"}, {"from": "off", "to": "every"},
            {"from": "off", "to": "fine"}, {"from": "wait", "to": "fine", "on": "failure"},
        ],
    });
    assert_eq!(
        problems(&definition),
        [
            "/nodes/2: can never run: the edge from `start` is taken on its failure, and it cannot fail",
            "/nodes/3: can never run: the `when` of the edge from `wait` is never true",
            "/nodes/5: can never run: with `join: all` it needs both the success and the failure of `wait`",
            "/nodes/4: can never run: it follows `off`, which can never run",
            "/nodes/6: can never run: with `join: all` it needs every edge, and it follows `off`, which can never run",
        ]
    );
}

#[test]
fn a_node_that_may_run_is_never_refused() {
    let definition = json!({
        "nodes": [
            // An interruption fails it, though its type cannot fail.
            {"id": "start", "type": "trigger", "idempotent": false},
            {"id": "after", "type": "parallel"},
            {"id": "dead-edge-beside", "type": "parallel"},
            {"id": "always", "type": "parallel", "join": "all"},
            {"id": "root", "type": "parallel", "join": "all"},
        ],
        "edges": [
            {"from": "start", "to": "after", "on": "failure"},
            {"from": "start", "to": "dead-edge-beside", "when": "false"}, {"from": "start", "to": "dead-edge-beside", "when": "input.n > 1"},
            {"from": "start", "to": "always", "on": "always"}, {"from": "start", "to": "always"},
        ],
    });
    assert_eq!(problems(&definition), Vec::<String>::new());
}

#[test]
fn a_condition_that_is_always_the_wrong_kind_is_named() {
    let definition = json!({
        "nodes": [node("a"), node("b"), node("c")],
        "edges": [{"from": "a", "to": "b", "when": "'yes'"}, {"from": "a", "to": "c", "when": "1 / 0 == 1"}],
    });
    let found = problems(&definition);
    assert_eq!(found[0], "/edges/0/when: must be true or false, and is always something else");
    assert!(found[1].starts_with("/edges/1/when: has no value: expression `1 / 0 == 1`: "), "{found:?}");
    assert_eq!(found.len(), 2);
}

#[test]
fn what_is_larger_than_the_limits_is_refused_without_being_read() {
    let many = |n: usize, value: Value| Value::Array(vec![value; n]);
    assert_eq!(
        problems(&json!({"nodes": many(MAX_NODES + 1, json!(1)), "edges": many(MAX_EDGES + 1, json!(1))})),
        [
            format!("/nodes: must hold at most {MAX_NODES} nodes, not {}", MAX_NODES + 1),
            format!("/edges: must hold at most {MAX_EDGES} edges, not {}", MAX_EDGES + 1),
        ]
    );
    let large = json!({"nodes": [], "description": "x".repeat(MAX_DOCUMENT_BYTES)});
    assert_eq!(
        problems(&large),
        [format!("/: must have at most {MAX_DOCUMENT_BYTES} bytes, not {}", MAX_DOCUMENT_BYTES + 29)]
    );
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    let with = |config: Value| json!({"nodes": [{"id": "a", "type": "parallel", "config": {"x/y": config}}]});
    let found = problems(&with(nested(MAX_NESTING - 4 + 1)));
    let below = "/0".repeat(MAX_NESTING - 4);
    assert_eq!(found, [format!("/nodes/0/config/x~1y{below}: is nested more than 64 levels deep")]);
    assert_eq!(
        problems(&with(nested(MAX_NESTING - 4))),
        ["/nodes/0/config/x~1y: is not known here: no field is"],
        "what is just within is read"
    );
}

#[test]
fn names_are_bounded() {
    let long = "n".repeat(65);
    let definition = json!({
        "nodes": [{"id": long, "type": "parallel"}, {"id": "b", "type": "parallel", "name": "x".repeat(201)}],
        "edges": [{"from": long, "to": "b"}],
    });
    let found = problems(&definition);
    assert!(found[0].starts_with("/nodes/0/id: "), "{found:?}");
    assert_eq!(found[1], "/nodes/1/name: must have at most 200 characters");
    assert!(found[2].starts_with("/edges/0/from: "), "{found:?}");
    assert_eq!(found.len(), 3);
}

#[test]
fn no_more_than_a_thousand_problems_are_named_and_the_rest_is_counted() {
    let found = problems(&json!({"nodes": vec![json!(1); 5000]}));
    assert_eq!(found.len(), 1001);
    assert_eq!(found[1000], "/: has 4000 more problems");
}

#[test]
fn a_barrier_with_many_sources_does_not_write_all_of_them_out() {
    let mut nodes: Vec<Value> = (0..3000).map(|n| node(&format!("n{n}"))).collect();
    let edges: Vec<Value> = (0..3000).map(|n| json!({"from": format!("n{n}"), "to": "all"})).collect();
    nodes.push(node("all"));
    let definition =
        json!({"nodes": nodes, "edges": edges, "output": "nodes.all.output.n2999 == nodes.all.output.m1"});
    let found = problems(&definition);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("/output: the output of node `all` has no `m1`: it has n0, n1, "),
        "{found:?}"
    );
    assert!(found[0].ends_with(", n19 and more"), "{found:?}");
}

#[test]
fn yaml_and_json_give_the_same_problems_and_each_has_its_place_in_the_text() {
    let yaml = "nodes:\n  - id: a\n    type: trigger\n  - id: b\n    type: fly\n    config: {n: \"${{ nodes.b.output }}\"}\n\
                edges:\n  - {from: a, to: b, on: failure}\n  - {from: a, to: c}\n";
    let document: Value = serde_saphyr::from_str(yaml).unwrap();
    let json = serde_json::to_string_pretty(&document).unwrap();
    assert_eq!(problems(&document), problems(&serde_json::from_str(&json).unwrap()));
    let found = Graph::validate(&document, &NodeSpecs::builtin()).unwrap_err();
    let (in_yaml, in_json) = (SourceMap::of(yaml), SourceMap::of(&json));
    let places: Vec<_> =
        found.iter().map(|problem| (problem.pointer.as_str(), in_yaml.find(&problem.pointer))).collect();
    assert_eq!(
        places,
        [
            ("/nodes/1/type", Some((5, 11))),
            ("/edges/1/to", Some((9, 19))),
            ("/nodes/1/config/n", Some((6, 17))),
            ("/nodes/1", Some((4, 5))),
        ]
    );
    assert!(found.iter().all(|problem| in_json.find(&problem.pointer).is_some()));
}
