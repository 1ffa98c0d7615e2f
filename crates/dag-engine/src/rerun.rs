//! Continues a run that has ended by another one, without repeating what stands.
//!
//! A node is kept whole if it succeeded and would do the same again: the same type, the same computed config, the same
//! nodes before it, all of them kept. A node that did not succeed starts again, with what is below it: its effects, and
//! what its child runs achieved ([`Reuse`](crate::Reuse)). Where nobody knew how a node ended, a person's decision about it
//! is applied. Everything else runs as if for the first time.

use std::collections::HashMap;
use std::sync::Arc;

use gathering_domain::{EdgeOn, NodeId, ProjectId, RunId, RunState};
use serde_json::Value;

use self::comparison::Comparison;
use self::decided::{Applied, apply_decision};
use self::reused::keep;
use crate::decisions::NodeDecisions;
use crate::graph::Graph;
use crate::journal::{JournalEntry, Record};
use crate::node_run::{IllegalRecord, NodeRun, NodeState};
use crate::progress::ReplayError;

mod comparison;
mod decided;
mod reused;

/// Where a rerun starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RerunFrom {
    /// At the beginning: nothing is kept.
    Start,
    /// At the nodes that did not succeed or were changed; where there are none and the run did not succeed, at its output.
    Failed,
    /// At this node.
    Node(NodeId),
}

/// Why a run cannot be rerun from there.
#[derive(Debug, thiserror::Error)]
pub enum RerunRefused {
    /// It succeeded, so did every node that ran, and neither the definition nor the input was changed.
    #[error("no node of this run failed: run it again from the start or from a node")]
    NothingFailed,
    /// The graph does not have it.
    #[error("there is no node `{0}`")]
    UnknownNode(NodeId),
    /// The journal is inconsistent.
    #[error("the run's journal is corrupt")]
    Corrupt(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<IllegalRecord> for RerunRefused {
    fn from(error: IllegalRecord) -> Self {
        Self::Corrupt(error.into())
    }
}

impl From<ReplayError> for RerunRefused {
    fn from(error: ReplayError) -> Self {
        Self::Corrupt(error.into())
    }
}

/// A run that is to be continued by another one.
#[derive(Debug, Clone, Copy)]
pub struct EarlierRun<'a> {
    /// Its id.
    pub id: RunId,
    /// Its project.
    pub project: ProjectId,
    /// What it executed.
    pub graph: &'a Arc<Graph>,
    /// Its input.
    pub input: &'a Value,
    /// Its journal.
    pub journal: &'a [JournalEntry],
    /// What people decided about its nodes whose end was unknown.
    pub decisions: &'a NodeDecisions,
}

/// The run that continues it.
#[derive(Debug, Clone, Copy)]
pub struct Continuation<'a> {
    /// What it executes: the same graph, or a corrected one.
    pub graph: &'a Arc<Graph>,
    /// Its input.
    pub input: &'a Value,
    /// Where it starts.
    pub from: &'a RerunFrom,
}

/// What a run that continues an earlier one does with each node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RerunPlan {
    /// The first entries of the new run's journal: the results that are kept, and what the other nodes reuse.
    pub records: Vec<Record>,
    /// The nodes whose results are kept, in a topological order.
    pub kept: Vec<NodeId>,
    /// The nodes that run, in a topological order.
    pub not_kept: Vec<NotKept>,
}

/// A node that runs in a rerun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotKept {
    /// The node.
    pub node: NodeId,
    /// Why its result is not kept.
    pub reason: NotKeptReason,
    /// How many of its effects are done already and are not repeated with the same request.
    pub n_reused_effects: usize,
}

/// Why the result of a node is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotKeptReason {
    /// The rerun is to start at the beginning.
    #[error("the rerun starts at the beginning")]
    FromStart,
    /// The rerun is to start at this node.
    #[error("the rerun starts at this node")]
    StartsHere,
    /// The earlier definition does not have the node.
    #[error("the node is new")]
    New,
    /// A node before it runs.
    #[error("it comes after `{0}`, which runs")]
    Upstream(NodeId),
    /// A node before it ends in another way than it did, as a person decided.
    #[error("it comes after `{0}`, which a person decided about")]
    UpstreamDecided(NodeId),
    /// A person decided to repeat it.
    #[error("a person decided to repeat it")]
    Decided,
    /// It did not succeed.
    #[error("{}", not_succeeded(*.0))]
    NotSucceeded(NodeState),
    /// It has another type.
    #[error("its type was changed")]
    TypeChanged,
    /// The edges to it come from other nodes, or lead to it where they did not, or the other way round.
    #[error("the edges to it were changed")]
    EdgesChanged,
    /// Its config has another value.
    #[error("its config has another value")]
    ConfigChanged,
    /// It depends on a part of the run's input that was changed.
    #[error("the input that it depends on was changed")]
    InputChanged,
}

