//! The shapes that are driven.

use serde_json::{Value, json};

/// `n_nodes` trivial nodes in a row.
pub(crate) fn chain(n_nodes: usize) -> Value {
    let nodes: Vec<Value> = (0..n_nodes).map(|number| step(&name(number))).collect();
    let edges: Vec<Value> =
        (1..n_nodes).map(|number| json!({"from": name(number - 1), "to": name(number)})).collect();
    json!({"nodes": nodes, "edges": edges})
}

/// One trivial node, then `width` of them at once, then one.
pub(crate) fn fan(width: usize) -> Value {
    between(width, step)
}

/// One trivial node, then `width` delays of a second at once, then one.
pub(crate) fn delays(width: usize) -> Value {
    between(width, |id| json!({"id": id, "type": "delay", "config": {"seconds": 1}}))
}

fn between(width: usize, node: impl Fn(&str) -> Value) -> Value {
    let mut nodes = vec![step("first"), step("last")];
    let mut edges = Vec::new();
    for number in 0..width {
        let id = name(number);
        nodes.push(node(&id));
        edges.push(json!({"from": "first", "to": id}));
        edges.push(json!({"from": id, "to": "last"}));
    }
    json!({"nodes": nodes, "edges": edges, "max_concurrency": width})
}

fn step(id: &str) -> Value {
    json!({"id": id, "type": "step"})
}

fn name(number: usize) -> String {
    format!("n{number}")
}
