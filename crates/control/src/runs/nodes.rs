//! The nodes of a run, as its journal has them.

use std::collections::HashMap;

use gathering_dag_engine::{IllegalRecord, JournalEntry, NodeRun, NodeState, RunStore};
use gathering_domain::{NodeId, RunId, WaitingFor};

use crate::ControlError;

/// How many journal entries are read at a time.
const JOURNAL_PAGE: usize = 5000;

/// The nodes that a journal mentions, folded page by page.
#[derive(Debug, Default)]
pub struct NodeRuns(HashMap<NodeId, NodeRun>);

impl NodeRuns {
    /// Folds the whole journal of a run.
    pub(super) async fn load(store: &dyn RunStore, run: RunId) -> Result<Self, ControlError> {
        let (mut nodes, mut after) = (Self::default(), 0);
        loop {
            let entries = store.load_journal(run, after, JOURNAL_PAGE).await?;
            nodes.apply(&entries).map_err(|illegal| ControlError::Broken(illegal.into()))?;
            match entries.last() {
                Some(last) if entries.len() == JOURNAL_PAGE => after = last.seq,
                _ => return Ok(nodes),
            }
        }
    }

    fn apply(&mut self, entries: &[JournalEntry]) -> Result<(), IllegalRecord> {
        for entry in entries {
            if let Some(node) = &entry.record.node {
                let node = self.0.entry(node.clone()).or_default();
                node.apply(&entry.record.event, entry.record.attempt, entry.at)?;
            }
        }
        Ok(())
    }

    /// The node, if anything happened to it; it is not asked for twice.
    pub fn take(&mut self, node: &NodeId) -> Option<NodeRun> {
        self.0.remove(node)
    }

    /// Whether nothing happened to any node, as far as the journal is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this node waits for a decision.
    pub(super) fn is_waiting_for_approval(&self, node: &NodeId) -> bool {
        self.0.get(node).is_some_and(|node| {
            node.state == NodeState::Waiting && node.waiting_for == Some(WaitingFor::Approval)
        })
    }
}

/// The whole journal of a run.
pub(super) async fn load_journal(
    store: &dyn RunStore,
    run: RunId,
) -> Result<Vec<JournalEntry>, ControlError> {
    let mut all: Vec<JournalEntry> = Vec::new();
    loop {
        let after = all.last().map_or(0, |last| last.seq);
        let entries = store.load_journal(run, after, JOURNAL_PAGE).await?;
        let is_last = entries.len() < JOURNAL_PAGE;
        all.extend(entries);
        if is_last {
            return Ok(all);
        }
    }
}
