//! The nodes of a graph: their types looked up, their configs checked and compiled, the graphs in them validated.

use std::sync::Arc;

use gathering_domain::{Definition, Node, Pointer, Problems};
use serde_json::Value;

use super::{Graph, GraphNode, InputSchema, InputUse};
use crate::expression::{IN_SCOPE, IN_SCOPE_OF_ITEM};
use crate::fields::Fields;
use crate::node_type::{NodeSpec, NodeSpecs};
use crate::template::{self, SpecialFields, Template};

/// What a graph stands in.
#[derive(Clone, Copy, Default)]
pub(super) struct Enclosing<'a> {
    /// Its place in the whole definition, if it is that of a `map`.
    pub(super) place: Option<&'a Pointer>,
    /// What is known of the run's input.
    pub(super) input: Option<&'a InputSchema>,
}

/// Looks the types up and compiles the configs. A node whose type is unknown stands in as a barrier, so that the rest of
/// the graph can still be looked at.
pub(super) fn compile_nodes(
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
        let permit_key = node.concurrency.as_ref().and_then(|concurrency| concurrency.key.as_deref());
        let key_at = at.join("concurrency").join("key");
        let permit_key = permit_key.and_then(|source| template::compile(source, &key_at, problems));
        nodes.push(GraphNode {
            spec: node.clone(),
            node_type,
            config,
            permit_key,
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
