//! Releases a run: parks it, requeues it, or ends it in one of four states.

use std::time::Duration;

use gathering_domain::{FailureKind, WaitingFor};

use super::Driver;
use crate::journal::JournalEvent;
use crate::node_run::NodeState;
use crate::store::{Release, RunEnd, RunError, RunResult};

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
            Err(error) => {
                RunResult::Failed(RunError { kind: error.kind(), message: error.to_string(), node_id: None })
            }
        };
        let abandons_children = self.may_have_left_children();
        self.release = Some(Release::End(RunEnd { result, abandons_children }));
    }

    pub(super) fn fail(&mut self, node: usize) {
        let id = self.graph.nodes[node].spec.id.to_string();
        let message = match &self.progress.node(node).failure {
            Some(failure) => format!("node `{id}` failed: {}", failure.message),
            None => format!("node `{id}` failed"),
        };
        let kind = FailureKind::NodeFailed;
        self.end(RunResult::Failed(RunError { kind, message, node_id: Some(id) }));
    }

    pub(super) fn cancel(&mut self) {
        let message = "cancelled on request".to_owned();
        self.end(RunResult::Cancelled(RunError { kind: FailureKind::Cancelled, message, node_id: None }));
    }

    pub(super) fn time_out(&mut self) {
        let message = "its deadline passed".to_owned();
        self.end(RunResult::TimedOut(RunError { kind: FailureKind::TimedOut, message, node_id: None }));
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
        for node in unresolved {
            self.record(node, JournalEvent::Cancelled);
        }
        self.release = Some(Release::End(RunEnd { result, abandons_children }));
    }
}
