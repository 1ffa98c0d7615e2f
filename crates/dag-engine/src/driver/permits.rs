//! Nodes whose attempts are limited across runs: what they ask for, and when again.

use futures::FutureExt;
use futures::future::BoxFuture;
use gathering_domain::{FailureKind, NodeConcurrency, NodeOnLimit, Pointer};

use super::Driver;
use super::waiting::Found;
use crate::graph::run_limits::key_of;
use crate::journal::NodeFailure;
use crate::node_type::PollOutcome;
use crate::permits::{Asking, NodePermit, PermitScope};
use crate::store::GraphRole;

impl Driver {
    /// Whose runs share permits with this one. `None` if nothing limits its nodes: a run of the local command line has no
    /// others, and an engine may have no permits.
    pub(super) fn permit_scope(&self) -> Option<PermitScope> {
        self.asking.as_ref()?;
        match self.claimed.role {
            GraphRole::Pipeline(pipeline) => Some(PermitScope::Pipeline(pipeline)),
            GraphRole::Item => Some(PermitScope::Graph(self.claimed.graph)),
            GraphRole::Standalone => None,
        }
    }

    pub(super) fn is_limited(&self, node: usize) -> bool {
        self.graph.nodes[node].spec.concurrency.is_some() && self.permit_scope().is_some()
    }

    /// What a node asks for before its attempt executes; `None` if nothing limits it.
    pub(super) fn permit_of(&self, node: usize) -> Option<Result<(Asking, NodePermit), NodeFailure>> {
        let graph_node = &self.graph.nodes[node];
        let &NodeConcurrency { limit, on_limit, .. } = graph_node.spec.concurrency.as_ref()?;
        let waits = on_limit == NodeOnLimit::Queue || self.was_begun_before(node);
        let (asking, scope) = (self.asking.clone()?, self.permit_scope()?);
        let key = match &graph_node.permit_key {
            None => Ok(String::new()),
            Some(key) => key.evaluate(&self.progress).map_err(|error| error.to_string()).and_then(key_of),
        };
        Some(match key {
            Ok(key) => {
                let (claim, node) = (self.claimed.claim, graph_node.spec.id.clone());
                Ok((asking, NodePermit { claim, node, scope, key, limit, waits }))
            }
            Err(reason) => {
                let at = Pointer::root().join("nodes").join(node).join("concurrency").join("key");
                Err(NodeFailure::permanent(FailureKind::Expression, format!("{at}: {reason}")))
            }
        })
    }

    /// Whether the node failed before, in this run or in one whose work it takes up. To skip it would hide that, and what
    /// it left half done.
    fn was_begun_before(&self, node: usize) -> bool {
        let run = self.progress.node(node);
        run.failures > 0 || !run.earlier_runs.is_empty()
    }

    /// The poll of a node that stands in line.
    pub(super) fn ask_again(&self, node: usize) -> BoxFuture<'static, (usize, Found)> {
        let (permit, attempt) = (self.permit_of(node), self.progress.node(node).attempt);
        async move {
            let has_it = match permit {
                // This engine limits nothing.
                None => Ok(true),
                Some(Ok((asking, permit))) => asking.ask(&permit).await,
                Some(Err(failure)) => Err(failure),
            };
            let result = has_it.map(|has| if has { PollOutcome::Resume } else { PollOutcome::Pending });
            (node, Found { attempt, result })
        }
        .boxed()
    }
}
