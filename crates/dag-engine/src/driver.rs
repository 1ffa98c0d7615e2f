//! Drives one claimed run: decides what happens next, records it, executes it.
//!
//! The driver alone knows the next place in the journal. It has at most one checkpoint in flight; what happens
//! meanwhile goes into the next one. A node starts only when the checkpoint that records its start is durable. The same
//! checkpoint holds the results that led to the start (I3). All node futures live inside the driver: dropping it ends
//! them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use gathering_domain::{FailureKind, NodeId, RunEvent, WaitingFor};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::breaker::Breakers;
use crate::checkpointer::Checkpointer;
use crate::clock::Clock;
use crate::effects::EffectRecord;
use crate::graph::Graph;
use crate::journal::{JournalEvent, NodeFailure, Record, Seq};
use crate::node_run::NodeState;
use crate::node_type::{NodeTypes, Outcome};
use crate::permits::{Asking, NodePermits};
use crate::progress::Progress;
use crate::store::{ClaimedRun, Release, StoreError};

mod attempt;
mod ending;
mod flight;
mod permits;
mod retry;
mod waiting;

pub(crate) use self::ending::cancelled_by;

use self::attempt::Ended;
use self::flight::{InFlight, commit_of};
use self::waiting::Polls;

/// Records of effects that may wait for the driver; a node that records faster waits.
const EFFECTS_BOUND: usize = 64;

/// The requests that a driver obeys.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    /// Cancellation of the run was requested.
    pub cancel: CancellationToken,
    /// Why, if the run above requested it; set before `cancel`.
    pub cancel_reason: Arc<OnceLock<String>>,
    /// A wait of one of the run's nodes may be over: poll them.
    pub wake_up: Arc<Notify>,
    /// The instance drains: start nothing more, and release the run once nothing executes.
    pub drain: CancellationToken,
    /// The drain's grace period is over: drop what executes and release the run now.
    pub release: CancellationToken,
    /// The instance may have lost its claims: drop everything and write nothing.
    pub fence: CancellationToken,
}

/// How a drive ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriveEnd {
    /// The run reached a terminal state.
    Ended(RunEvent),
    /// The run waits without an owner.
    Parked,
    /// The run is queued again.
    Requeued,
    /// Another claim owns the run by now; nothing was overwritten.
    ClaimLost,
    /// The engine stopped, or had to, before it released the run; the run will be recovered.
    Abandoned,
}

/// What a driver needs of its engine.
#[derive(Clone)]
pub(crate) struct DriverContext {
    pub(crate) types: Arc<NodeTypes>,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) breakers: Option<Breakers>,
    pub(crate) permits: Option<Arc<dyn NodePermits>>,
    /// A run whose nodes all wait longer than this is parked.
    pub(crate) park_after: Duration,
}

/// The store rejected a checkpoint, for this reason.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Box<dyn std::error::Error + Send + Sync>);

type NodeEnd = (usize, Result<Ended, NodeFailure>);

pub(crate) struct Driver {
    around: DriverContext,
    claimed: ClaimedRun,
    graph: Arc<Graph>,
    progress: Progress,
    next_seq: Seq,
    /// Records that no checkpoint holds yet.
    records: Vec<Record>,
    /// Nodes to launch once `records` are durable, and the tasks that wait for it.
    launches: Vec<usize>,
    durable_waiters: Vec<oneshot::Sender<()>>,
    /// Set once: how the next checkpoint releases the run.
    release: Option<Release>,
    ready: VecDeque<usize>,
    timers: BTreeSet<(DateTime<Utc>, usize)>,
    /// Nodes whose attempt has a recorded start and no recorded end.
    n_active: usize,
    executing: FuturesUnordered<BoxFuture<'static, NodeEnd>>,
    polls: Polls,
    /// Until when the run stays claimed although its nodes only wait: an answer that comes soon needs no new claim.
    lingers_until: Option<DateTime<Utc>>,
    effects_sender: mpsc::Sender<EffectRecord>,
    effects: mpsc::Receiver<EffectRecord>,
    asking: Option<Asking>,
    /// Nodes whose attempts have ended and that had a permit.
    frees: Vec<NodeId>,
    draining: bool,
}

