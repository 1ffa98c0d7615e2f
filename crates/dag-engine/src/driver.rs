//! Drives one claimed run: decides what happens next, has it recorded, executes it.
//!
//! The driver alone knows the next place in the journal. It has at most one checkpoint on its way; whatever happens
//! meanwhile goes into the next one. A node is launched only when the checkpoint that says so is durable, and that same
//! checkpoint holds the results that led to it (I3). All node futures live inside the driver: dropping it ends them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use gathering_domain::{Digest, RunEvent, WaitingFor};
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
use crate::progress::Progress;
use crate::store::{Checkpoint, ClaimedRun, Release, StoreError};

mod attempt;
mod ending;
mod waiting;

use self::waiting::Polls;

/// Records of effects that may wait for the driver; a node that records faster waits.
const EFFECTS_BOUND: usize = 64;

/// What may end a drive from outside.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    /// Somebody asked for the run's end.
    pub cancel: CancellationToken,
    /// Somebody acted on the run: what a node waits for may have come.
    pub wake_up: Arc<Notify>,
    /// The instance is to stop: start nothing more, and hand the run back once nothing executes.
    pub drain: CancellationToken,
    /// The time for that is over: drop what executes and hand the run back now.
    pub release: CancellationToken,
    /// The instance may have lost its claims: drop everything and write nothing.
    pub fence: CancellationToken,
}

/// How a drive ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriveEnd {
    /// The run reached a terminal state.
    Ended(RunEvent),
    /// The run waits; nobody drives it.
    Parked,
    /// The run is queued again.
    Requeued,
    /// The run is somebody else's by now; nothing was written over.
    ClaimLost,
    /// The engine stopped, or had to, before the run was let go of; it will be recovered.
    Abandoned,
}

/// What a driver needs of its engine.
#[derive(Clone)]
pub(crate) struct DriverContext {
    pub(crate) types: Arc<NodeTypes>,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) breakers: Option<Breakers>,
    /// From how long a wait on the run is let go of until then.
    pub(crate) park_after: Duration,
}

/// The store does not take what a run has to say; why.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Box<dyn std::error::Error + Send + Sync>);

type NodeEnd = (usize, Result<Outcome, NodeFailure>);

pub(crate) struct Driver {
    around: DriverContext,
    claimed: ClaimedRun,
    graph: Arc<Graph>,
    progress: Progress,
    next_seq: Seq,
    /// What happened and is not yet on its way to the journal.
    records: Vec<Record>,
    /// Nodes to launch once `records` are durable, and who waits for that.
    launches: Vec<usize>,
    durable_waiters: Vec<oneshot::Sender<()>>,
    /// Set once: what becomes of the run with the next checkpoint.
    release: Option<Release>,
    ready: VecDeque<usize>,
    timers: BTreeSet<(DateTime<Utc>, usize)>,
    /// Nodes whose attempt was recorded as begun and has not ended.
    n_active: usize,
    executing: FuturesUnordered<BoxFuture<'static, NodeEnd>>,
    polls: Polls,
    /// Until when the run is held though its nodes only wait for somebody: what comes soon finds it here.
    lingers_until: Option<DateTime<Utc>>,
    effects_sender: mpsc::Sender<EffectRecord>,
    effects: mpsc::Receiver<EffectRecord>,
    draining: bool,
}

/// A checkpoint on its way.
struct InFlight {
    commit: BoxFuture<'static, Result<(), StoreError>>,
    launches: Vec<usize>,
    durable_waiters: Vec<oneshot::Sender<()>>,
    end: Option<DriveEnd>,
}

impl Driver {
    pub(crate) fn new(
        around: DriverContext,
        claimed: ClaimedRun,
        graph: Arc<Graph>,
        progress: Progress,
        next_seq: Seq,
    ) -> Self {
        let (effects_sender, effects) = mpsc::channel(EFFECTS_BOUND);
        Self {
            around,
            claimed,
            graph,
            progress,
            next_seq,
            records: Vec::new(),
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
            draining: false,
        }
    }

