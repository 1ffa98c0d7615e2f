//! Graphs as this crate needs them: checked before they are stored, summarized where runs of them are started, decided
//! and shown.

mod run_rules;

use std::collections::HashMap;
use std::sync::Arc;

use gathering_agents::AgentDefinition;
use gathering_cache::BoundedCache;
use gathering_dag_engine::{Graph, NodeSpecs, RunStore};
use gathering_domain::{Digest, Email, Node, NodeId, Problems, ProjectId};
use gathering_nodes::ProjectSpecs;
use serde_json::Value;

use crate::ControlError;

pub(crate) use self::run_rules::below_input;
pub use self::run_rules::{Admission, RunRules};

/// What is worth knowing of a graph beside its runs: its nodes in a topological order, its limits, its approvers.
#[derive(Debug, PartialEq)]
pub struct GraphSummary {
    /// Ids and types, in a topological order.
    pub nodes: Vec<(String, String)>,
    /// The ids by depth.
    pub levels: Vec<Vec<String>>,
    /// What holds for every run.
    pub rules: RunRules,
    /// Who may decide about a node, where it says so.
    approvers: HashMap<String, Vec<Email>>,
}

impl GraphSummary {
    /// The summary of a definition.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(definition: &Value, specs: &NodeSpecs) -> Result<Self, Problems> {
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
        let rules = RunRules {
            timeout: graph.definition().timeout,
            input: graph.input_schema().cloned(),
            limits: graph.run_limits().cloned(),
        };
        Self { nodes, levels, rules, approvers }
    }

    /// Whether the graph has this node.
    pub fn has(&self, node: &NodeId) -> bool {
        self.nodes.iter().any(|(id, _)| id == node.as_str())
    }

    /// Whether a node may call a tool.
    pub fn calls_tools(&self) -> bool {
        self.nodes.iter().any(|(_, node_type)| matches!(node_type.as_str(), "tool" | "agent"))
    }

    /// Whether the node lets this person decide: a node without a list of approvers lets everybody.
    pub fn may_decide(&self, node: &NodeId, person: &Email) -> bool {
        self.approvers.get(node.as_str()).is_none_or(|approvers| approvers.contains(person))
    }
}

/// The approvers that a node names. A text that is not an address names nobody.
fn approvers(node: &Node) -> Option<Vec<Email>> {
    let approvers = node.config.get("approvers").filter(|_| node.node_type == "approval")?.as_array()?;
    Some(approvers.iter().filter_map(Value::as_str).filter_map(|text| text.parse().ok()).collect())
}

/// The stored graphs, with a bounded cache of their summaries: a graph never changes. Cloning is cheap and shares both.
#[derive(Clone)]
pub struct Graphs {
    store: Arc<dyn RunStore>,
    specs: NodeSpecs,
    of_projects: Option<ProjectSpecs>,
    summaries: Arc<BoundedCache<Digest, Arc<GraphSummary>>>,
    /// Graphs that are known to be stored: they are added and never deleted.
    stored: Arc<BoundedCache<Digest, ()>>,
}

/// How many graphs are known to be stored: those of the pipelines, tools and agents in use.
const N_STORED: u64 = 4096;

impl Graphs {
    /// The graphs of this store, whose nodes have these types. At most `n_cached` summaries are kept; at least 1.
    pub fn new(store: Arc<dyn RunStore>, specs: NodeSpecs, n_cached: u64) -> Self {
        let summaries = Arc::new(BoundedCache::new("graphs", n_cached));
        let stored = Arc::new(BoundedCache::new("stored_graphs", N_STORED));
        Self { store, specs, of_projects: None, summaries, stored }
    }

    /// The same, where the tools of a project are known when a definition of it is checked.
    #[must_use]
    pub fn with_project_specs(self, of_projects: ProjectSpecs) -> Self {
        Self { of_projects: Some(of_projects), ..self }
    }

    /// The store where the graphs and journals are.
    pub(crate) const fn store(&self) -> &Arc<dyn RunStore> {
        &self.store
    }

    /// The types of nodes that a definition may use.
    pub(crate) const fn specs(&self) -> &NodeSpecs {
        &self.specs
    }

