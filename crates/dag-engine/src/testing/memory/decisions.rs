//! Decisions in memory.

use std::collections::hash_map::Entry;

use async_trait::async_trait;
use gathering_domain::{NodeId, RunId};

use super::MemoryStore;
use crate::decisions::{Decision, Decisions, NodeDecision};
use crate::store::StoreError;

impl MemoryStore {
    /// Records a decision, as the API would, and marks its run. Returns whether the decision was accepted: not if the
    /// run has ended, or if the node already has one.
    pub fn decide(&self, run: RunId, node: &NodeId, decision: Decision) -> bool {
        let now = self.clock.now();
        let mut shared = self.lock();
        let shared = &mut *shared;
        let alive = shared.runs.get_mut(&run).filter(|run| !run.state.is_terminal());
        match (alive, shared.decisions.entry((run, node.clone()))) {
            (Some(run), Entry::Vacant(place)) => {
                place.insert(decision);
                run.act(now);
                true
            }
            _ => false,
        }
    }

    /// Records a decision about a node whose end is unknown, as the API would. Returns whether it was accepted: not if
    /// the run has not ended, or if the node already has one.
    pub fn decide_outcome(&self, run: RunId, node: &NodeId, decision: NodeDecision) -> bool {
        let mut shared = self.lock();
        let has_ended = shared.runs.get(&run).is_some_and(|run| run.state.is_terminal());
        match (has_ended, shared.outcomes.entry(run).or_default().entry(node.clone())) {
            (true, Entry::Vacant(place)) => {
                place.insert(decision);
                true
            }
            _ => false,
        }
    }
}

#[async_trait]
impl Decisions for MemoryStore {
    async fn find_decision(&self, run: RunId, node: &NodeId) -> Result<Option<Decision>, StoreError> {
        self.call(|shared| Ok(shared.decisions.get(&(run, node.clone())).cloned())).await
    }
}
