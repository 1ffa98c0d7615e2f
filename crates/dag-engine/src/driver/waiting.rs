//! Nodes that wait for somebody to act: an approval, the end of a child, a larger budget.
//!
//! The act itself is stored elsewhere. Whoever stores it marks the run, so that it is claimed again or its driver is told;
//! the driver then lets each waiting node look. A look that finds nothing leaves no trace.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use gathering_domain::WaitingFor;
use serde_json::Value;

use super::Driver;
use crate::journal::{JournalEvent, NodeFailure};
use crate::node_run::NodeState;
use crate::node_type::{PollOutcome, Wait};

/// How long a run is held whose nodes only wait for somebody, so that what comes soon needs no new claim.
const LINGER: Duration = Duration::from_millis(500);

/// What a look found, and for which attempt: the next one waits for something else.
pub(super) struct Found {
    attempt: i32,
    result: Result<PollOutcome, NodeFailure>,
}

/// The looks of waiting nodes that are under way, at most one per node.
#[derive(Default)]
pub(super) struct Polls {
    futures: FuturesUnordered<BoxFuture<'static, (usize, Found)>>,
    /// Whether something came after the look began, so that another must follow.
    stale: BTreeMap<usize, bool>,
    /// The configs of nodes that looked: what they are computed of is resolved, so they never change, and a node may
    /// look very often.
    configs: BTreeMap<usize, Arc<Value>>,
}

impl Polls {
    /// The end of the next look; at once `None` if there is none under way.
    pub(super) async fn next(&mut self) -> Option<(usize, Found)> {
        self.futures.next().await
    }

