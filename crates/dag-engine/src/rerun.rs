//! Reruns a graph without repeating kept results: selects the records of the earlier run that the new one starts with.
//!
//! A node that succeeded and stands is kept whole. A node that did not succeed starts again, with what is below it: its
//! effects, and what its child runs achieved ([`Reuse`](crate::Reuse)). Where nobody knew how a node ended, a person's
//! decision about it is applied.

mod decided;
mod reused;

use gathering_domain::{EdgeOn, NodeId, RunId, RunState};

use self::decided::{Applied, apply_decision};
use crate::decisions::NodeDecisions;
use crate::graph::Graph;
use crate::journal::{JournalEntry, JournalEvent, Record};
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

/// A run that is to be continued by another one.
#[derive(Debug, Clone, Copy)]
pub struct EarlierRun<'a> {
    /// Its id.
    pub id: RunId,
    /// Its journal.
    pub journal: &'a [JournalEntry],
    /// How it ended.
    pub ended: RunState,
    /// What people decided about its nodes whose end was unknown.
    pub decisions: &'a NodeDecisions,
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
    Ok(records_without(graph, again, earlier.id, earlier.decisions, run_of))
}

/// The records that a child run starts with that takes up the work of an earlier one: everything that succeeded there.
///
/// # Errors
/// The journal is inconsistent.
pub(crate) fn records_to_take_up(
    graph: &Graph,
    earlier: RunId,
    journal: &[JournalEntry],
    decisions: &NodeDecisions,
) -> Result<Vec<Record>, IllegalRecord> {
    let runs = NodeRun::fold(journal)?;
    let nothing = NodeRun::default();
    let run_of = |node: usize| runs.get(&graph.nodes[node].spec.id).unwrap_or(&nothing);
    let again = (0..graph.nodes.len()).map(|node| !has_succeeded_or_was_skipped(run_of(node))).collect();
    Ok(records_without(graph, again, earlier, decisions, run_of))
}

/// The records of a run in which these nodes, and all after them, start again, unless a decision about them says how they
/// ended.
fn records_without<'a>(
    graph: &Graph,
    mut again: Vec<bool>,
    earlier: RunId,
    decisions: &NodeDecisions,
    run_of: impl Fn(usize) -> &'a NodeRun,
) -> Vec<Record> {
    let mut records = Vec::new();
    let mut ends_otherwise = vec![false; again.len()];
    for &node in &graph.order {
        let mut sources = graph.nodes[node].incoming.iter().map(|&edge| graph.edges[edge].from);
        let is_after_such = sources.any(|from| again[from] || ends_otherwise[from]);
        again[node] |= is_after_such;
        let (id, run) = (&graph.nodes[node].spec.id, run_of(node));
        let applied = decisions.get(id).map(|decision| apply_decision(id, run, decision, earlier));
        match applied {
            Some(Applied::Repeated(of_node)) => {
                again[node] = true;
                records.extend(of_node);
            }
            // After a node that starts again it would be another request, about which nobody decided.
            Some(Applied::Kept { records: of_node, is_other_end }) if !is_after_such => {
                again[node] = false;
                ends_otherwise[node] = is_other_end;
                records.extend(of_node);
            }
            // A person who repeats a node that succeeded wants all of it repeated.
            _ if again[node] && has_succeeded_or_was_skipped(run) => {}
            _ if again[node] => records.extend(reused::entries(id, run, earlier)),
            _ => keep(id, run, &mut records),
        }
    }
    records
}

fn has_succeeded_or_was_skipped(run: &NodeRun) -> bool {
    matches!(run.state, NodeState::Succeeded | NodeState::Skipped)
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
