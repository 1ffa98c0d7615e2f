//! How far a run is: the nodes, the edges, and what follows from them. Pure; used while driving and on replay alike.
//!
//! Each node and edge is visited once, when it is resolved, so a run costs time linear in its graph.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use gathering_domain::{EdgeOn, FailureKind, Join, NodeId, ProjectId, RunId, WaitingFor};
use serde_json::{Map, Value, json};

use crate::expression::{EvaluationError, Scope};
use crate::graph::{Graph, GraphEdge};
use crate::journal::{JournalEntry, JournalEvent, NodeFailure, Record, Seq};
use crate::node_run::{IllegalRecord, NodeRun, NodeState};
use crate::store::ClaimedRun;
use crate::values::{Room, ValueLimit, ValueRole, check_value};

/// How far a run is.
#[derive(Debug)]
pub(crate) struct Progress {
    graph: Arc<Graph>,
    scope: RunScope,
    pub(crate) input: Arc<Value>,
    /// The item of a list that the run executes, if it is one.
    item: Option<Item>,
    nodes: Vec<NodeRun>,
    /// Per node: incoming edges that are not resolved yet, and those that were taken.
    unresolved: Vec<usize>,
    taken: Vec<usize>,
    /// Nodes that are resolved while the edges out of them are not.
    to_resolve: VecDeque<usize>,
    n_resolved: usize,
    /// How many nodes wait, by wait reason.
    n_waiting: BTreeMap<WaitingFor, usize>,
    has_failures: bool,
    /// Per node: the first edge out of it whose `when` has no value.
    edge_failures: BTreeMap<usize, NodeFailure>,
    /// The nodes with a failure, of their own or of an edge, that no edge handles, in the order of their ends.
    unhandled: Vec<usize>,
    /// What follows from the edges that were resolved since the last [`Progress::advance`].
    advance: Advance,
}

/// What expressions see of the run itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunScope {
    pub(crate) run: RunId,
    pub(crate) project: ProjectId,
    /// Whether it is an item of a `map`: its input holds the item beside the input of the run that has the `map`.
    pub(crate) is_item: bool,
}

impl RunScope {
    pub(crate) const fn of(claimed: &ClaimedRun) -> Self {
        Self { run: claimed.claim.run, project: claimed.project, is_item: claimed.is_item() }
    }
}

/// One element of the list of a `map`.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) value: Value,
    pub(crate) index: u32,
}

/// What follows from the nodes that were resolved.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Advance {
    /// Nodes whose attempts may begin, in order.
    pub(crate) ready: Vec<usize>,
    /// Nodes to which no edge was taken, to be recorded as skipped.
    pub(crate) skipped: Vec<usize>,
}

impl Progress {
    /// A run that has not started.
    pub(crate) fn new(graph: Arc<Graph>, scope: RunScope, mut input: Value) -> Self {
        let item = scope.is_item.then(|| {
            let index = input["index"].as_u64().and_then(|index| u32::try_from(index).ok());
            let item = Item { value: input["item"].take(), index: index.unwrap_or(0) };
            input = input["input"].take();
            item
        });
        let n = graph.nodes.len();
        let unresolved = graph.nodes.iter().map(|node| node.incoming.len()).collect();
        Self {
            graph,
            scope,
            input: Arc::new(input),
            item,
            nodes: vec![NodeRun::default(); n],
            unresolved,
            taken: vec![0; n],
            to_resolve: VecDeque::new(),
            n_resolved: 0,
            n_waiting: BTreeMap::new(),
            has_failures: false,
            edge_failures: BTreeMap::new(),
            unhandled: Vec::new(),
            advance: Advance::default(),
        }
    }