fn not_succeeded(state: NodeState) -> String {
    match state {
        NodeState::Pending => "it was not reached".to_owned(),
        state => format!("it has not succeeded: {}", state.as_str().replace('_', " ")),
    }
}

impl NotKeptReason {
    /// The names of all reasons.
    pub const NAMES: [&'static str; 11] = [
        "from_start",
        "starts_here",
        "new",
        "upstream",
        "upstream_decided",
        "decided",
        "not_succeeded",
        "type_changed",
        "edges_changed",
        "config_changed",
        "input_changed",
    ];

    /// Its name for programs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            NotKeptReason::FromStart => "from_start",
            NotKeptReason::StartsHere => "starts_here",
            NotKeptReason::New => "new",
            NotKeptReason::Upstream(_) => "upstream",
            NotKeptReason::UpstreamDecided(_) => "upstream_decided",
            NotKeptReason::Decided => "decided",
            NotKeptReason::NotSucceeded(_) => "not_succeeded",
            NotKeptReason::TypeChanged => "type_changed",
            NotKeptReason::EdgesChanged => "edges_changed",
            NotKeptReason::ConfigChanged => "config_changed",
            NotKeptReason::InputChanged => "input_changed",
        }
    }
}

/// Plans a run that continues an earlier one, which ended like this. With a corrected graph or another input, each result
/// is compared with what it would be made of now; that takes as long as evaluating all expressions of both graphs.
///
/// # Errors
/// [`RerunRefused`].
pub fn plan_rerun(
    earlier: EarlierRun<'_>,
    ended: RunState,
    new: Continuation<'_>,
) -> Result<RerunPlan, RerunRefused> {
    if let RerunFrom::Node(id) = new.from
        && !new.graph.by_id.contains_key(id.as_str())
    {
        return Err(RerunRefused::UnknownNode(id.clone()));
    }
    let plan = plan(earlier, new, false)?;
    if plan.not_kept.is_empty() && ended == RunState::Succeeded && !is_corrected(earlier, new) {
        return Err(RerunRefused::NothingFailed);
    }
    Ok(plan)
}

/// The records that a child run starts with that takes up the work of an earlier one: what succeeded there and would be
/// the same again.
///
/// # Errors
/// The journal is inconsistent.
pub(crate) fn records_to_take_up(
    earlier: EarlierRun<'_>,
    new: Continuation<'_>,
    is_item: bool,
) -> Result<Vec<Record>, RerunRefused> {
    Ok(plan(earlier, new, is_item)?.records)
}

fn plan(earlier: EarlierRun<'_>, new: Continuation<'_>, is_item: bool) -> Result<RerunPlan, RerunRefused> {
    let runs = NodeRun::fold(earlier.journal)?;
    let comparison =
        if is_corrected(earlier, new) { Some(Comparison::new(earlier, new, is_item)?) } else { None };
    Planner { earlier, runs, from: new.from, comparison }.plan(new.graph)
}

fn is_corrected(earlier: EarlierRun<'_>, new: Continuation<'_>) -> bool {
    new.graph.definition() != earlier.graph.definition() || new.input != earlier.input
}

/// Plans the nodes of the new graph, one after the other.
struct Planner<'a> {
    earlier: EarlierRun<'a>,
    runs: HashMap<NodeId, NodeRun>,
    from: &'a RerunFrom,
    /// Absent if neither the graph nor the input was changed.
    comparison: Option<Comparison<'a>>,
}

/// What becomes of a node.
enum Fate {
    /// Its end is kept. What follows it is not, if it is another end than before.
    Kept { records: Vec<Record>, is_other_end: bool },
    /// It runs, and begins with these records.
    Runs { records: Vec<Record>, reason: NotKeptReason },
}

