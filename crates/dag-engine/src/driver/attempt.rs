//! Launching attempts: what a node type is given, and what bounds it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{Driver, NodeEnd};
use crate::effects::Effects;
use crate::journal::NodeFailure;
use crate::node_type::Attempt;

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

    fn attempt(&self, node: usize) -> BoxFuture<'static, NodeEnd> {
        let graph_node = &self.graph.nodes[node];
        let run = self.progress.node(node);
        let config = match graph_node.config.resolve(&self.progress) {
            Ok(config) => config,
            Err(error) => {
                let failure = NodeFailure::permanent("expression", error.to_string());
                return std::future::ready((node, Err(failure))).boxed();
            }
        };
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
            now: self.around.clock.now(),
            effects: Effects::new(node, run.effects.clone(), self.effects_sender.clone()),
            stop: stop.clone(),
        };
        let node_type = Arc::clone(&graph_node.node_type);
        let timeout = graph_node.spec.timeout;
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
