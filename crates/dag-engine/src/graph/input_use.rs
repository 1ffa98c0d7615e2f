//! Which parts of a run's input a node reads: its result stands for another input that has the same parts.

use std::collections::BTreeSet;

use gathering_domain::Pointer;
use serde_json::Value;

use super::{Graph, GraphNode};
use crate::expression::Expression;

/// Parts of a run's input. Each is the names that lead to it; none is the input as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InputUse(BTreeSet<Vec<String>>);

impl InputUse {
    /// All of it.
    pub(super) fn whole() -> Self {
        Self(BTreeSet::from([Vec::new()]))
    }

    fn add(&mut self, expression: &Expression) {
        self.0.extend(expression.input_paths().map(<[String]>::to_vec));
    }

    fn add_all(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Whether two inputs have the same parts.
    pub(crate) fn is_same(&self, one: &Value, other: &Value) -> bool {
        let part = |input, path: &[String]| -> Option<&Value> {
            path.iter().try_fold(input, |value: &Value, name| value.get(name))
        };
        self.0.iter().all(|path| part(one, path) == part(other, path))
    }

    /// What the expressions of a graph and its nodes read.
    pub(super) fn of_graph(graph: &Graph) -> Self {
        let mut all = Self::default();
        for node in &graph.nodes {
            all.add_all(&node.below_config);
            node.config.for_each_expression(&Pointer::root(), &mut |_, expression| all.add(expression));
        }
        graph.edges.iter().filter_map(|edge| edge.when.as_ref()).for_each(|when| all.add(when));
        graph.output.iter().for_each(|output| all.add(output));
        all
    }
}

impl GraphNode {
    /// Whether the node reads the same of two inputs, besides what the computed values of its config show.
    pub(crate) fn reads_the_same(&self, one: &Value, other: &Value) -> bool {
        self.below_config.is_same(one, other)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::node_type::NodeSpecs;

    fn reads_the_same(node: Value, one: Value, other: Value) -> bool {
        let graph = Graph::validate(&json!({ "nodes": [node] }), &NodeSpecs::builtin()).unwrap();
        graph.nodes[0].reads_the_same(&one, &other)
    }

    #[test]
    fn a_trigger_and_an_approval_read_all_of_the_input() {
        for node in [
            json!({"id": "a", "type": "trigger"}),
            json!({"id": "a", "type": "approval", "config": {"message": "Pay?"}}),
        ] {
            assert!(reads_the_same(node.clone(), json!({"a": 1}), json!({"a": 1})));
            assert!(!reads_the_same(node, json!({"a": 1}), json!({"a": 1, "b": 2})));
        }
    }

    #[test]
    fn a_map_reads_what_its_graph_reads() {
        let map = |graph: Value| {
            let config = json!({"items": "input.list", "graph": graph});
            json!({"id": "a", "type": "map", "config": config})
        };
        let delay =
            |seconds: &str| json!({"nodes": [{"id": "d", "type": "delay", "config": {"seconds": seconds}}]});
        let plain = map(delay("${{ item }}"));
        assert!(reads_the_same(plain, json!({"x": 1}), json!({"x": 2})));
        let reads_x = map(delay("${{ input.x }}"));
        assert!(!reads_the_same(reads_x.clone(), json!({"x": 1}), json!({"x": 2})));
        assert!(!reads_the_same(reads_x.clone(), json!({"x": null}), json!({})), "null is not absent");
        assert!(reads_the_same(reads_x.clone(), json!({"x": 1, "y": 1}), json!({"x": 1})));
        let nested = map(json!({"nodes": [map(json!({"nodes": [reads_x]}))]}));
        assert!(!reads_the_same(nested, json!({"x": 1}), json!({"x": 2})));
    }
}
