//! Releases a run: parks it, requeues it, or ends it in one of four states.

use std::time::Duration;

use gathering_domain::{FailureKind, WaitingFor};

use super::Driver;
use crate::journal::{JournalEvent, NodeFailure};
use crate::node_run::NodeState;
use crate::store::{FailedNode, Release, RunEnd, RunError, RunResult};

/// How many failures of nodes the error of a run lists.
const MAX_FAILURES: usize = 100;

/// How many of them its message contains.
const MAX_MESSAGES: usize = 10;

/// Why nodes are cancelled with the end of their run.
pub(crate) fn cancelled_by(end: &RunResult) -> NodeFailure {
    let message = match end {
        RunResult::Failed(RunError { node_id: Some(node), .. }) => {
            format!("cancelled because of the failure of node `{node}`")
        }
        RunResult::Failed(_) | RunResult::Succeeded(_) => "cancelled because the run failed".to_owned(),
        RunResult::Cancelled(RunError { message, .. }) => format!("the run was {message}"),
        RunResult::TimedOut(_) => "cancelled because the deadline of the run passed".to_owned(),
    };
    NodeFailure::permanent(FailureKind::Cancelled, message)
}

impl Driver {
    /// Nothing executes and nothing can be started: the run needs no driver until its next timer.
    pub(super) fn release_if_idle(&mut self) {
        if self.draining {
            self.release = Some(Release::Requeue);
            return;
        }
        let until = self.timers.first().map(|&(until, _)| until);
        let awaited = self.awaited();
        let wakes_at = [until, self.claimed.deadline_at].into_iter().flatten().min();
        let is_near = wakes_at.is_some_and(|at| {
            (at - self.around.clock.now()).to_std().unwrap_or(Duration::ZERO) <= self.around.park_after
        });
        let waiting_for = match (awaited, until) {
            // The driver waits in place for a timer that is near. It also waits for the deadline: else a run that was
            // claimed because of its deadline would be parked until that same time, for ever.
            _ if is_near => {
                self.lingers_until = None;
                return;
            }
            (Some(on), _) if self.has_lingered() => on,
            (None, Some(_)) => WaitingFor::Timer,
            _ => return,
        };
        self.release = Some(Release::Park { waiting_for, until: wakes_at });
    }

    pub(super) fn succeed(&mut self) {
        let result = match self.progress.output() {
            Ok(output) => RunResult::Succeeded(output),
            Err(error) => RunResult::Failed(RunError::of(error.kind(), error.to_string())),
        };
        let abandons_children = self.may_have_left_children();
        self.release_ended(result, abandons_children);
    }

    fn release_ended(&mut self, result: RunResult, abandons_children: bool) {
        let is_limited =
            self.claimed.is_limited || (self.permit_scope().is_some() && self.graph.limits_nodes());
        self.release = Some(Release::End(RunEnd { result, abandons_children, is_limited }));
    }

    /// Ends the run for the failures that no edge handles: of nodes, or of edges out of them. With `fail_fast` that is the
    /// first one.
    pub(super) fn fail(&mut self) {
        let unhandled = self.progress.unhandled();
        let Some(&first) = unhandled.first() else { return };
        let mut error = self.error_of(first);
        if !self.graph.definition().fail_fast {
            let listed = unhandled.iter().take(MAX_FAILURES).map(|&node| self.error_of(node));
            let failures: Vec<FailedNode> = listed.map(FailedNode::from).collect();
            if unhandled.len() > 1 {
                let messages: Vec<&str> =
                    failures.iter().take(MAX_MESSAGES).map(|failure| failure.message.as_str()).collect();
                error.kind = FailureKind::NodeFailed;
                error.message = format!("{} failures: {}", unhandled.len(), messages.join("; "));
                if unhandled.len() > MAX_MESSAGES {
                    error.message.push_str("; and more");
                }
            }
            error.failures = failures;
        }
        self.end(RunResult::Failed(error));
    }

    /// The failure of a node, or of an edge out of it, as that of the run.
    fn error_of(&self, node: usize) -> RunError {
        let id = self.graph.nodes[node].spec.id.to_string();
        let own = self.progress.node(node).failure.as_ref();
        let mut error = match own {
            Some(failure) => {
                // The message of a `fail` node is the author's message about the run.
                let (kind, message) = match failure.kind {
                    FailureKind::Raised => (FailureKind::Raised, failure.message.clone()),
                    _ => (FailureKind::NodeFailed, format!("node `{id}` failed: {}", failure.message)),
                };
                RunError { details: failure.details.as_deref().cloned(), ..RunError::of(kind, message) }
            }
            None => RunError::of(FailureKind::Expression, String::new()),
        };
        if let Some(of_edge) = self.progress.edge_failure(node) {
            let separator = if own.is_some() { "; " } else { "" };
            error.message = format!("{}{separator}{}", error.message, of_edge.message);
        }
        RunError { node_id: Some(id), ..error }
    }

    /// Ends the run because its cancellation was requested, for this reason if the run above requested it.
    pub(super) fn cancel(&mut self, reason: Option<String>) {
        let message = reason.map_or_else(
            || "cancelled on request".to_owned(),
            |reason| format!("cancelled because {reason}"),
        );
        self.end(RunResult::Cancelled(RunError::of(FailureKind::Cancelled, message)));
    }

    pub(super) fn time_out(&mut self) {
        self.end(RunResult::TimedOut(RunError::of(FailureKind::TimedOut, "its deadline passed")));
    }

    /// Drops executing attempts and polls. Their recorded effects stay: the next driver must not repeat them.
    pub(super) fn drop_what_executes(&mut self) {
        self.executing.clear();
        self.polls.clear();
        while let Ok(effect) = self.effects.try_recv() {
            // An attempt that waits for its announcement to be durable has not begun the effect, and now never will.
            if effect.durable.is_none() {
                self.record_effect(effect);
            }
        }
    }

    /// Ends the run before its last node: nodes that execute or wait are dropped and recorded as cancelled (I5).
    pub(super) fn end(&mut self, result: RunResult) {
        // Asked before those that execute or wait are recorded as cancelled.
        let abandons_children = self.waits_for_children() || self.may_have_left_children();
        self.drop_what_executes();
        self.launches.clear();
        let unresolved: Vec<usize> = self
            .progress
            .nodes()
            .filter(|(_, run)| {
                matches!(run.state, NodeState::Running | NodeState::Retrying | NodeState::Waiting)
            })
            .map(|(node, _)| node)
            .collect();
        let why = cancelled_by(&result);
        for node in unresolved {
            self.record(node, JournalEvent::Cancelled(why.clone()));
        }
        self.release_ended(result, abandons_children);
    }
}
