//! Launching attempts: what a node type is given, and what bounds it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use gathering_domain::{FailureKind, WaitingFor};
use tokio_util::sync::CancellationToken;

use super::{Driver, NodeEnd};
use crate::breaker::{BreakerKey, Guard};
use crate::effects::Effects;
use crate::graph::Graph;
use crate::journal::NodeFailure;
use crate::node_type::{Attempt, NodeExecutor, Outcome, Wait};
use crate::store::GraphRole;
use crate::values::{ValueLimit, check_value};

/// How long an attempt whose wait is over may take to end, if less than that is left of its timeout.
const ENDING: Duration = Duration::from_secs(5);

/// The wait of a node in the line for its permit: however long it takes.
const IN_LINE: Wait = Wait { on: WaitingFor::Concurrency, until: None };

/// How an attempt ended that did not fail.
pub(super) enum Ended {
    /// As its node type says.
    With(Outcome),
    /// It never began: it found no permit, and was not to wait for one.
    Skipped,
}

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

    /// A node's executor, its current attempt, and the token that stops it.
    pub(super) fn attempt_of(
        &self,
        node: usize,
    ) -> Result<(Arc<dyn NodeExecutor>, Attempt, CancellationToken), NodeFailure> {
        let graph_node = &self.graph.nodes[node];
        let name = &graph_node.spec.node_type;
        let executor = self.around.types.executor(name).cloned().ok_or_else(|| {
            NodeFailure::permanent(
                FailureKind::NodeType,
                format!("this engine cannot execute the node type `{name}`"),
            )
        })?;
        let run = self.progress.node(node);
        let (config, secrets) = match self.polls.config_of(node) {
            Some(known) => known,
            None => {
                let config = graph_node.config.resolve(&self.progress);
                let config = config.map_err(|error| error.failure_at(&Graph::place_of_config(node)))?;
                (Arc::new(config.value), Arc::new(config.secrets))
            }
        };
        let upstream = if graph_node.node_type.collects_upstream() {
            self.progress.upstream(node).map_err(ValueLimit::of_output)?
        } else {
            serde_json::Map::new()
        };
        let stop = CancellationToken::new();
        let attempt = Attempt {
            run: self.claimed.claim.run,
            project: self.claimed.project,
            node: graph_node.spec.id.clone(),
            attempt: run.attempt,
            failures: run.failures,
            config,
            input: Arc::clone(&self.progress.input),
            upstream,
            earlier_runs: run.earlier_runs.clone(),
            woken: run.woken,
            is_overdue: run.woken && self.has_used_its_time(node),
            deadline_at: self.claimed.deadline_at,
            now: self.around.clock.now(),
            effects: Effects::new(
                self.claimed.claim.run,
                (node, graph_node.spec.id.clone()),
                run.effects.clone(),
                self.effects_sender.clone(),
            )
            .using(secrets.names()),
            secrets,
            stop: stop.clone(),
        };
        Ok((executor, attempt, stop))
    }

    fn attempt(&self, node: usize) -> BoxFuture<'static, NodeEnd> {
        let (executor, attempt, stop) = match self.attempt_of(node) {
            Ok(attempt) => attempt,
            Err(failure) => return std::future::ready((node, Err(failure))).boxed(),
        };
        let timeout = self.time_left(node);
        let guard = self.guard_of(node);
        // An attempt that waited goes on; only a new attempt asks for its permit and the breaker.
        let begins = !attempt.woken;
        let permit = match self.permit_of(node).filter(|_| begins).transpose() {
            Ok(permit) => permit,
            Err(failure) => return std::future::ready((node, Err(failure))).boxed(),
        };
        async move {
            let _stopped_when_dropped = stop.drop_guard();
            let mut is_admitted = false;
            if let Some((asking, permit)) = &permit {
                match asking.ask(permit).await {
                    Ok(true) => {}
                    Ok(false) if permit.waits => return (node, Ok(Ended::With(Outcome::Wait(IN_LINE)))),
                    Ok(false) => return (node, Ok(Ended::Skipped)),
                    Err(failure) => return (node, Err(failure)),
                }
            }
            let work = async {
                if begins && let Some(guard) = &guard {
                    guard.admit().await?;
                }
                is_admitted = true;
                executor.execute(attempt).await
            };
            let result = within(timeout, work).await;
            match (&guard, &result) {
                // It called nothing, so the breaker counts nothing.
                _ if !is_admitted => {}
                (Some(guard), Ok(Outcome::Done(_))) => guard.report(None).await,
                (Some(guard), Err(failure)) => guard.report(Some(failure)).await,
                // The breaker hears of its success or failure once the wait is over.
                (Some(_), Ok(Outcome::Wait(_))) | (None, _) => {}
            }
            (node, result.map(Ended::With))
        }
        .boxed()
    }

    /// How long the attempt may take from now on; a wait counts as time of the attempt. After a wait for a budget the
    /// attempt goes on. After any other wait it only has to end, and has [`ENDING`] for that: it may have to ask the
    /// store, or to cancel what it started.
    fn time_left(&self, node: usize) -> Option<Duration> {
        let (limit, run) = (self.graph.nodes[node].spec.timeout?, self.progress.node(node));
        let took = if run.woken { self.time_taken(node) } else { Duration::ZERO };
        let left = limit.saturating_sub(took);
        Some(if run.woken && !run.goes_on { left.max(ENDING.min(limit)) } else { left })
    }

    /// Whether the attempt has had all of its time.
    fn has_used_its_time(&self, node: usize) -> bool {
        self.graph.nodes[node].spec.timeout.is_some_and(|limit| limit <= self.time_taken(node))
    }

    /// The time since the attempt began.
    fn time_taken(&self, node: usize) -> Duration {
        let began = self.progress.node(node).started_at;
        let took = began.and_then(|began| (self.around.clock.now() - began).to_std().ok());
        took.unwrap_or_default()
    }

    /// The circuit breaker of a node that has one and is part of a pipeline.
    pub(super) fn guard_of(&self, node: usize) -> Option<Guard> {
        let spec = &self.graph.nodes[node].spec;
        let settings = spec.circuit_breaker.clone()?;
        let GraphRole::Pipeline(pipeline) = self.claimed.role else { return None };
        let breakers = self.around.breakers.clone()?;
        Some(Guard {
            breakers,
            key: BreakerKey { pipeline, node: spec.id.clone() },
            run: self.claimed.claim.run,
            settings,
            timeout: spec.timeout,
        })
    }
}

/// The result of an attempt, if its output can be stored and passed on.
pub(super) fn bounded(result: Result<Ended, NodeFailure>) -> Result<Ended, NodeFailure> {
    if let Ok(Ended::With(Outcome::Done(output))) = &result {
        check_value(output).map_err(ValueLimit::of_output)?;
    }
    result
}

/// Executes an attempt within its time, whatever its code does.
async fn within(
    timeout: Option<Duration>,
    work: impl Future<Output = Result<Outcome, NodeFailure>>,
) -> Result<Outcome, NodeFailure> {
    let execution = AssertUnwindSafe(work).catch_unwind();
    let result = match timeout {
        None => execution.await,
        Some(limit) => match tokio::time::timeout(limit, execution).await {
            Ok(result) => result,
            Err(_) => {
                let message = format!("took longer than {} s", limit.as_secs_f64());
                return Err(NodeFailure::retryable(FailureKind::TimedOut, message));
            }
        },
    };
    result.unwrap_or_else(|_| Err(NodeFailure::permanent(FailureKind::Panic, "the node's code panicked")))
}