    /// Drives the run until it ends, waits, or a signal comes. The claim has recorded the start of these nodes.
    ///
    /// # Errors
    /// [`Refused`]: the run stays claimed, and what its journal says is what happened.
    pub(crate) async fn drive(mut self, started: Vec<usize>, signals: Signals) -> Result<DriveEnd, Refused> {
        self.draining = signals.drain.is_cancelled();
        // While draining nothing is launched: who drives the run next takes them for interrupted, and begins them again.
        self.restore(if self.draining { Vec::new() } else { started });
        if self.claimed.cancel_requested {
            self.end_early(RunEvent::Cancelled, "cancelled", "cancelled on request");
        }
        let mut in_flight: Option<InFlight> = None;
        loop {
            // Before anything else is decided: what has come too late must not begin.
            if self.is_overdue() {
                self.end_early(RunEvent::TimedOut, NodeFailure::TIMED_OUT, "its deadline passed");
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
                    self.end_early(RunEvent::Cancelled, "cancelled", "cancelled on request");
                }
                // The next turn finds it overdue.
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

    /// Whether the run's deadline has passed while nothing says yet what becomes of it.
    fn is_overdue(&self) -> bool {
        let passed = |deadline| deadline <= self.around.clock.now();
        self.release.is_none() && self.claimed.deadline_at.is_some_and(passed)
    }

    /// Finds where the run stands after a replay, or begins it.
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
                    "interrupted",
                    "its instance died while it executed, and it is declared not idempotent",
                );
                self.record(node, JournalEvent::Failed(failure));
            }
        }
    }

    /// Draws every conclusion there is. `quiet` says that no checkpoint is on its way.
    fn decide(&mut self, quiet: bool) {
        if self.release.is_some() {
            return;
        }
        loop {
            match self.progress.advance() {
                Ok(advance) => {
                    if let Some(node) = advance.fatal {
                        return self.fail(node);
                    }
                    self.ready.extend(advance.ready);
                    if advance.skipped.is_empty() {
                        break;
                    }
                    for node in advance.skipped {
                        self.record(node, JournalEvent::Skipped);
                    }
                }
                Err(error) => return self.end_early(RunEvent::Failed, "expression", &error.to_string()),
            }
        }
        if self.progress.is_complete() {
            return self.succeed();
        }
        if !self.draining {
            self.wake_due();
            self.admit();
        }
        if quiet && self.records.is_empty() && self.n_active == 0 && self.polls.is_empty() {
            self.let_go();
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

    /// Adds a record and takes it in.
    fn record(&mut self, node: usize, event: JournalEvent) {
        let run = self.progress.node(node);
        let attempt = run.attempt + i32::from(event == JournalEvent::Started);
        if let Err(illegal) = self.progress.apply(node, &event, attempt, self.around.clock.now()) {
            // The decisions above only make legal records; one that is not must not reach the journal.
            tracing::error!(run.id = %self.claimed.claim.run, error = %illegal, "the engine made an illegal record; dropping it");
            debug_assert!(false, "{illegal}");
            return;
        }
        self.records.push(Record::of_node(self.graph.nodes[node].spec.id.clone(), attempt, event));
    }

    fn record_effect(&mut self, effect: EffectRecord) {
        self.record(effect.node, effect.event);
        self.durable_waiters.extend(effect.durable);
    }

    fn note_end(&mut self, node: usize, result: Result<Outcome, NodeFailure>) {
        // What the node recorded before its end comes before its end in the journal.
        while let Ok(effect) = self.effects.try_recv() {
            self.record_effect(effect);
        }
        self.n_active -= 1;
        let event = match attempt::bounded(result) {
            Ok(Outcome::Done(output)) => JournalEvent::Succeeded { output },
            Ok(Outcome::Wait(wait)) => match self.begin_wait(node, wait) {
                Ok(waiting) => waiting,
                Err(failure) => self.after_failure(node, failure),
            },
            Err(mut failure) => {
                // What ended its wait was its timeout, whatever the node takes it for.
                failure.retryable |=
                    failure.kind == NodeFailure::TIMED_OUT && self.progress.node(node).times_out;
                self.after_failure(node, failure)
            }
        };
        let waits_for_somebody = matches!(event, JournalEvent::Waiting { on, .. } if on != WaitingFor::Timer);
        self.record(node, event);
        if waits_for_somebody {
            // What it waits for may have come before it began to.
            self.poll(node);
        }
    }

    fn after_failure(&mut self, node: usize, failure: NodeFailure) -> JournalEvent {
        let spec = &self.graph.nodes[node].spec;
        let run = self.progress.node(node);
        let failures = run.failures + 1;
        if !failure.retryable || failures >= spec.retry.max_attempts {
            return JournalEvent::Failed(failure);
        }
        let draw = draw(&format!("{}/{}/{}", self.claimed.claim.run, spec.id, run.attempt));
        let backoff = spec.retry.backoff_after(failures, draw);
        let until = self.around.clock.now() + backoff;
        self.timers.insert((until, node));
        JournalEvent::Retrying { failure, until }
    }

    /// Sends what happened on its way to the journal, if anything did.
    fn checkpoint(&mut self) -> Option<InFlight> {
        let release = self.release.clone();
        if self.records.is_empty() && release.is_none() {
            return None;
        }
        let records = std::mem::take(&mut self.records);
        let first_seq = self.next_seq;
        self.next_seq += i64::try_from(records.len()).unwrap_or(i64::MAX);
        let end = release.as_ref().map(|release| match release {
            Release::End(end) => DriveEnd::Ended(end.event),
            Release::Park { .. } => DriveEnd::Parked,
            Release::Requeue => DriveEnd::Requeued,
        });
        let checkpoint = Checkpoint { claim: self.claimed.claim, first_seq, records, release };
        let checkpointer = self.around.checkpointer.clone();
        Some(InFlight {
            commit: async move { checkpointer.commit(checkpoint).await }.boxed(),
            launches: std::mem::take(&mut self.launches),
            durable_waiters: std::mem::take(&mut self.durable_waiters),
            end,
        })
    }
}

/// The commit on its way, or never.
async fn commit_of(in_flight: &mut Option<InFlight>) -> Result<(), StoreError> {
    match in_flight {
        Some(flight) => (&mut flight.commit).await,
        None => std::future::pending().await,
    }
}

/// Waits for that time by the engine's clock; for ever if there is none.
async fn sleep_until(at: Option<DateTime<Utc>>, clock: &dyn Clock) {
    match at {
        Some(at) => tokio::time::sleep((at - clock.now()).to_std().unwrap_or(Duration::ZERO)).await,
        None => std::future::pending().await,
    }
}

/// A number from 0 to 1 that is spread evenly over names and the same for the same name.
fn draw(name: &str) -> f64 {
    let digest = Digest::of(name.as_bytes());
    let [a, b, c, d, ..] = *digest.as_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
}
