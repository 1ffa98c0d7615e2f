//! Definitions of pipelines, as tests put them together.

use serde_json::{Value, json};

/// A node that does nothing but begin.
pub fn begin() -> Value {
    json!({"id": "begin", "type": "trigger"})
}

/// A node that posts to `url` and does not try again.
pub fn call(id: &str, url: &str) -> Value {
    json!({"id": id, "type": "action", "config": {"action": "call_api", "method": "POST", "url": url}})
}

/// A pipeline of these nodes, where each pair of names is an edge.
pub fn pipeline(nodes: &[Value], edges: &[(&str, &str)]) -> Value {
    let edges: Vec<Value> = edges.iter().map(|(from, to)| json!({"from": from, "to": to})).collect();
    json!({"nodes": nodes, "edges": edges})
}