impl Driver {
    /// `records` are applied to `progress` already, and belong at `next_seq`.
    pub(crate) fn new(
        around: DriverContext,
        claimed: ClaimedRun,
        graph: Arc<Graph>,
        progress: Progress,
        (next_seq, records): (Seq, Vec<Record>),
    ) -> Self {
        let (effects_sender, effects) = mpsc::channel(EFFECTS_BOUND);
        let asking = around.permits.clone().map(Asking::of);
        Self {
            around,
            claimed,
            graph,
            progress,
            next_seq,
            records,
            launches: Vec::new(),
            durable_waiters: Vec::new(),
            release: None,
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            n_active: 0,
            executing: FuturesUnordered::new(),
            polls: Polls::default(),
            lingers_until: None,
            effects_sender,
            effects,
            asking,
            frees: Vec::new(),
            draining: false,
        }
    }

    /// Drives the run until it ends, waits, or a signal comes. The claim already recorded the starts of these nodes.
    ///
    /// # Errors
    /// [`Refused`]: the run stays claimed, and what its journal says is what happened.
    pub(crate) async fn drive(mut self, started: Vec<usize>, signals: Signals) -> Result<DriveEnd, Refused> {
        self.draining = signals.drain.is_cancelled();
        // While draining nothing is launched: the next driver treats these attempts as interrupted and starts them
        // again.
        self.restore(if self.draining { Vec::new() } else { started });
        if self.claimed.cancel_requested {
            self.cancel(self.claimed.cancel_reason.clone());
        }
        let mut in_flight: Option<InFlight> = None;
        loop {
            // The deadline comes first: an overdue run must not start anything.
            if self.is_overdue() {
                self.time_out();
            }
            self.decide(in_flight.is_none());
            if in_flight.is_none() {
                in_flight = self.checkpoint();
            }
            let ending =
                in_flight.as_ref().is_some_and(|flight| flight.end.is_some()) || self.release.is_some();
            let next_time = self.next_time();
            tokio::select! {
                biased;
                () = signals.fence.cancelled() => return Ok(DriveEnd::Abandoned),
                committed = commit_of(&mut in_flight) => {
                    let Some(flight) = in_flight.take() else { continue };
                    match committed {
                        Ok(()) => {}
                        Err(StoreError::ClaimLost { .. }) => return Ok(DriveEnd::ClaimLost),
                        Err(StoreError::Refused { source, .. }) => return Err(Refused(source)),
                        Err(_) => return Ok(DriveEnd::Abandoned),
                    }
                    if let Some(end) = flight.end {
                        return Ok(end);
                    }
                    self.launch(flight.launches);
                    for waiter in flight.durable_waiters {
                        // A node that was dropped meanwhile waits no longer.
                        let _no_longer_waiting = waiter.send(());
                    }
                }
                () = signals.cancel.cancelled(), if !ending => {
                    self.cancel(signals.cancel_reason.get().cloned());
                }
                // The next pass of the loop finds the run overdue.
                () = sleep_until(self.claimed.deadline_at, &*self.around.clock), if !ending => {}
                Some(record) = self.effects.recv(), if !ending => self.record_effect(record),
                Some((node, result)) = self.executing.next(), if !ending => {
                    self.note_end(node, result);
                    // Those that have ended as well share the next checkpoint.
                    while let Some(Some((node, result))) = self.executing.next().now_or_never() {
                        self.note_end(node, result);
                    }
                }
                Some((node, found)) = self.polls.next(), if !ending => self.note_poll(node, found),
                () = signals.wake_up.notified(), if !ending => self.poll_waiting_nodes(),
                () = sleep_until(next_time, &*self.around.clock), if !ending => {}
                () = signals.release.cancelled(), if !ending => {
                    self.drop_what_executes();
                    self.release = Some(Release::Requeue);
                }
                () = signals.drain.cancelled(), if !ending && !self.draining => self.draining = true,
            }
        }
    }

    /// Whether the run's deadline has passed before its end was decided.
    fn is_overdue(&self) -> bool {
        let passed = |deadline| deadline <= self.around.clock.now();
        self.release.is_none() && self.claimed.deadline_at.is_some_and(passed)
    }

    /// Restores the ready nodes and timers after a replay, or starts a new run.
    fn restore(&mut self, started: Vec<usize>) {
        self.ready.extend(
            self.progress
                .roots()
                .into_iter()
                .filter(|&node| self.progress.node(node).state == NodeState::Pending),
        );
        let mut interrupted = Vec::new();
        for (node, run) in self.progress.nodes() {
            match (run.state, run.until) {
                (NodeState::Running, _) if !started.contains(&node) => interrupted.push(node),
                (NodeState::Retrying | NodeState::Waiting, Some(until)) => {
                    self.timers.insert((until, node));
                }
                _ => {}
            }
        }
        self.n_active += started.len();
        self.launch(started);
        self.poll_waiting_nodes();
        for node in interrupted {
            if self.graph.nodes[node].spec.idempotent {
                self.ready.push_front(node);
            } else {
                let failure = NodeFailure::permanent(
                    FailureKind::Interrupted,
                    "its instance died while it executed, and it is declared not idempotent",
                );
                self.record(node, JournalEvent::Failed(failure));
            }
        }
    }

