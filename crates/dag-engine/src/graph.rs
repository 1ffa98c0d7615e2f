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
use crate::document::{self, Document, limits};
use crate::expression::{EvaluationError, Expression, IN_SCOPE, IN_SCOPE_OF_ITEM};
use crate::fields::Fields;
use crate::journal::NodeFailure;
use crate::node_type::{NodeSpec, NodeSpecs};
use crate::template::{self, SpecialFields, Template};

mod ancestry;
mod input_schema;
mod input_use;
mod reachable;
mod references;

/// A validated definition.
pub struct Graph {
    pub(crate) nodes: Vec<GraphNode>,
    pub(crate) edges: Vec<GraphEdge>,
    pub(crate) output: Option<Expression>,
    pub(crate) by_id: HashMap<String, usize>,
    /// Whether `item` and `index` are in scope.
    is_item: bool,
    input: Option<InputSchema>,
    definition: Definition,
    pub(crate) order: Vec<usize>,
}

/// What a graph stands in.
#[derive(Clone, Copy, Default)]
struct Enclosing<'a> {
    /// Its place in the whole definition, if it is that of a `map`.
    place: Option<&'a Pointer>,
    /// What is known of the run's input.
    input: Option<&'a InputSchema>,
}

/// A node with what its type made of its config. Nodes and edges are named by their index in the definition.
pub(crate) struct GraphNode {
    pub(crate) spec: Node,
    pub(crate) node_type: Arc<dyn NodeSpec>,
    pub(crate) config: Template,
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
        if place.is_some() && document.get("input").is_some() {
            let message =
                "only a whole definition has an input: an item has `item`, `index` and the run's `input`";
            problems.add(Pointer::root().join("input"), message);
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

/// Looks the types up and compiles the configs. A node whose type is unknown stands in as a barrier, so that the rest of
/// the graph can still be looked at.
fn compile_nodes(
    definition: &Definition,
    places: &[Pointer],
    enclosing: Enclosing<'_>,
    types: &NodeSpecs,
    problems: &mut Problems,
) -> Vec<GraphNode> {
    let mut nodes = Vec::with_capacity(definition.nodes.len());
    for (node, at) in definition.nodes.iter().zip(places) {
        let config_at = at.join("config");
        let mut below_config = InputUse::default();
        let (node_type, config) = match types.get(&node.node_type) {
            Some(node_type) => {
                if let Some(mut fields) = Fields::of_config(&node.config, config_at.clone(), problems) {
                    node_type.check(&mut fields);
                    fields.finish();
                }
                if let Some(field) = node_type.sub_graph() {
                    let at = config_at.join(field);
                    below_config = check_sub_graph(&node.config[field], &at, enclosing, types, problems);
                }
                if node_type.reads_input() {
                    below_config = InputUse::whole();
                }
                let special =
                    SpecialFields { expressions: node_type.expressions(), literal: node_type.sub_graph() };
                let config = Template::compile(&node.config, special, &config_at, problems);
                check_secrets(node, &config, &**node_type, &config_at, problems);
                (Arc::clone(node_type), config)
            }
            None => {
                if !node.node_type.is_empty() {
                    let known = types.names().collect::<Vec<_>>().join(", ");
                    let message =
                        format!("there is no node type `{:.80}`: the types are {known}", node.node_type);
                    problems.add(at.join("type"), message);
                }
                let config = Template::compile(&node.config, SpecialFields::default(), &config_at, problems);
                (NodeSpecs::stand_in(), config)
            }
        };
        nodes.push(GraphNode {
            spec: node.clone(),
            node_type,
            config,
            below_config,
            incoming: Vec::new(),
            outgoing: Vec::new(),
        });
    }
    nodes
}

/// Names the secrets that stand where the node's type takes none.
fn check_secrets(
    node: &Node,
    config: &Template,
    node_type: &dyn NodeSpec,
    config_at: &Pointer,
    problems: &mut Problems,
) {
    let fields = node_type.secret_fields(&node.config);
    config.for_each_secret(&Pointer::root(), &mut |place, _| {
        if !fields.take(place) {
            let at = Pointer::from(format!("{config_at}{place}"));
            problems.add(at, fields.describe(&node.node_type));
        }
    });
}

/// What is wrong with the graph in a node's config at `at`; `enclosing` is what the node's own graph stands in. Answers
/// what that graph reads of the run's input.
fn check_sub_graph(
    document: &Value,
    at: &Pointer,
    enclosing: Enclosing<'_>,
    types: &NodeSpecs,
    problems: &mut Problems,
) -> InputUse {
    if !document.is_object() {
        // Said already, as the config's own problem.
        return InputUse::default();
    }
    let place = enclosing.place.map(Pointer::as_str).unwrap_or_default();
    let place = Pointer::from(format!("{place}{at}"));
    let item = Enclosing { place: Some(&place), ..enclosing };
    let found = match Graph::validate_within(document, types, item) {
        Ok(graph) => return InputUse::of_graph(&graph),
        Err(found) => found,
    };
    for problem in found {
        let message = match problem.message.strip_suffix(IN_SCOPE) {
            Some(message) => format!("{message}{IN_SCOPE_OF_ITEM}"),
            None => problem.message,
        };
        problems.add(Pointer::from(format!("{at}{}", problem.pointer)), message);
    }
    InputUse::default()
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph")
            .field("n_nodes", &self.nodes.len())
            .field("n_edges", &self.edges.len())
            .finish()
    }
}