    /// The config of a node that looked before.
    pub(super) fn config_of(&self, node: usize) -> Option<Arc<Value>> {
        self.configs.get(&node).cloned()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stale.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn waited_too_long() -> NodeFailure {
    NodeFailure::retryable(NodeFailure::TIMED_OUT, "waited longer than its timeout")
}

impl Driver {
    /// Lets every node that waits for somebody look.
    pub(super) fn poll_waiting_nodes(&mut self) {
        let waiting: Vec<usize> = self
            .progress
            .nodes()
            .map(|(node, _)| node)
            .filter(|&node| self.waits_for_somebody(node))
            .collect();
        for node in waiting {
            self.poll(node);
        }
    }

    /// Lets a waiting node look; if it does already, once more afterwards.
    pub(super) fn poll(&mut self, node: usize) {
        if let Some(stale) = self.polls.stale.get_mut(&node) {
            *stale = true;
            return;
        }
        self.polls.stale.insert(node, false);
        let guard = self.guard_of(node);
        let number = self.progress.node(node).attempt;
        let poll = match self.attempt_of(node) {
            Ok((executor, attempt, stop)) => {
                self.polls.configs.insert(node, Arc::clone(&attempt.config));
                async move {
                    let _stopped_when_dropped = stop.drop_guard();
                    let poll = std::panic::AssertUnwindSafe(executor.poll(attempt)).catch_unwind().await;
                    let panicked = |_| Err(NodeFailure::permanent("panic", "the node's code panicked"));
                    let found = poll.unwrap_or_else(panicked);
                    if let (Some(guard), Ok(PollOutcome::Ended(_)) | Err(_)) = (&guard, &found) {
                        guard.report(found.as_ref().err()).await;
                    }
                    (node, Found { attempt: number, result: found })
                }
                .boxed()
            }
            Err(failure) => {
                std::future::ready((node, Found { attempt: number, result: Err(failure) })).boxed()
            }
        };
        self.polls.futures.push(poll);
    }

    /// Takes in what a look found.
    pub(super) fn note_poll(&mut self, node: usize, found: Found) {
        let stale = self.polls.stale.remove(&node).unwrap_or(false);
        // Its time may have come meanwhile, and then it executes.
        if !self.waits_for_somebody(node) {
            return;
        }
        let is_late = found.attempt != self.progress.node(node).attempt;
        let result = match found.result {
            _ if is_late => return self.poll(node),
            Ok(PollOutcome::Ended(outcome)) => Some(Ok(outcome)),
            Ok(PollOutcome::Pending) if stale => return self.poll(node),
            // While draining nothing is launched: who drives the run next lets it look again.
            Ok(PollOutcome::Resume) if self.draining => return,
            Ok(PollOutcome::Resume) => None,
            Ok(PollOutcome::Pending) => return,
            Err(failure) => Some(Err(failure)),
        };
        self.polls.configs.remove(&node);
        if let Some(until) = self.progress.node(node).until {
            self.timers.remove(&(until, node));
        }
        self.record(node, JournalEvent::Woken);
        self.n_active += 1;
        match result {
            Some(result) => self.note_end(node, result),
            None => self.launches.push(node),
        }
    }

    /// What is recorded of a node that asks to wait: for as long as it asks, and no longer than it may take. Its timeout
    /// is for the whole attempt.
    pub(super) fn begin_wait(&mut self, node: usize, wait: Wait) -> Result<JournalEvent, NodeFailure> {
        let now = self.around.clock.now();
        let began = self.progress.node(node).started_at.unwrap_or(now);
        let limit = self.graph.nodes[node].spec.timeout.map(|timeout| began + timeout);
        let times_out = limit.is_some_and(|limit| wait.until.is_none_or(|until| limit < until));
        // A limit that has passed is no wait: the node would be woken at once, and again.
        if times_out && limit.is_some_and(|limit| limit <= now) {
            return Err(waited_too_long());
        }
        let until = if times_out { limit } else { wait.until };
        self.timers.extend(until.map(|until| (until, node)));
        Ok(JournalEvent::Waiting { on: wait.on, until, times_out })
    }

    /// Ends the wait of a node whose time has come.
    pub(super) fn wake(&mut self, node: usize) {
        let run = self.progress.node(node);
        // A node that waits for nobody would take it for the time that it asked for, and one that waits for a budget would
        // begin something new. The others look a last time, and end what they began.
        let ends_nothing = matches!(run.waiting_for, Some(WaitingFor::Timer | WaitingFor::BudgetExceeded));
        let is_over = run.times_out && ends_nothing;
        self.record(node, JournalEvent::Woken);
        self.n_active += 1;
        if is_over {
            self.note_end(node, Err(waited_too_long()));
        } else {
            self.launches.push(node);
        }
    }

    /// When the driver must look up though nothing happens.
    pub(super) fn next_time(&self) -> Option<DateTime<Utc>> {
        // While draining no timer wakes anything, so one that is due must not keep the driver turning.
        let timer = self.timers.first().map(|(at, _)| *at).filter(|_| !self.draining);
        [timer, self.lingers_until].into_iter().flatten().min()
    }

    /// What the nodes wait for that wait for somebody: of several, what most likely needs a person.
    pub(super) fn awaited(&self) -> Option<WaitingFor> {
        let order = [WaitingFor::BudgetExceeded, WaitingFor::Approval, WaitingFor::Child];
        order.into_iter().find(|on| self.progress.is_waiting_for(*on))
    }

    /// Whether a node waits for the end of runs that it started.
    pub(super) fn waits_for_children(&self) -> bool {
        self.progress.is_waiting_for(WaitingFor::Child)
    }

    /// Whether an attempt may have started runs for whose end nobody asked: one that failed may have been dropped before
    /// it could, as when its time was over; one that executes, or did until its instance died, may just have started some.
    pub(super) fn may_have_left_children(&self) -> bool {
        self.progress.has_failures() || self.progress.nodes().any(|(_, run)| run.state == NodeState::Running)
    }

    /// Holds the run for a moment longer; answers whether that moment is over.
    pub(super) fn has_lingered(&mut self) -> bool {
        let now = self.around.clock.now();
        let until = *self.lingers_until.get_or_insert(now + LINGER.min(self.around.park_after));
        now >= until
    }

    fn waits_for_somebody(&self, node: usize) -> bool {
        let run = self.progress.node(node);
        run.state == NodeState::Waiting && run.waiting_for.is_some_and(|on| on != WaitingFor::Timer)
    }
}
