//! Nodes that wait for an event: a decision, the end of a child run, a larger budget.
//!
//! The event itself is stored elsewhere. Storing it marks the run, so that it is claimed again or its driver gets a
//! wake-up. The driver then polls each waiting node. A poll that finds nothing leaves no trace.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use gathering_domain::{FailureKind, WaitingFor};
use serde_json::Value;

use super::Driver;
use super::attempt::Ended;
use crate::journal::{JournalEvent, NodeFailure};
use crate::node_run::NodeState;
use crate::node_type::{PollOutcome, Wait};
use crate::secret_slots::SecretSlots;

/// How long a run whose nodes only wait stays claimed: an answer within this time needs no new claim.
const LINGER: Duration = Duration::from_millis(500);

/// The result of a poll, and its attempt: the next attempt waits for something else.
pub(super) struct Found {
    pub(super) attempt: i32,
    pub(super) result: Result<PollOutcome, NodeFailure>,
}

/// A config with its expressions evaluated, and where it refers to secrets.
type KnownConfig = (Arc<Value>, Arc<SecretSlots>);

/// The polls in flight, at most one per waiting node.
#[derive(Default)]
pub(super) struct Polls {
    futures: FuturesUnordered<BoxFuture<'static, (usize, Found)>>,
    /// Whether a wake-up came after the poll began, so that another poll must follow.
    stale: BTreeMap<usize, bool>,
    /// The configs of polled nodes. They never change, as the nodes that they refer to are resolved; and a node may be
    /// polled very often.
    configs: BTreeMap<usize, KnownConfig>,
}

impl Polls {
    /// The next poll that ends; `None` at once if no poll is in flight.
    pub(super) async fn next(&mut self) -> Option<(usize, Found)> {
        self.futures.next().await
    }

    /// The config of a node that was polled before.
    pub(super) fn config_of(&self, node: usize) -> Option<KnownConfig> {
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
    NodeFailure::retryable(FailureKind::TimedOut, "waited longer than its timeout")
}

impl Driver {
    /// Polls every node that waits for an event.
    pub(super) fn poll_waiting_nodes(&mut self) {
        let waiting: Vec<usize> =
            self.progress.nodes().map(|(node, _)| node).filter(|&node| self.waits_for_event(node)).collect();
        for node in waiting {
            self.poll(node);
        }
    }

    /// Polls a waiting node; while a poll is in flight, polls once more afterwards.
    pub(super) fn poll(&mut self, node: usize) {
        if let Some(stale) = self.polls.stale.get_mut(&node) {
            *stale = true;
            return;
        }
        self.polls.stale.insert(node, false);
        let number = self.progress.node(node).attempt;
        if self.progress.node(node).waiting_for == Some(WaitingFor::Concurrency) {
            self.polls.futures.push(self.ask_again(node));
            return;
        }
        let guard = self.guard_of(node);
        let poll = match self.attempt_of(node) {
            Ok((executor, attempt, stop)) => {
                let known = (Arc::clone(&attempt.config), Arc::clone(&attempt.secrets));
                self.polls.configs.insert(node, known);
                async move {
                    let _stopped_when_dropped = stop.drop_guard();
                    let poll = std::panic::AssertUnwindSafe(executor.poll(attempt)).catch_unwind().await;
                    let panicked =
                        |_| Err(NodeFailure::permanent(FailureKind::Panic, "the node's code panicked"));
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

    /// Applies the result of a poll.
    pub(super) fn note_poll(&mut self, node: usize, found: Found) {
        let stale = self.polls.stale.remove(&node).unwrap_or(false);
        // Its wait may have ended meanwhile; then it executes.
        if !self.waits_for_event(node) {
            return;
        }
        let is_late = found.attempt != self.progress.node(node).attempt;
        let result = match found.result {
            _ if is_late => return self.poll(node),
            Ok(PollOutcome::Ended(outcome)) => Some(Ok(outcome)),
            Ok(PollOutcome::Pending) if stale => return self.poll(node),
            // While draining nothing is launched: the next driver polls it again.
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
            Some(result) => self.note_end(node, result.map(Ended::With)),
            None => self.launches.push(node),
        }
    }

    /// The record of a node that asks to wait: for as long as it asks, but not beyond its timeout, which bounds the
    /// whole attempt.
    pub(super) fn begin_wait(&mut self, node: usize, wait: Wait) -> Result<JournalEvent, NodeFailure> {
        let now = self.around.clock.now();
        let began = self.progress.node(node).started_at.unwrap_or(now);
        // The time in line is not that of the attempt.
        let timeout = self.graph.nodes[node].spec.timeout.filter(|_| wait.on != WaitingFor::Concurrency);
        let limit = timeout.map(|timeout| began + timeout);
        let times_out = limit.is_some_and(|limit| wait.until.is_none_or(|until| limit < until));
        // With a limit that has passed, the node would be woken at once, again and again.
        if times_out && limit.is_some_and(|limit| limit <= now) {
            return Err(waited_too_long());
        }
        let until = if times_out { limit } else { wait.until };
        self.timers.extend(until.map(|until| (until, node)));
        Ok(JournalEvent::Waiting { on: wait.on, until, times_out })
    }

    /// Ends the wait of a node whose timer is due.
    pub(super) fn wake(&mut self, node: usize) {
        let run = self.progress.node(node);
        // A node that waits for a timer would take this for the end that it asked for, and one that waits for a budget
        // would start something new. The others are polled a last time, and end what they began.
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

    /// When the driver must act although no event comes.
    pub(super) fn next_time(&self) -> Option<DateTime<Utc>> {
        // While draining no timer wakes a node, so a due timer must not keep the driver busy.
        let timer = self.timers.first().map(|(at, _)| *at).filter(|_| !self.draining);
        [timer, self.lingers_until].into_iter().flatten().min()
    }

    /// The wait reason of the run: of several, the one that most likely needs a person.
    pub(super) fn awaited(&self) -> Option<WaitingFor> {
        let order =
            [WaitingFor::BudgetExceeded, WaitingFor::Approval, WaitingFor::Child, WaitingFor::Concurrency];
        order.into_iter().find(|on| self.progress.is_waiting_for(*on))
    }

    /// Whether a node waits for the end of runs that it started.
    pub(super) fn waits_for_children(&self) -> bool {
        self.progress.is_waiting_for(WaitingFor::Child)
    }

    /// Whether an attempt may have started child runs that were not asked to end. A failed attempt may have been
    /// dropped before it could ask, as at its timeout. One that executes, or did until its instance died, may just have
    /// started some.
    pub(super) fn may_have_left_children(&self) -> bool {
        self.progress.has_failures() || self.progress.nodes().any(|(_, run)| run.state == NodeState::Running)
    }

    /// Keeps the run claimed for [`LINGER`]; returns whether that time is over.
    pub(super) fn has_lingered(&mut self) -> bool {
        let now = self.around.clock.now();
        let until = *self.lingers_until.get_or_insert(now + LINGER.min(self.around.park_after));
        now >= until
    }

    fn waits_for_event(&self, node: usize) -> bool {
        let run = self.progress.node(node);
        run.state == NodeState::Waiting && run.waiting_for.is_some_and(|on| on != WaitingFor::Timer)
    }
}