    /// Decides everything that can be decided now. `quiet` says that no checkpoint is in flight.
    fn decide(&mut self, quiet: bool) {
        if self.release.is_some() {
            return;
        }
        loop {
            let advance = self.progress.advance();
            if self.graph.definition().fail_fast && !self.progress.unhandled().is_empty() {
                return self.fail();
            }
            self.ready.extend(advance.ready);
            if advance.skipped.is_empty() {
                break;
            }
            for node in advance.skipped {
                self.record(node, JournalEvent::Skipped);
            }
        }
        if self.progress.is_complete() {
            return if self.progress.unhandled().is_empty() { self.succeed() } else { self.fail() };
        }
        if !self.draining {
            self.wake_due();
            self.admit();
        }
        if quiet && self.records.is_empty() && self.n_active == 0 && self.polls.is_empty() {
            self.release_if_idle();
        } else {
            self.lingers_until = None;
        }
    }

    fn wake_due(&mut self) {
        let now = self.around.clock.now();
        while let Some(&(until, node)) = self.timers.first() {
            if until > now {
                break;
            }
            self.timers.pop_first();
            if self.progress.node(node).state == NodeState::Waiting {
                self.wake(node);
            } else {
                self.ready.push_back(node);
            }
        }
    }

    fn admit(&mut self) {
        while self.n_active < self.graph.definition().max_concurrency {
            let Some(node) = self.ready.pop_front() else { break };
            self.record(node, JournalEvent::Started);
            self.n_active += 1;
            self.launches.push(node);
        }
    }

    /// Adds a record and applies it to the progress.
    fn record(&mut self, node: usize, event: JournalEvent) {
        let run = self.progress.node(node);
        let attempt = run.attempt + i32::from(event == JournalEvent::Started);
        // An attempt that was skipped has no permit that it knows of. A question whose answer was lost may have got one.
        let was_running = run.state == NodeState::Running;
        let ends_attempt = event.ends_attempt() || (event == JournalEvent::Skipped && was_running);
        if let Err(illegal) = self.progress.apply(node, &event, attempt, self.around.clock.now()) {
            // The decisions above only make legal records; an illegal one must not reach the journal.
            tracing::error!(run.id = %self.claimed.claim.run, error = %illegal, "the engine made an illegal record; dropping it");
            debug_assert!(false, "{illegal}");
            return;
        }
        let id = self.graph.nodes[node].spec.id.clone();
        if ends_attempt && self.is_limited(node) {
            self.frees.push(id.clone());
        }
        self.records.push(Record::of_node(id, attempt, event));
    }

    fn record_effect(&mut self, effect: EffectRecord) {
        self.record(effect.node, effect.event);
        self.durable_waiters.extend(effect.durable);
    }

    fn note_end(&mut self, node: usize, result: Result<Ended, NodeFailure>) {
        // What the node recorded before its end comes before its end in the journal.
        while let Ok(effect) = self.effects.try_recv() {
            self.record_effect(effect);
        }
        self.n_active -= 1;
        let event = match attempt::bounded(result) {
            Ok(Ended::Skipped) => JournalEvent::Skipped,
            Ok(Ended::With(Outcome::Done(output))) => JournalEvent::Succeeded { output },
            Ok(Ended::With(Outcome::Wait(wait))) => match self.begin_wait(node, wait) {
                Ok(waiting) => waiting,
                Err(failure) => self.after_failure(node, failure),
            },
            Err(mut failure) => {
                // Its timeout ended the wait, whatever the node reports.
                failure.retryable |=
                    failure.kind == FailureKind::TimedOut && self.progress.node(node).times_out;
                self.after_failure(node, failure)
            }
        };
        let waits_for_event = matches!(event, JournalEvent::Waiting { on, .. } if on != WaitingFor::Timer);
        self.record(node, event);
        if waits_for_event {
            // The wait may have been over before it was recorded.
            self.poll(node);
        }
    }
}

/// Waits for that time by the engine's clock; without a time, for ever.
async fn sleep_until(at: Option<DateTime<Utc>>, clock: &dyn Clock) {
    match at {
        Some(at) => tokio::time::sleep((at - clock.now()).to_std().unwrap_or(Duration::ZERO)).await,
        None => std::future::pending().await,
    }
}
