//! What is shown of a graph beside its runs: its nodes in a topological order, and its limits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gathering_dag_engine::{Graph, NodeSpecs};
use gathering_domain::{Digest, Email, Node, NodeId, Problems};
use serde_json::Value;

use crate::http::edge::problem::Problem;
use crate::http::state::AppState;

/// The nodes of a graph, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GraphSummary {
    /// Ids and types, in a topological order.
    pub(crate) nodes: Vec<(String, String)>,
    /// The ids by depth.
    pub(crate) levels: Vec<Vec<String>>,
    /// How long a run may take.
    pub(crate) timeout: Option<Duration>,
    /// Who may decide about a node, where it says so.
    approvers: HashMap<String, Vec<Email>>,
}

impl GraphSummary {
    /// The summary of a valid definition.
    fn read(definition: &Value, specs: &NodeSpecs) -> Result<Self, Problems> {
        Ok(Self::of(&Graph::validate(definition, specs)?))
    }

    /// The summary of a definition that was valid once, be it of a run or of an item of a list.
    fn read_stored(definition: &Value, specs: &NodeSpecs) -> Result<Self, Problems> {
        let graph = Graph::validate(definition, specs);
        Ok(Self::of(&graph.or_else(|_| Graph::validate_item(definition, specs))?))
    }

    fn of(graph: &Graph) -> Self {
        let nodes = &graph.definition().nodes;
        let approvers =
            nodes.iter().filter_map(|node| Some((node.id.to_string(), approvers(node)?))).collect();
        let types: HashMap<&str, &str> =
            nodes.iter().map(|node| (node.id.as_str(), node.node_type.as_str())).collect();
        let nodes = graph
            .order()
            .map(|id| (id.to_owned(), types.get(id).copied().unwrap_or_default().to_owned()))
            .collect();
        let levels =
            graph.levels().into_iter().map(|level| level.into_iter().map(str::to_owned).collect()).collect();
        Self { nodes, levels, timeout: graph.definition().timeout, approvers }
    }

    /// Whether the graph has this node.
    pub(crate) fn has(&self, node: &NodeId) -> bool {
        self.nodes.iter().any(|(id, _)| id == node.as_str())
    }

    /// Whether the node lets this person decide, as far as it says who may.
    pub(crate) fn may_decide(&self, node: &NodeId, person: &Email) -> bool {
        self.approvers.get(node.as_str()).is_none_or(|approvers| approvers.contains(person))
    }
}

/// The people whom a node names. What is no address is nobody's.
fn approvers(node: &Node) -> Option<Vec<Email>> {
    let approvers = node.config.get("approvers").filter(|_| node.node_type == "approval")?.as_array()?;
    Some(approvers.iter().filter_map(Value::as_str).filter_map(|text| text.parse().ok()).collect())
}

impl AppState {
    /// Checks a definition, on a thread of its own, since a large one takes a while. Gives it back with its summary.
    ///
    /// # Errors
    /// A 500 only if the check panicked; what is wrong with the definition is the inner result.
    pub(crate) async fn check_definition(
        &self,
        definition: Value,
    ) -> Result<(Value, Result<GraphSummary, Problems>), Problem> {
        let specs = self.engine.node_specs().clone();
        let check = tokio::task::spawn_blocking(move || {
            let summary = GraphSummary::read(&definition, &specs);
            (definition, summary)
        });
        check.await.map_err(Problem::internal)
    }

    /// The summary of a stored graph.
    ///
    /// # Errors
    /// 503 if the database is away, 500 if the graph is not there or no longer valid.
    pub(crate) async fn graph_summary(&self, graph: Digest) -> Result<Arc<GraphSummary>, Problem> {
        if let Some(summary) = self.graph_summaries.get(&graph) {
            return Ok(summary);
        }
        let definition = self.engine.store().load_graph(graph).await?;
        let specs = self.engine.node_specs().clone();
        let read = tokio::task::spawn_blocking(move || GraphSummary::read_stored(&definition, &specs));
        let summary = Arc::new(read.await.map_err(Problem::internal)?.map_err(Problem::internal)?);
        self.graph_summaries.insert(graph, Arc::clone(&summary));
        Ok(summary)
    }
}
