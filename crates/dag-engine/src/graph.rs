//! A validated definition, ready to be driven: immutable, shared by all its runs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use daggy::Dag;
use daggy::petgraph::algo::tarjan_scc;
use daggy::petgraph::graph::DiGraph;
use daggy::petgraph::graph::NodeIndex;
use gathering_domain::{Definition, EdgeOn, FailureKind, Node, Pointer, Problems};
use serde_json::Value;

pub use self::input_schema::InputSchema;
use self::input_use::InputUse;
use self::nodes::{Enclosing, compile_nodes};
pub use self::run_limits::RunLimits;
pub use self::tool_offer::ToolOffer;
use crate::document::{self, Document, limits};
use crate::expression::{EvaluationError, Expression};
use crate::journal::NodeFailure;
use crate::node_type::{NodeSpec, NodeSpecs};
use crate::template::{self, Template};

mod ancestry;
mod input_schema;
mod input_use;
mod nodes;
mod reachable;
mod references;
pub(crate) mod run_limits;
mod tool_offer;

/// A validated definition.
pub struct Graph {
    pub(crate) nodes: Vec<GraphNode>,
    pub(crate) edges: Vec<GraphEdge>,
    pub(crate) output: Option<Expression>,
    pub(crate) by_id: HashMap<String, usize>,
    /// Whether `item` and `index` are in scope.
    is_item: bool,
    input: Option<InputSchema>,
    limits: Option<RunLimits>,
    definition: Definition,
    pub(crate) order: Vec<usize>,
}

/// A node with what its type made of its config. Nodes and edges are named by their index in the definition.
pub(crate) struct GraphNode {
    pub(crate) spec: Node,
    pub(crate) node_type: Arc<dyn NodeSpec>,
    pub(crate) config: Template,
    /// The key of its `concurrency`, if it gives one.
    pub(crate) permit_key: Option<Expression>,
    /// What it reads of the run's input besides what the expressions of its config read.
    below_config: InputUse,
    pub(crate) incoming: Vec<usize>,
    pub(crate) outgoing: Vec<usize>,
}

pub(crate) struct GraphEdge {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) on: EdgeOn,
    pub(crate) when: Option<Expression>,
    /// Its index in the definition; edges that could not be connected have none here.
    place: usize,
}

impl Graph {
    /// Validates a definition.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its JSON pointer; nothing of it may be executed.
    pub fn validate(document: &Value, types: &NodeSpecs) -> Result<Self, Problems> {
        Self::validate_within(document, types, Enclosing::default())
    }

    /// Validates the definition of what a `map` does with each item: `item` and `index` are in scope.
    ///
    /// # Errors
    /// As [`Graph::validate`].
    pub fn validate_item(document: &Value, types: &NodeSpecs) -> Result<Self, Problems> {
        let item = Enclosing { place: Some(&Pointer::root()), input: None };
        Self::validate_within(document, types, item)
    }

