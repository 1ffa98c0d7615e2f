//! Launching attempts: what a node type is given, and what bounds it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{Driver, NodeEnd};
use crate::effects::Effects;
use crate::journal::NodeFailure;
use crate::node_type::{Attempt, NodeType};

impl Driver {
    /// Launches nodes whose start is durable.
    pub(super) fn launch(&mut self, nodes: Vec<usize>) {
        if self.release.is_some() {
            return;
        }
        for node in nodes {
            let future = self.attempt(node);
            self.executing.push(future);
        }
    }

    /// What a node type is given of a node as it stands now, and what tells it to stop.
    pub(super) fn attempt_of(
        &self,
        node: usize,
    ) -> Result<(Arc<dyn NodeType>, Attempt, CancellationToken), NodeFailure> {
        let graph_node = &self.graph.nodes[node];
        let run = self.progress.node(node);
        let config = graph_node.config.resolve(&self.progress);
        let config = config.map_err(|error| NodeFailure::permanent("expression", error.to_string()))?;
        let upstream = if graph_node.node_type.collects_upstream() {
            self.progress.upstream(node)
        } else {
            serde_json::Map::new()
        };
        let stop = CancellationToken::new();
        let attempt = Attempt {
            run: self.claimed.claim.run,
            project: self.claimed.project,
            node: graph_node.spec.id.clone(),
            attempt: run.attempt,
            config,
            input: Arc::clone(&self.progress.input),
            upstream,
            woken: run.woken,
            deadline_at: self.claimed.deadline_at,
            now: self.around.clock.now(),
            effects: Effects::new(node, run.effects.clone(), self.effects_sender.clone()),
            stop: stop.clone(),
        };
        Ok((Arc::clone(&graph_node.node_type), attempt, stop))
    }

    fn attempt(&self, node: usize) -> BoxFuture<'static, NodeEnd> {
        let (node_type, attempt, stop) = match self.attempt_of(node) {
            Ok(attempt) => attempt,
            Err(failure) => return std::future::ready((node, Err(failure))).boxed(),
        };
        let timeout = self.graph.nodes[node].spec.timeout;
        async move {
            let _stopped_when_dropped = stop.drop_guard();
            let execution = AssertUnwindSafe(node_type.execute(attempt)).catch_unwind();
            let result = match timeout {
                None => execution.await,
                Some(limit) => match tokio::time::timeout(limit, execution).await {
                    Ok(result) => result,
                    Err(_) => Ok(Err(NodeFailure::retryable(
                        NodeFailure::TIMED_OUT,
                        format!("took longer than {} s", limit.as_secs_f64()),
                    ))),
                },
            };
            (
                node,
                result.unwrap_or_else(|_| Err(NodeFailure::permanent("panic", "the node's code panicked"))),
            )
        }
        .boxed()
    }
}
