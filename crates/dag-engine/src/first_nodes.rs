//! What a run begins with, told from its definition alone: a store can record those starts with the claim.

use std::collections::HashSet;

use gathering_domain::DEFAULT_MAX_CONCURRENCY;
use serde_json::Value;

/// The most nodes that a claim begins; the driver begins the others.
const MAX_BEGUN: usize = 32;

/// The nodes that a run of this valid definition begins with, in the order in which they are begun: those that follow from
/// nothing, as far as they may execute at once. None from the first on that is declared not idempotent: a claim whose
/// answer gets lost would look as if such a node had been interrupted.
///
/// Shape: ids of nodes, at most 32; empty for what is no definition.
pub fn first_nodes(definition: &Value) -> Vec<&str> {
    let list = |field: &str| definition[field].as_array().into_iter().flatten();
    let targets: HashSet<&str> = list("edges").filter_map(|edge| edge["to"].as_str()).collect();
    let at_once = match definition["max_concurrency"].as_u64() {
        Some(given) => usize::try_from(given).unwrap_or(usize::MAX),
        None => DEFAULT_MAX_CONCURRENCY,
    };
    list("nodes")
        .filter(|node| node["id"].as_str().is_some_and(|id| !targets.contains(id)))
        .take_while(|node| node["idempotent"] != Value::Bool(false))
        .filter_map(|node| node["id"].as_str())
        .take(at_once.min(MAX_BEGUN))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_begins_with_the_nodes_that_follow_from_nothing_as_far_as_they_may_execute_at_once() {
        let mut definition = json!({
            "nodes": [{"id": "c"}, {"id": "a"}, {"id": "b", "idempotent": true}, {"id": "d"}],
            "edges": [{"from": "c", "to": "d"}],
        });
        assert_eq!(first_nodes(&definition), ["c", "a", "b"]);
        definition["max_concurrency"] = json!(2);
        assert_eq!(first_nodes(&definition), ["c", "a"]);
        definition["nodes"][1]["idempotent"] = json!(false);
        assert_eq!(first_nodes(&definition), ["c"], "what must not be repeated is begun by its driver");
        let many: Vec<Value> = (0..100).map(|number| json!({"id": format!("n{number}")})).collect();
        assert_eq!(first_nodes(&json!({"nodes": many, "max_concurrency": 100})).len(), MAX_BEGUN);
        assert!(first_nodes(&json!("no definition")).is_empty());
    }
}
