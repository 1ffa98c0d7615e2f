//! What expressions read of nodes: only nodes that are resolved by then, and only what a node has. So what an expression
//! sees is final and durable when it is evaluated, and replay sees the same.

use gathering_domain::{Pointer, Problems};

use super::ancestry::Ancestry;
use super::{Graph, InputSchema};
use crate::expression::{Expression, NodePath};

/// What can be read of a node.
const PARTS: &[&str] = &["output", "state", "error"];

/// What an `error` has.
const ERROR_FIELDS: &[&str] = &["kind", "message", "retryable", "details"];

/// How many of the names that a part has are written out.
const MAX_NAMES: usize = 20;

/// An expression that names a node, of which it is not yet known whether it comes first.
struct Reference {
    /// Where the expression is evaluated.
    at_node: usize,
    named: usize,
    /// The index of its place.
    place: usize,
}

/// What is collected over all expressions, so that all of them are answered in one go over the graph.
#[derive(Default)]
struct References<'a> {
    /// What is known of the run's input.
    input: Option<&'a InputSchema>,
    references: Vec<Reference>,
    places: Vec<Pointer>,
}

impl Graph {
    /// Checks every expression of a graph whose order is known.
    pub(super) fn check_references(
        &self,
        node_places: &[Pointer],
        edge_places: &[Pointer],
        input: Option<&InputSchema>,
        problems: &mut Problems,
    ) {
        let mut found = References { input, ..References::default() };
        for (index, node) in self.nodes.iter().enumerate() {
            let at = node_places[index].join("config");
            node.config.for_each_expression(&at, &mut |at, expression| {
                self.collect(expression, Some(index), None, at, &mut found, problems);
            });
            if let Some(key) = &node.permit_key {
                let at = node_places[index].join("concurrency").join("key");
                self.collect(key, Some(index), None, &at, &mut found, problems);
            }
        }
        for edge in &self.edges {
            if let Some(when) = &edge.when {
                let at = edge_places[edge.place].join("when");
                self.collect(when, Some(edge.from), Some(edge.from), &at, &mut found, problems);
            }
        }
        self.check_order(&found, problems);
        if let Some(output) = &self.output {
            // Evaluated when everything is resolved.
            let at = Pointer::root().join("output");
            self.collect(output, None, None, &at, &mut found, problems);
        }
    }

    /// Names what does not exist, and notes what must come before `at_node`. `resolved` is known to be.
    fn collect(
        &self,
        expression: &Expression,
        at_node: Option<usize>,
        resolved: Option<usize>,
        at: &Pointer,
        found: &mut References<'_>,
        problems: &mut Problems,
    ) {
        if expression.reads_item() && !self.is_item {
            let message = "there is no variable `item` or `index` here: only the graph of a `map` has them";
            problems.add(at.clone(), message);
        }
        if expression.reads_any_node() && at_node.is_some() {
            // What it would see of nodes that are not upstream depends on how far they happen to be, and is in no journal: a
            // run that is rebuilt would be decided otherwise.
            let message = "must name the nodes that it reads, as `nodes.<id>` or `nodes[\"<id>\"]`: only the run's `output` may \
                           read `nodes` as a whole or by computed names";
            problems.add(at.clone(), message);
        }
        let place = found.places.len();
        for id in expression.node_ids() {
            match (self.by_id.get(id), at_node) {
                (None, _) => problems.add(at.clone(), format!("there is no node `{id}`")),
                (Some(&named), Some(at_node)) if Some(named) != resolved => {
                    found.references.push(Reference { at_node, named, place });
                }
                _ => {}
            }
        }
        if found.references.last().is_some_and(|reference| reference.place == place) {
            found.places.push(at.clone());
        }
        if let Some(input) = found.input {
            input.check_reads(expression, at, problems);
        }
        for path in expression.node_paths() {
            if let Some(message) = self.missing(path) {
                problems.add(at.clone(), message);
            }
        }
    }

    fn check_order(&self, found: &References<'_>, problems: &mut Problems) {
        let pairs: Vec<(usize, usize)> =
            found.references.iter().map(|reference| (reference.named, reference.at_node)).collect();
        let are_upstream = Ancestry::of(self).are_upstream(&pairs);
        for (reference, is_upstream) in found.references.iter().zip(are_upstream) {
            if is_upstream {
                continue;
            }
            let [named, here] = [reference.named, reference.at_node].map(|node| &self.nodes[node].spec.id);
            problems.add(
                found.places[reference.place].clone(),
                format!("node `{named}` is not upstream of `{here}`: no path of edges leads from it to here"),
            );
        }
    }

    /// Why what an expression reads of a node is never there; `None` if it may be.
    fn missing(&self, path: &NodePath) -> Option<String> {
        let NodePath { node: id, part: Some(part), field } = path else { return None };
        let node = &self.nodes[*self.by_id.get(id)?];
        if !PARTS.contains(&part.as_str()) {
            return Some(format!("a node has no `{part}`: it has {}", PARTS.join(", ")));
        }
        let field = field.as_deref()?;
        let known: Vec<&str> = match part.as_str() {
            "error" => ERROR_FIELDS.to_vec(),
            "output" if node.node_type.collects_upstream() => {
                if self.is_direct(field, id) {
                    return None;
                }
                let sources = node.incoming.iter().map(|&edge| self.edges[edge].from);
                sources.map(|from| self.nodes[from].spec.id.as_str()).take(MAX_NAMES + 1).collect()
            }
            "output" => node.node_type.output_fields(&node.spec.config)?.to_vec(),
            _ => return Some(format!("the state of node `{id}` is a word and has no `{field}`")),
        };
        if known.contains(&field) {
            return None;
        }
        let names = known[..known.len().min(MAX_NAMES)].join(", ");
        Some(match known.len() {
            0 => format!("the {part} of node `{id}` has no fields, so no `{field}`"),
            n if n > MAX_NAMES => {
                format!("the {part} of node `{id}` has no `{field}`: it has {names} and more")
            }
            _ => format!("the {part} of node `{id}` has no `{field}`: it has {names}"),
        })
    }

    /// Whether an edge leads from the one node to the other.
    fn is_direct(&self, from: &str, to: &str) -> bool {
        let (Some(&from), Some(&to)) = (self.by_id.get(from), self.by_id.get(to)) else { return false };
        // Of a barrier's thousand sources most have one edge.
        self.nodes[from].outgoing.iter().any(|&edge| self.edges[edge].to == to)
    }
}