    /// Nodes without incoming edges: what a run begins with.
    pub(crate) fn roots(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.graph.nodes[node].incoming.is_empty()).collect()
    }

    pub(crate) fn node(&self, node: usize) -> &NodeRun {
        &self.nodes[node]
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = (usize, &NodeRun)> {
        self.nodes.iter().enumerate()
    }

    /// Applies a record of a node.
    pub(crate) fn apply(
        &mut self,
        node: usize,
        event: &JournalEvent,
        attempt: i32,
        at: DateTime<Utc>,
    ) -> Result<(), IllegalRecord> {
        let waited_for = self.nodes[node].waiting_for;
        self.nodes[node].apply(event, attempt, at)?;
        let NodeRun { waiting_for, failures, .. } = self.nodes[node];
        self.has_failures |= failures > 0;
        if waiting_for != waited_for {
            if let Some(n) = waited_for.and_then(|on| self.n_waiting.get_mut(&on)) {
                *n -= 1;
            }
            if let Some(on) = waiting_for {
                *self.n_waiting.entry(on).or_default() += 1;
            }
        }
        if self.nodes[node].state.is_resolved() {
            self.to_resolve.push_back(node);
            self.n_resolved += 1;
        }
        Ok(())
    }

    /// Whether a node waits for this. Called often, so it is counted.
    pub(crate) fn is_waiting_for(&self, on: WaitingFor) -> bool {
        self.n_waiting.get(&on).is_some_and(|n| *n > 0)
    }

    /// Whether an attempt of a node failed.
    pub(crate) const fn has_failures(&self) -> bool {
        self.has_failures
    }

    /// Replays a journal, and resolves the edges as the driver that wrote it did: expressions may read their failures.
    pub(crate) fn replay(&mut self, entries: &[JournalEntry]) -> Result<(), ReplayError> {
        for entry in entries {
            let Some(id) = &entry.record.node else { continue };
            self.take_in(id, &entry.record.event, entry.record.attempt, entry.seq, entry.at)?;
        }
        self.resolve_edges();
        Ok(())
    }

    /// Applies the records that the run begins with because it takes up the work of an earlier one.
    pub(crate) fn inherit(&mut self, records: &[Record], at: DateTime<Utc>) -> Result<(), ReplayError> {
        for (seq, Record { node, attempt, event }) in (1..).zip(records) {
            let Some(id) = node else { continue };
            self.take_in(id, event, *attempt, seq, at)?;
        }
        self.resolve_edges();
        Ok(())
    }

    /// Applies the starts that the claim recorded, the first entries of the journal; returns those nodes.
    pub(crate) fn begin(&mut self, started: &[NodeId], at: DateTime<Utc>) -> Result<Vec<usize>, ReplayError> {
        let entries = (1..).zip(started);
        entries.map(|(seq, id)| self.take_in(id, &JournalEvent::Started, 1, seq, at)).collect()
    }

    fn take_in(
        &mut self,
        id: &NodeId,
        event: &JournalEvent,
        attempt: i32,
        seq: Seq,
        at: DateTime<Utc>,
    ) -> Result<usize, ReplayError> {
        let Some(&node) = self.graph.by_id.get(id.as_str()) else {
            return Err(ReplayError::UnknownNode { seq, node: id.to_string() });
        };
        self.apply(node, event, attempt, at).map_err(|source| ReplayError::Illegal { seq, source })?;
        Ok(node)
    }

    /// What follows from the nodes that were resolved since the last call.
    pub(crate) fn advance(&mut self) -> Advance {
        self.resolve_edges();
        std::mem::take(&mut self.advance)
    }

    /// The nodes with a failure that no edge handles, in the order of their ends.
    pub(crate) fn unhandled(&self) -> &[usize] {
        &self.unhandled
    }

    /// Why an edge out of this node could not be decided, if one could not.
    pub(crate) fn edge_failure(&self, node: usize) -> Option<&NodeFailure> {
        self.edge_failures.get(&node)
    }

    /// Decides the edges out of the nodes that were resolved. It reads only what the journal holds of them and of nodes
    /// before them, so replay decides alike.
    fn resolve_edges(&mut self) {
        let graph = Arc::clone(&self.graph);
        while let Some(node) = self.to_resolve.pop_front() {
            // The edges that handle a failure come last: they may read a failure of the others.
            let is_handled =
                self.resolve_edges_of(&graph, node, false) | self.resolve_edges_of(&graph, node, true);
            let has_failed = matches!(self.nodes[node].state, NodeState::Failed | NodeState::TimedOut);
            if !is_handled && (has_failed || self.edge_failures.contains_key(&node)) {
                self.unhandled.push(node);
            }
        }
    }

    /// Resolves the edges of a node that are taken on its failure alone, or the others. Answers whether one was taken that
    /// handles a failure.
    fn resolve_edges_of(&mut self, graph: &Graph, node: usize, on_failure: bool) -> bool {
        let mut is_handled = false;
        let mut failure = None;
        for &edge in &graph.nodes[node].outgoing {
            let GraphEdge { on, to, .. } = graph.edges[edge];
            if (on == EdgeOn::Failure) != on_failure {
                continue;
            }
            let taken = self.is_taken(edge).unwrap_or_else(|error| {
                failure.get_or_insert_with(|| graph.failure_of_edge(edge, &error));
                false
            });
            is_handled |= taken && on != EdgeOn::Success;
            self.unresolved[to] -= 1;
            self.taken[to] += usize::from(taken);
            if self.unresolved[to] == 0 && self.nodes[to].state == NodeState::Pending {
                if self.may_run(to) { self.advance.ready.push(to) } else { self.advance.skipped.push(to) }
            }
        }
        if let Some(failure) = failure {
            self.edge_failures.entry(node).or_insert(failure);
        }
        is_handled
    }

    fn may_run(&self, node: usize) -> bool {
        match self.graph.nodes[node].spec.join {
            Join::Any => self.taken[node] > 0,
            Join::All => self.taken[node] == self.graph.nodes[node].incoming.len(),
        }
    }

    /// Whether the node is to run, once all edges to it are resolved.
    pub(crate) fn is_due(&self, node: usize) -> bool {
        self.graph.nodes[node].incoming.is_empty() || self.may_run(node)
    }

    fn is_taken(&self, edge: usize) -> Result<bool, EvaluationError> {
        let edge = &self.graph.edges[edge];
        let from = &self.nodes[edge.from];
        let on = match (edge.on, from.state) {
            (EdgeOn::Success | EdgeOn::Always, NodeState::Succeeded)
            | (EdgeOn::Failure | EdgeOn::Always, NodeState::Failed | NodeState::TimedOut) => true,
            (EdgeOn::Failure, NodeState::Succeeded) => self.edge_failures.contains_key(&edge.from),
            _ => false,
        };
        if !on {
            return Ok(false);
        }
        match &edge.when {
            Some(when) => Ok(when.evaluate(self)? == Value::Bool(true)),
            // Out of a node that decides, an edge without a condition of its own follows the decision.
            None if self.graph.nodes[edge.from].node_type.decides_edges()
                && from.state == NodeState::Succeeded
                && edge.on == EdgeOn::Success =>
            {
                Ok(from.output.as_ref().is_some_and(|output| output["result"] == Value::Bool(true)))
            }
            None => Ok(true),
        }
    }

    /// Whether nothing is left to happen.
    pub(crate) fn is_complete(&self) -> bool {
        self.n_resolved == self.nodes.len() && self.to_resolve.is_empty()
    }

    /// The run's output: its `output` expression, or the outputs of the succeeded nodes that lead nowhere.
    pub(crate) fn output(&self) -> Result<Value, NoOutput> {
        let output = match &self.graph.output {
            Some(output) => output.evaluate(self)?,
            None => {
                let ends = (0..self.nodes.len()).filter(|&node| self.graph.nodes[node].outgoing.is_empty());
                Value::Object(self.outputs_of(ends, |_| false)?)
            }
        };
        check_value(&output)?;
        Ok(output)
    }

    /// The outputs of a node's direct predecessors by id. A predecessor that collects such outputs itself is left
    /// empty: a chain of them would nest without end, and a lattice would double at every layer. Its content is read
    /// from its own output.
    pub(crate) fn upstream(&self, node: usize) -> Result<Map<String, Value>, ValueLimit> {
        let sources = self.graph.nodes[node].incoming.iter().map(|&edge| self.graph.edges[edge].from);
        self.outputs_of(sources, |from| self.graph.nodes[from].node_type.collects_upstream())
    }

    /// The outputs of these nodes by id, each counted before it is copied.
    fn outputs_of(
        &self,
        nodes: impl Iterator<Item = usize>,
        is_empty: impl Fn(usize) -> bool,
    ) -> Result<Map<String, Value>, ValueLimit> {
        let mut room = Room::default();
        let mut outputs = Map::new();
        for node in nodes {
            let Some(output) = &self.nodes[node].output else { continue };
            let output = if is_empty(node) {
                Value::Object(Map::new())
            } else {
                room.take(output)?;
                output.clone()
            };
            outputs.insert(self.graph.nodes[node].spec.id.to_string(), output);
        }
        Ok(outputs)
    }
}

