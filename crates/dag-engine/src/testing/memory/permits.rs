//! Permits of nodes in memory: one line for all keys.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::{NodeId, RunId};

use super::{MemoryStore, Shared};
use crate::permits::{NodePermit, NodePermits};
use crate::store::StoreError;

/// A node that has a permit, or waits for one.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    permit: NodePermit,
    is_held: bool,
}

impl Asked {
    fn is_of(&self, run: RunId, node: &NodeId) -> bool {
        self.permit.claim.run == run && self.permit.node == *node
    }

    fn shares_with(&self, other: &NodePermit) -> bool {
        let key = |permit: &NodePermit| (permit.scope, permit.node.clone(), permit.key.clone());
        key(&self.permit) == key(other)
    }
}

#[async_trait]
impl NodePermits for MemoryStore {
    async fn ask(&self, permit: &NodePermit) -> Result<bool, StoreError> {
        self.call(|shared| {
            let run = permit.claim.run;
            if let Some(asked) = shared.permits.iter().find(|asked| asked.is_of(run, &permit.node)) {
                return Ok(asked.is_held);
            }
            let claimed = shared.runs.get(&run).filter(|stored| {
                stored.owner == Some(permit.claim.owner) && stored.epoch == permit.claim.epoch
            });
            if claimed.is_none() {
                return Err(StoreError::ClaimLost { run });
            }
            let of_key = || shared.permits.iter().filter(|asked| asked.shares_with(permit));
            let n_held = of_key().filter(|asked| asked.is_held).count();
            let is_held = of_key().all(|asked| asked.is_held) && n_held < permit.limit as usize;
            if !is_held && !permit.waits {
                return Ok(false);
            }
            shared.permits.push(Asked { permit: permit.clone(), is_held });
            Ok(is_held)
        })
        .await
    }
}

impl Shared {
    /// Gives back the permits of these nodes of a run, or of all, and gives them to those that wait.
    pub(super) fn free_permits(&mut self, run: RunId, nodes: Option<&[NodeId]>, now: DateTime<Utc>) {
        self.permits.retain(|asked| {
            let is_named = nodes.is_none_or(|nodes| nodes.contains(&asked.permit.node));
            asked.permit.claim.run != run || !is_named
        });
        for place in 0..self.permits.len() {
            let Asked { permit, is_held } = self.permits[place].clone();
            let of_key = self.permits.iter().filter(|asked| asked.shares_with(&permit) && asked.is_held);
            if is_held || of_key.count() >= permit.limit as usize {
                continue;
            }
            self.permits[place].is_held = true;
            if let Some(waiting) = self.runs.get_mut(&permit.claim.run) {
                waiting.act(now);
            }
        }
    }
}
