//! Reruns a graph without repeating kept results: selects the records of the earlier run that the new one starts with.

use gathering_domain::{EdgeOn, NodeId, RunState};

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

/// The records of the nodes that are kept: those that are neither at the chosen point nor after it, and whose end did
/// not fail the run. They are the first entries of the new run's journal. `ended` is the end of the earlier run.
///
/// # Errors
/// [`RerunRefused`].
pub fn records_that_stand(
    graph: &Graph,
    journal: &[JournalEntry],
    ended: RunState,
    from: &RerunFrom,
) -> Result<Vec<Record>, RerunRefused> {
    if *from == RerunFrom::Start {
        return Ok(Vec::new());
    }
    let runs = NodeRun::fold(journal)?;
    let nothing = NodeRun::default();
    let run_of = |node: usize| runs.get(&graph.nodes[node].spec.id).unwrap_or(&nothing);
    let mut again: Vec<bool> = match from {
        RerunFrom::Start => Vec::new(),
        RerunFrom::Failed => (0..graph.nodes.len())
            .map(|node| !matches!(run_of(node).state, NodeState::Succeeded | NodeState::Skipped))
            .collect(),
        RerunFrom::Node(id) => {
            let chosen =
                *graph.by_id.get(id.as_str()).ok_or_else(|| RerunRefused::UnknownNode(id.clone()))?;
            let stands = |node: usize| match run_of(node).state {
                NodeState::Succeeded | NodeState::Skipped => true,
                NodeState::Failed | NodeState::TimedOut => is_caught(graph, node, &run_of),
                _ => false,
            };
            (0..graph.nodes.len()).map(|node| node == chosen || !stands(node)).collect()
        }
    };
    if !again.contains(&true) && ended == RunState::Succeeded {
        return Err(RerunRefused::NothingFailed);
    }
    let mut records = Vec::new();
    for &node in &graph.order {
        let mut sources = graph.nodes[node].incoming.iter().map(|&edge| graph.edges[edge].from);
        again[node] |= sources.any(|from| again[from]);
        if !again[node] {
            keep(&graph.nodes[node].spec.id, run_of(node), &mut records);
        }
    }
    Ok(records)
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