impl Planner<'_> {
    fn plan(mut self, graph: &Graph) -> Result<RerunPlan, RerunRefused> {
        let mut plan = RerunPlan::default();
        // Per node: why what follows it is not kept.
        let mut changes: Vec<Option<NotKeptReason>> = vec![None; graph.nodes.len()];
        for &node in &graph.order {
            let id = &graph.nodes[node].spec.id;
            let mut sources = graph.nodes[node].incoming.iter().map(|&edge| graph.edges[edge].from);
            let upstream = sources.find_map(|from| changes[from].clone());
            match self.fate_of(node, id, upstream) {
                Fate::Kept { records, is_other_end } => {
                    if let Some(comparison) = &mut self.comparison {
                        comparison.keep(&records)?;
                    }
                    plan.records.extend(records);
                    plan.kept.push(id.clone());
                    changes[node] = is_other_end.then(|| NotKeptReason::UpstreamDecided(id.clone()));
                }
                Fate::Runs { records, reason } => {
                    let n_reused_effects = reused::n_done(&records);
                    plan.records.extend(records);
                    plan.not_kept.push(NotKept { node: id.clone(), reason, n_reused_effects });
                    changes[node] = Some(NotKeptReason::Upstream(id.clone()));
                }
            }
        }
        Ok(plan)
    }

    /// `upstream` says why what follows a direct predecessor is not kept.
    fn fate_of(&self, node: usize, id: &NodeId, upstream: Option<NotKeptReason>) -> Fate {
        let runs = |reason| Fate::Runs { records: Vec::new(), reason };
        let Some(&old_node) = self.earlier.graph.by_id.get(id.as_str()) else {
            return runs(NotKeptReason::New);
        };
        if *self.from == RerunFrom::Start {
            return runs(NotKeptReason::FromStart);
        }
        let nothing = NodeRun::default();
        let run = self.runs.get(id).unwrap_or(&nothing);
        let decision = self.earlier.decisions.get(id);
        match decision.map(|decision| apply_decision(id, run, decision, self.earlier.id)) {
            Some(Applied::Repeated(records)) => Fate::Runs { records, reason: NotKeptReason::Decided },
            // After a node that runs it would be another request, about which nobody decided.
            Some(Applied::Kept { records, is_other_end }) if upstream.is_none() => {
                match self.find_change(node, old_node, run) {
                    None => Fate::Kept { records, is_other_end },
                    Some(reason) => runs(reason),
                }
            }
            _ => match self.why_not(node, old_node, run, upstream) {
                None => Fate::Kept { records: keep(id, run, self.earlier.id), is_other_end: false },
                // A node that succeeded and runs all the same is to be repeated as a whole.
                Some(reason) if matches!(run.state, NodeState::Succeeded | NodeState::Skipped) => {
                    runs(reason)
                }
                Some(reason) => Fate::Runs { records: reused::entries(id, run, self.earlier.id), reason },
            },
        }
    }

    /// Why the end of a node about which nobody decided is not kept.
    fn why_not(
        &self,
        node: usize,
        old_node: usize,
        run: &NodeRun,
        upstream: Option<NotKeptReason>,
    ) -> Option<NotKeptReason> {
        let old_id = &self.earlier.graph.nodes[old_node].spec.id;
        if matches!(self.from, RerunFrom::Node(chosen) if chosen == old_id) {
            return Some(NotKeptReason::StartsHere);
        }
        if upstream.is_some() {
            return upstream;
        }
        if !self.stands(old_node, run) {
            return Some(NotKeptReason::NotSucceeded(run.state));
        }
        self.find_change(node, old_node, run)
    }

    fn find_change(&self, node: usize, old_node: usize, run: &NodeRun) -> Option<NotKeptReason> {
        self.comparison.as_ref().and_then(|comparison| comparison.find_change(node, old_node, run))
    }

    /// Whether the node's end did not fail the run. From `failed`, a failure is repeated even if an edge handled it.
    fn stands(&self, old_node: usize, run: &NodeRun) -> bool {
        match (self.from, run.state) {
            // Another time it may find a permit.
            _ if run.was_skipped_at_its_limit() => false,
            (_, NodeState::Succeeded | NodeState::Skipped) => true,
            (RerunFrom::Node(_), NodeState::Failed | NodeState::TimedOut) => self.is_handled(old_node),
            _ => false,
        }
    }

    /// Whether an edge led on from a node that failed.
    fn is_handled(&self, old_node: usize) -> bool {
        let old = self.earlier.graph;
        let outgoing = old.nodes[old_node].outgoing.iter().map(|&edge| &old.edges[edge]);
        outgoing.filter(|edge| edge.on != EdgeOn::Success).any(|edge| {
            let run = self.runs.get(&old.nodes[edge.to].spec.id);
            run.is_some_and(|run| {
                let was_reached =
                    !matches!(run.state, NodeState::Pending | NodeState::Skipped | NodeState::Cancelled);
                was_reached || run.was_skipped_at_its_limit()
            })
        })
    }
}