    fn validate_within(
        document: &Value,
        types: &NodeSpecs,
        enclosing: Enclosing<'_>,
    ) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        if !limits::check(document, &mut problems) {
            return Err(problems);
        }
        let Document { definition, node_places, edge_places } = document::read(document, &mut problems);
        let Enclosing { place, input: input_around } = enclosing;
        let input = InputSchema::read(document, &mut problems);
        ToolOffer::check(document, input.as_ref(), &mut problems);
        let run_limits = RunLimits::read(document, input.as_ref(), &mut problems);
        for field in ["input", "tool", "concurrency", "rate_limit"].into_iter().filter(|_| place.is_some()) {
            if document.get(field).is_some() {
                let message = format!("only a whole definition has `{field}`, not the graph of an item");
                problems.add(Pointer::root().join(field), message);
            }
        }
        let known_input = input.as_ref().or(input_around);
        let enclosing = Enclosing { place, input: known_input };
        let nodes = compile_nodes(&definition, &node_places, enclosing, types, &mut problems);
        let mut graph = Self {
            by_id: HashMap::new(),
            nodes,
            edges: Vec::new(),
            output: None,
            is_item: place.is_some(),
            input: None,
            limits: run_limits,
            definition,
            order: Vec::new(),
        };
        graph.name_nodes(&node_places, place, &mut problems);
        graph.connect(document, &edge_places, &mut problems);
        let output_at = Pointer::root().join("output");
        graph.output = graph
            .definition
            .output
            .as_deref()
            .and_then(|source| template::compile(source, &output_at, &mut problems));
        if graph.sort(&node_places, &mut problems) {
            graph.check_references(&node_places, &edge_places, known_input, &mut problems);
            graph.check_reachable(&node_places, &edge_places, &mut problems);
        }
        graph.input = input;
        limits::named(problems).into_result().map(|()| graph)
    }

    /// The definition as it was written.
    pub const fn definition(&self) -> &Definition {
        &self.definition
    }

    /// What the input of its runs must be; `None` if it may be anything.
    pub const fn input_schema(&self) -> Option<&InputSchema> {
        self.input.as_ref()
    }

    /// How many of its runs may execute at once and start in a second; `None` if any number.
    pub const fn run_limits(&self) -> Option<&RunLimits> {
        self.limits.as_ref()
    }

    /// Whether nodes of it have a limit across runs.
    pub(crate) fn limits_nodes(&self) -> bool {
        self.nodes.iter().any(|node| node.spec.concurrency.is_some())
    }

    /// The failure of an edge whose `when` has no value; it names its place.
    pub(crate) fn failure_of_edge(&self, edge: usize, error: &EvaluationError) -> NodeFailure {
        let edge = &self.edges[edge];
        let at = Pointer::root().join("edges").join(edge.place).join("when");
        let [from, to] = [edge.from, edge.to].map(|node| &self.nodes[node].spec.id);
        let message = format!("{at} (from `{from}` to `{to}`): {error}");
        NodeFailure::permanent(FailureKind::Expression, message)
    }

    /// The place of a node's config in the definition.
    pub(crate) fn place_of_config(node: usize) -> Pointer {
        Pointer::root().join("nodes").join(node).join("config")
    }

    /// The nodes' ids in a topological order; among nodes that do not depend on each other, as they were written.
    pub fn order(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(|&node| self.nodes[node].spec.id.as_str())
    }

    /// The nodes' ids by depth: those of one level depend only on levels before it.
    pub fn levels(&self) -> Vec<Vec<&str>> {
        let mut depth = vec![0usize; self.nodes.len()];
        let mut levels: Vec<Vec<&str>> = Vec::new();
        for &node in &self.order {
            let incoming = self.nodes[node].incoming.iter();
            depth[node] = incoming.map(|&edge| depth[self.edges[edge].from] + 1).max().unwrap_or(0);
            if levels.len() <= depth[node] {
                levels.resize_with(depth[node] + 1, Vec::new);
            }
            levels[depth[node]].push(self.nodes[node].spec.id.as_str());
        }
        levels
    }

    fn name_nodes(&mut self, places: &[Pointer], place: Option<&Pointer>, problems: &mut Problems) {
        let place = place.map(Pointer::as_str).unwrap_or_default();
        for (index, (node, at)) in self.nodes.iter().zip(places).enumerate() {
            let first = *self.by_id.entry(node.spec.id.to_string()).or_insert(index);
            if first != index {
                let message = format!("`{}` is the id of {place}{} already", node.spec.id, places[first]);
                problems.add(at.join("id"), message);
            }
        }
    }

    fn connect(&mut self, document: &Value, places: &[Pointer], problems: &mut Problems) {
        let mut seen = HashSet::new();
        for (place, (edge, at)) in self.definition.edges.iter().zip(places).enumerate() {
            let ends = [("from", &edge.from), ("to", &edge.to)].map(|(field, id)| {
                let node = self.by_id.get(id.as_str()).copied();
                if node.is_none() && document["nodes"].is_array() {
                    problems.add(at.join(field), format!("there is no node `{id}`"));
                }
                node
            });
            let when =
                edge.when.as_deref().and_then(|source| template::compile(source, &at.join("when"), problems));
            let [Some(from), Some(to)] = ends else { continue };
            if self.nodes[from].node_type.ends_run() {
                let message = format!("node `{}` ends the run, so no edge may lead out of it", edge.from);
                problems.add(at.join("from"), message);
            }
            if !seen.insert((from, to, edge.on as u8, edge.when.clone())) {
                problems.add(
                    at.clone(),
                    format!("this edge from `{}` to `{}` is there already", edge.from, edge.to),
                );
                continue;
            }
            let index = self.edges.len();
            self.nodes[from].outgoing.push(index);
            self.nodes[to].incoming.push(index);
            self.edges.push(GraphEdge { from, to, on: edge.on, when, place });
        }
    }

    /// Finds the topological order, or names the cycles.
    fn sort(&mut self, places: &[Pointer], problems: &mut Problems) -> bool {
        let mut dag: Dag<usize, (), u32> = Dag::with_capacity(self.nodes.len(), self.edges.len());
        for node in 0..self.nodes.len() {
            dag.add_node(node);
        }
        let ends = self.edges.iter().map(|edge| (NodeIndex::new(edge.from), NodeIndex::new(edge.to), ()));
        if dag.add_edges(ends).is_err() {
            self.name_cycles(places, problems);
            return false;
        }
        // Kahn's algorithm over the written order, so that the order reads as the definition does.
        let mut unresolved: Vec<usize> = self.nodes.iter().map(|node| node.incoming.len()).collect();
        let mut ready: VecDeque<usize> =
            (0..self.nodes.len()).filter(|&node| unresolved[node] == 0).collect();
        while let Some(node) = ready.pop_front() {
            self.order.push(node);
            for &edge in &self.nodes[node].outgoing {
                let to = self.edges[edge].to;
                unresolved[to] -= 1;
                if unresolved[to] == 0 {
                    ready.push_back(to);
                }
            }
        }
        true
    }

    fn name_cycles(&self, places: &[Pointer], problems: &mut Problems) {
        let mut graph: DiGraph<(), ()> = DiGraph::with_capacity(self.nodes.len(), self.edges.len());
        for _ in &self.nodes {
            graph.add_node(());
        }
        for edge in &self.edges {
            graph.add_edge(NodeIndex::new(edge.from), NodeIndex::new(edge.to), ());
        }
        for mut group in tarjan_scc(&graph) {
            group.sort();
            let Some(&first) = group.first() else { continue };
            if group.len() > 1 || graph.contains_edge(first, first) {
                let path =
                    self.cycle_through(first.index(), &group.iter().map(|node| node.index()).collect());
                let message = format!("is on a cycle, and a graph must have none: {path}");
                problems.add(places[first.index()].clone(), message);
            }
        }
    }

    /// The shortest way from `start` back to itself within its strongly connected group, in words.
    fn cycle_through(&self, start: usize, group: &HashSet<usize>) -> String {
        let mut came_from: HashMap<usize, usize> = HashMap::new();
        let mut queue = VecDeque::from([start]);
        'search: while let Some(node) = queue.pop_front() {
            for &edge in &self.nodes[node].outgoing {
                let to = self.edges[edge].to;
                if group.contains(&to) && !came_from.contains_key(&to) {
                    came_from.insert(to, node);
                    if to == start {
                        break 'search;
                    }
                    queue.push_back(to);
                }
            }
        }
        let mut path = vec![start];
        let mut node = start;
        while let Some(&before) = came_from.get(&node) {
            path.push(before);
            node = before;
            if node == start {
                break;
            }
        }
        path.reverse();
        path.iter().map(|&node| self.nodes[node].spec.id.as_str()).collect::<Vec<_>>().join(" -> ")
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph")
            .field("n_nodes", &self.nodes.len())
            .field("n_edges", &self.edges.len())
            .finish()
    }
}
