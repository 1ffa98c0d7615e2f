//! Compares a node of a corrected graph with what was executed: whether it would do the same again.

use std::collections::BTreeSet;

use chrono::DateTime;

use super::{Continuation, EarlierRun, NotKeptReason};
use crate::graph::Graph;
use crate::journal::Record;
use crate::node_run::{NodeRun, NodeState};
use crate::progress::{Progress, ReplayError, RunScope};

/// The earlier run as it ended, and the new one as far as its results are kept.
pub(super) struct Comparison<'a> {
    earlier: EarlierRun<'a>,
    new: Continuation<'a>,
    as_ended: Progress,
    as_kept: Progress,
}

impl<'a> Comparison<'a> {
    /// # Errors
    /// [`ReplayError`] if the journal does not belong to the earlier graph.
    pub(super) fn new(
        earlier: EarlierRun<'a>,
        new: Continuation<'a>,
        is_item: bool,
    ) -> Result<Self, ReplayError> {
        // Expressions see one id in both: another id alone changes nothing.
        let scope = RunScope { run: earlier.id, project: earlier.project, is_item };
        let mut as_ended = Progress::new(earlier.graph.clone(), scope, earlier.input.clone());
        as_ended.replay(earlier.journal)?;
        let as_kept = Progress::new(new.graph.clone(), scope, new.input.clone());
        Ok(Self { earlier, new, as_ended, as_kept })
    }

    /// Takes in the records of a node that is kept.
    pub(super) fn keep(&mut self, records: &[Record]) -> Result<(), ReplayError> {
        self.as_kept.inherit(records, DateTime::UNIX_EPOCH)
    }

    /// What was changed about a node whose predecessors are all kept; `None` if it would do the same again.
    pub(super) fn find_change(&self, node: usize, old_node: usize, run: &NodeRun) -> Option<NotKeptReason> {
        let (old, new) = (&self.earlier.graph.nodes[old_node], &self.new.graph.nodes[node]);
        if old.spec.node_type != new.spec.node_type {
            return Some(NotKeptReason::TypeChanged);
        }
        let is_skipped = run.state == NodeState::Skipped;
        let has_same_sources = sources(self.earlier.graph, old_node) == sources(self.new.graph, node);
        if !has_same_sources || self.as_kept.is_due(node) == is_skipped {
            return Some(NotKeptReason::EdgesChanged);
        }
        if is_skipped {
            return None;
        }
        let configs = (old.config.resolve(&self.as_ended), new.config.resolve(&self.as_kept));
        if !matches!(configs, (Ok(old), Ok(new)) if old == new) {
            return Some(NotKeptReason::ConfigChanged);
        }
        let reads_the_same = new.reads_the_same(&self.as_ended.input, &self.as_kept.input);
        (!reads_the_same).then_some(NotKeptReason::InputChanged)
    }
}

fn sources(graph: &Graph, node: usize) -> BTreeSet<&str> {
    let incoming = graph.nodes[node].incoming.iter().map(|&edge| graph.edges[edge].from);
    incoming.map(|from| graph.nodes[from].spec.id.as_str()).collect()
}