    /// Checks a definition, on a thread of its own, since a large one takes a while. Gives it back with its summary, or
    /// with everything that is wrong with it. Stores nothing.
    ///
    /// # Errors
    /// [`ControlError::Broken`] only if the check panicked.
    pub async fn check(
        &self,
        definition: Value,
    ) -> Result<(Value, Result<GraphSummary, Problems>), ControlError> {
        Self::check_with(self.specs.clone(), definition).await
    }

    /// As [`Graphs::check`], for a definition of this project: a tool that the project has not got is a problem.
    ///
    /// # Errors
    /// [`ControlError::Unavailable`], if the tools of the project cannot be read; [`ControlError::Broken`].
    pub async fn check_in(
        &self,
        project: ProjectId,
        definition: Value,
    ) -> Result<(Value, Result<GraphSummary, Problems>), ControlError> {
        let specs = match &self.of_projects {
            Some(of_projects) => of_projects.of(project, &self.specs).await?,
            None => self.specs.clone(),
        };
        Self::check_with(specs, definition).await
    }

    /// Reads the definition of an agent of this project. A tool that the project has not got is a problem, if its tools are
    /// known here.
    ///
    /// # Errors
    /// [`ControlError::Unavailable`], if the tools of the project cannot be read.
    pub(crate) async fn read_agent(
        &self,
        project: ProjectId,
        definition: &Value,
    ) -> Result<Result<AgentDefinition, Problems>, ControlError> {
        Ok(match &self.of_projects {
            Some(of_projects) => of_projects.agents_of(project).await?.read(definition),
            None => AgentDefinition::parse(definition),
        })
    }

    async fn check_with(
        specs: NodeSpecs,
        definition: Value,
    ) -> Result<(Value, Result<GraphSummary, Problems>), ControlError> {
        let check = tokio::task::spawn_blocking(move || {
            let summary = GraphSummary::read(&definition, &specs);
            (definition, summary)
        });
        check.await.map_err(|panicked| ControlError::Broken(panicked.into()))
    }

    /// Stores a definition that was checked before. Repeats: safe, and cheap.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn ensure(&self, definition: &Value) -> Result<Digest, ControlError> {
        let graph = Digest::of_json(definition);
        if self.stored.get(&graph).is_none() {
            self.store.ensure_graph(graph, definition).await?;
            self.stored.insert(graph, ());
        }
        Ok(graph)
    }

    /// The summary of a stored graph.
    ///
    /// # Errors
    /// [`ControlError::Unavailable`], or [`ControlError::Broken`] if the graph is absent or no longer valid.
    pub async fn summarize(&self, graph: Digest) -> Result<Arc<GraphSummary>, ControlError> {
        if let Some(summary) = self.summaries.get(&graph) {
            return Ok(summary);
        }
        let definition = self.store.load_graph(graph).await?;
        let specs = self.specs.clone();
        let read = tokio::task::spawn_blocking(move || GraphSummary::read_stored(&definition, &specs));
        let read = read.await.map_err(|panicked| ControlError::Broken(panicked.into()))?;
        let summary = Arc::new(read.map_err(|problems| ControlError::Broken(problems.into()))?);
        self.summaries.insert(graph, Arc::clone(&summary));
        Ok(summary)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn approvers_decide_alone_and_without_them_everybody_does() {
        let definition = json!({"nodes": [
            {"id": "named", "type": "approval", "config": {"message": "?", "approvers": ["ada@example.org"]}},
            {"id": "open", "type": "approval", "config": {"message": "?"}},
        ]});
        let specs = NodeSpecs::builtin();
        let summary = GraphSummary::read(&definition, &specs).unwrap();
        let node = |id: &str| id.parse::<NodeId>().unwrap();
        let (ada, bob) = ("ada@example.org".parse().unwrap(), "bob@example.org".parse().unwrap());
        assert!(summary.has(&node("named")) && !summary.has(&node("other")));
        assert!(summary.may_decide(&node("named"), &ada) && !summary.may_decide(&node("named"), &bob));
        assert!(summary.may_decide(&node("open"), &bob));
    }
}
