//! Letting go of a run: parked, handed back, or ended in one of the four ways.

use std::time::Duration;

use gathering_domain::{RunEvent, WaitingFor};

use super::Driver;
use crate::journal::JournalEvent;
use crate::node_run::NodeState;
use crate::store::{Release, RunEnd, RunError};

impl Driver {
    /// Nothing executes and nothing can be started: the run needs no driver until its next timer.
    pub(super) fn let_go(&mut self) {
        if self.draining {
            self.release = Some(Release::HandBack);
            return;
        }
        let Some(&(until, _)) = self.timers.first() else { return };
        let wait = (until - self.around.clock.now()).to_std().unwrap_or(Duration::ZERO);
        if wait > self.around.park_after {
            let until = self.claimed.deadline_at.map_or(until, |deadline| deadline.min(until));
            self.release = Some(Release::Park { waiting_for: WaitingFor::Timer, until: Some(until) });
        }
    }

    pub(super) fn succeed(&mut self) {
        self.release = Some(Release::End(match self.progress.output() {
            Ok(output) => RunEnd { event: RunEvent::Succeeded, output: Some(output), error: None },
            Err(error) => RunEnd {
                event: RunEvent::Failed,
                output: None,
                error: Some(RunError {
                    kind: "output".to_owned(),
                    message: error.to_string(),
                    node_id: None,
                }),
            },
        }));
    }

    pub(super) fn fail(&mut self, node: usize) {
        let id = self.graph.nodes[node].spec.id.to_string();
        let message = match &self.progress.node(node).failure {
            Some(failure) => format!("node `{id}` failed: {}", failure.message),
            None => format!("node `{id}` failed"),
        };
        let kind = "node_failed".to_owned();
        self.end(RunEvent::Failed, RunError { kind, message, node_id: Some(id) });
    }

    pub(super) fn end_early(&mut self, event: RunEvent, kind: &str, message: &str) {
        self.end(event, RunError { kind: kind.to_owned(), message: message.to_owned(), node_id: None });
    }

    /// Ends the run before its last node: what executes or waits is dropped and recorded as cancelled (I5).
    fn end(&mut self, event: RunEvent, error: RunError) {
        self.executing.clear();
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
        self.release = Some(Release::End(RunEnd { event, output: None, error: Some(error) }));
    }
}
