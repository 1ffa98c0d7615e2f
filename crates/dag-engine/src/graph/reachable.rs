//! Nodes that can never run, as far as that can be proved before anything executes.
//!
//! An edge can never be taken if
//! - its `when` reads nothing and is not true, or
//! - it is taken on the failure of a node that cannot fail: one whose type says so, unless it is declared not idempotent, as
//!   an interruption fails such a node, or has another edge whose `when` may fail, or
//! - its source can never run.
//!
//! A node can never run if none of the edges to it can be taken; with `join: all`, if one of them cannot, or if two of
//! them begin at the same node, one on its success and one on its failure, and no `when` of that node's edges may fail. What depends on a run's input or on what a
//! node puts out is not checked: a branch that is not taken is not a mistake.

use std::collections::HashMap;

use gathering_domain::{EdgeOn, Join, Pointer, Problems};
use serde_json::Value;

use super::{Graph, GraphEdge};
use crate::expression::Expression;

impl Graph {
    /// Names the nodes that can never run, of a graph whose order is known.
    pub(super) fn check_reachable(
        &self,
        node_places: &[Pointer],
        edge_places: &[Pointer],
        problems: &mut Problems,
    ) {
        let mut is_never_true = vec![false; self.edges.len()];
        for (index, edge) in self.edges.iter().enumerate() {
            match edge.when.as_ref().and_then(always) {
                Some(Ok(is_true)) => is_never_true[index] = !is_true,
                Some(Err(wrong)) => problems.add(edge_places[edge.place].join("when"), wrong),
                None => {}
            }
        }
        for (node, at) in
            self.nodes.iter().zip(node_places).filter(|(node, _)| node.node_type.decides_edges())
        {
            node.config.for_each_expression(&at.join("config"), &mut |at, expression| {
                if let Some(Err(wrong)) = always(expression) {
                    problems.add(at.clone(), wrong);
                }
            });
        }
        let mut never_runs = vec![false; self.nodes.len()];
        for &node in &self.order {
            let why_not = |&edge: &usize| {
                let edge_at = &self.edges[edge];
                self.why_never_taken(edge_at, is_never_true[edge], &never_runs)
            };
            if let Some(reason) = self.why_never_run(node, why_not) {
                problems.add(node_places[node].clone(), format!("can never run: {reason}"));
                never_runs[node] = true;
            }
        }
    }

    fn why_never_run(&self, node: usize, why_not: impl Fn(&usize) -> Option<String>) -> Option<String> {
        let incoming = &self.nodes[node].incoming;
        match self.nodes[node].spec.join {
            Join::All => {
                let missing = incoming.iter().find_map(why_not);
                missing
                    .map(|reason| format!("with `join: all` it needs every edge, and {reason}"))
                    .or_else(|| self.contradiction(node))
            }
            Join::Any => {
                let (first, rest) = incoming.split_first()?;
                let reason = why_not(first)?;
                rest.iter().all(|edge| why_not(edge).is_some()).then_some(reason)
            }
        }
    }

    fn why_never_taken(&self, edge: &GraphEdge, is_never_true: bool, never_runs: &[bool]) -> Option<String> {
        let from = &self.nodes[edge.from];
        let id = &from.spec.id;
        if never_runs[edge.from] {
            Some(format!("it follows `{id}`, which can never run"))
        } else if is_never_true {
            Some(format!("the `when` of the edge from `{id}` is never true"))
        } else if edge.on == EdgeOn::Failure
            && from.spec.idempotent
            && !from.node_type.can_fail(&from.spec.config)
            && !self.may_an_edge_fail(edge.from)
        {
            Some(format!("the edge from `{id}` is taken on its failure, and it cannot fail"))
        } else {
            None
        }
    }

    /// Whether an edge that is taken on the success of this node has a `when` that may have no value.
    fn may_an_edge_fail(&self, node: usize) -> bool {
        let outgoing = self.nodes[node].outgoing.iter().map(|&edge| &self.edges[edge]);
        let mut whens =
            outgoing.filter(|edge| edge.on != EdgeOn::Failure).filter_map(|edge| edge.when.as_ref());
        whens.any(|when| when.constant().is_none())
    }

    /// Two edges to a node that needs both, of which only one can be taken.
    fn contradiction(&self, node: usize) -> Option<String> {
        let mut seen: HashMap<usize, EdgeOn> = HashMap::new();
        for &edge in &self.nodes[node].incoming {
            let GraphEdge { from, on, .. } = self.edges[edge];
            let before = if on == EdgeOn::Always { None } else { seen.insert(from, on) };
            if before.is_some_and(|before| before != on) && !self.may_an_edge_fail(from) {
                let id = &self.nodes[from].spec.id;
                return Some(format!("with `join: all` it needs both the success and the failure of `{id}`"));
            }
        }
        None
    }
}

/// What a condition always is, or what is wrong with it; `None` if that depends on what it reads.
fn always(condition: &Expression) -> Option<Result<bool, String>> {
    Some(match condition.constant()? {
        Ok(Value::Bool(value)) => Ok(value),
        Ok(_) => Err("must be true or false, and is always something else".to_owned()),
        Err(error) => Err(format!("has no value: {error}")),
    })
}