impl Scope for Progress {
    fn input(&self) -> &Value {
        &self.input
    }

    fn node(&self, id: &str) -> Option<Value> {
        let index = *self.graph.by_id.get(id)?;
        let run = &self.nodes[index];
        let mut node = json!({ "state": run.state.as_str(), "output": run.output });
        if let Some(failure) = run.failure.as_ref().or_else(|| self.edge_failures.get(&index)) {
            // The pause is for the engine: an error has the fields that `ERROR_FIELDS` names.
            node["error"] = json!(failure.clone().with_retry_after(None));
        }
        Some(node)
    }

    fn node_ids(&self) -> Vec<String> {
        self.graph.nodes.iter().map(|node| node.spec.id.to_string()).collect()
    }

    fn item(&self) -> Option<(&Value, u32)> {
        self.item.as_ref().map(|item| (&item.value, item.index))
    }

    fn run(&self) -> Value {
        json!({ "id": self.scope.run, "project_id": self.scope.project })
    }
}

/// Why a run whose nodes are all resolved has no output.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoOutput {
    #[error("/output: {0}")]
    Expression(#[from] EvaluationError),
    #[error("the run's output {0}")]
    Limit(#[from] ValueLimit),
}

impl NoOutput {
    /// The kind of the run's error.
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            NoOutput::Expression(_) => FailureKind::Output,
            NoOutput::Limit(limit) => limit.kind(ValueRole::Output),
        }
    }
}

/// A journal that does not belong to its graph.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    #[error("entry {seq} speaks of node `{node}`, which the graph does not have")]
    UnknownNode { seq: i64, node: String },
    #[error("entry {seq} cannot be replayed")]
    Illegal {
        seq: i64,
        #[source]
        source: IllegalRecord,
    },
}
