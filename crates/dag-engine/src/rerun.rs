//! Reruns a graph without repeating kept results: selects the records of the earlier run that the new one starts with.
//!
//! A node that succeeded and stands is kept whole. A node that did not succeed starts again, with what is below it: its
//! effects, and what its child runs achieved ([`Reuse`]).

use gathering_domain::{EdgeOn, NodeId, RunId, RunState};

use crate::graph::Graph;
use crate::journal::{JournalEntry, JournalEvent, Record, Reuse, ReusedEffect};
use crate::node_run::{IllegalRecord, NodeRun, NodeState};

/// Where a rerun starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RerunFrom {
    /// At the beginning: nothing is kept.
    Start,
    /// At the nodes that did not succeed; where all did and the run did not, at its output.
    Failed,
    /// At this node.
    Node(NodeId),
}

/// Why a run cannot be rerun from there.
#[derive(Debug, thiserror::Error)]
pub enum RerunRefused {
    /// It succeeded, and so did every node that ran.
    #[error("no node of this run failed: run it again from the start or from a node")]
    NothingFailed,
    /// The graph does not have it.
    #[error("there is no node `{0}`")]
    UnknownNode(NodeId),
    /// The journal is inconsistent.
    #[error("the run's journal is corrupt")]
    Corrupt(#[from] IllegalRecord),
}

/// How many earlier runs of a node are remembered.
const MAX_EARLIER_RUNS: usize = 32;

/// A run that is to be continued by another one.
#[derive(Debug, Clone, Copy)]
pub struct EarlierRun<'a> {
    /// Its id.
    pub id: RunId,
    /// Its journal.
    pub journal: &'a [JournalEntry],
    /// How it ended.
    pub ended: RunState,
}

/// The records that the new run starts with. They are its first entries in the journal: the results of the nodes that
/// are kept, which are neither at the chosen point nor after it and whose end did not fail the run, and what the others
/// reuse.
///
/// # Errors
/// [`RerunRefused`].
pub fn records_that_stand(
    graph: &Graph,
    earlier: EarlierRun<'_>,
    from: &RerunFrom,
) -> Result<Vec<Record>, RerunRefused> {
    if *from == RerunFrom::Start {
        return Ok(Vec::new());
    }
    let runs = NodeRun::fold(earlier.journal)?;
    let nothing = NodeRun::default();
    let run_of = |node: usize| runs.get(&graph.nodes[node].spec.id).unwrap_or(&nothing);
    let again: Vec<bool> = match from {
        RerunFrom::Start => Vec::new(),
        RerunFrom::Failed => {
            (0..graph.nodes.len()).map(|node| !has_succeeded_or_was_skipped(run_of(node))).collect()
        }
        RerunFrom::Node(id) => {
            let chosen =
                *graph.by_id.get(id.as_str()).ok_or_else(|| RerunRefused::UnknownNode(id.clone()))?;
            let stands = |node: usize| match run_of(node).state {
                NodeState::Failed | NodeState::TimedOut => is_caught(graph, node, &run_of),
                _ => has_succeeded_or_was_skipped(run_of(node)),
            };
            (0..graph.nodes.len()).map(|node| node == chosen || !stands(node)).collect()
        }
    };
    if !again.contains(&true) && earlier.ended == RunState::Succeeded {
        return Err(RerunRefused::NothingFailed);
    }
    Ok(records_without(graph, again, earlier.id, run_of))
}

/// The records that a child run starts with that takes up the work of an earlier one: everything that succeeded there.
///
/// # Errors
/// The journal is inconsistent.
pub(crate) fn records_to_take_up(
    graph: &Graph,
    earlier: RunId,
    journal: &[JournalEntry],
) -> Result<Vec<Record>, IllegalRecord> {
    let runs = NodeRun::fold(journal)?;
    let nothing = NodeRun::default();
    let run_of = |node: usize| runs.get(&graph.nodes[node].spec.id).unwrap_or(&nothing);
    let again = (0..graph.nodes.len()).map(|node| !has_succeeded_or_was_skipped(run_of(node))).collect();
    Ok(records_without(graph, again, earlier, run_of))
}

/// The records of a run in which these nodes, and all after them, start again.
fn records_without<'a>(
    graph: &Graph,
    mut again: Vec<bool>,
    earlier: RunId,
    run_of: impl Fn(usize) -> &'a NodeRun,
) -> Vec<Record> {
    let mut records = Vec::new();
    for &node in &graph.order {
        let mut sources = graph.nodes[node].incoming.iter().map(|&edge| graph.edges[edge].from);
        again[node] |= sources.any(|from| again[from]);
        let (id, run) = (&graph.nodes[node].spec.id, run_of(node));
        if again[node] {
            records.extend(reuse(run, earlier).map(|event| Record::of_node(id.clone(), 0, event)));
        } else {
            keep(id, run, &mut records);
        }
    }
    records
}

fn has_succeeded_or_was_skipped(run: &NodeRun) -> bool {
    matches!(run.state, NodeState::Succeeded | NodeState::Skipped)
}

/// What the node reuses that starts again. A person who repeats a node that succeeded wants all of it repeated.
fn reuse(run: &NodeRun, earlier: RunId) -> Option<JournalEvent> {
    if has_succeeded_or_was_skipped(run) {
        return None;
    }
    let began = (run.attempt > 0).then_some(earlier);
    let from_runs: Vec<RunId> =
        began.into_iter().chain(run.earlier_runs.iter().copied()).take(MAX_EARLIER_RUNS).collect();
    let effects = run.effects.values().map(|effect| ReusedEffect {
        planned_by: effect.planned_by.unwrap_or(earlier),
        start: effect.start.clone(),
        end: effect.end.clone(),
    });
    let reuse = Reuse { effects: effects.collect(), from_runs };
    (!reuse.from_runs.is_empty()).then_some(JournalEvent::Reused(reuse))
}

/// Whether an edge led on from a node that failed.
fn is_caught<'a>(graph: &Graph, node: usize, run_of: &impl Fn(usize) -> &'a NodeRun) -> bool {
    let outgoing = graph.nodes[node].outgoing.iter().map(|&edge| &graph.edges[edge]);
    outgoing.filter(|edge| edge.on != EdgeOn::Success).any(|edge| {
        !matches!(run_of(edge.to).state, NodeState::Pending | NodeState::Skipped | NodeState::Cancelled)
    })
}

fn keep(id: &NodeId, run: &NodeRun, records: &mut Vec<Record>) {
    let end = match (run.state, &run.output, &run.failure) {
        (NodeState::Succeeded, Some(output), _) => JournalEvent::Succeeded { output: output.clone() },
        (NodeState::Failed | NodeState::TimedOut, _, Some(failure)) => JournalEvent::Failed(failure.clone()),
        _ => return records.push(Record::of_node(id.clone(), 0, JournalEvent::Skipped)),
    };
    records.push(Record::of_node(id.clone(), 1, JournalEvent::Started));
    records.push(Record::of_node(id.clone(), 1, end));
}
