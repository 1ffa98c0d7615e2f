//! Decisions in memory.

use std::collections::hash_map::Entry;

use async_trait::async_trait;
use gathering_domain::{NodeId, RunId};

use super::MemoryStore;
use crate::decisions::{Decision, Decisions};
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
}

#[async_trait]
impl Decisions for MemoryStore {
    async fn find_decision(&self, run: RunId, node: &NodeId) -> Result<Option<Decision>, StoreError> {
        self.call(|shared| Ok(shared.decisions.get(&(run, node.clone())).cloned())).await
    }
}
