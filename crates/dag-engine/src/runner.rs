//! The claim loop of one instance: claims runs while there is room, and drives them.

mod handle;
mod next_poll;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use gathering_domain::{InstanceId, RunId};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::driver::{DriveEnd, Signals};
use crate::engine::Engine;
use crate::store::{ClaimScope, ClaimedRun, Recovered, SignalledRun, StoreError};
use handle::Driven;
pub use handle::RunnerHandle;
use next_poll::{Claimed, GATHER, NextPoll, QUIET};

/// How often the driven runs are polled for signals when no wake-up arrives.
const SIGNALS: Duration = Duration::from_secs(5);

/// How often cancelled and overdue runs are claimed while runs are driven: there may be no room for them, or others may
/// stand before them in the queue.
const ENDINGS: Duration = Duration::from_secs(1);

/// How soon again after a wake-up for the queue.
const ENDINGS_AFTER_WAKE_UP: Duration = Duration::from_millis(100);

/// How many of them one claim takes. They end with their next checkpoint, so they need no room.
const ENDINGS_BATCH: usize = 64;

/// How long the store may take to release runs after the grace period of a stop.
const RELEASE_LIMIT: Duration = Duration::from_secs(10);

/// The longest wait before the next poll after a failure of the store.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// The settings of a runner.
#[derive(Debug, Clone)]
pub struct RunnerSettings {
    /// The most runs that this instance drives at once.
    pub max_concurrent_runs: usize,
    /// The most runs that one claim takes.
    pub claim_batch: usize,
    /// How often the runner polls the queue and checks for dead instances when no wake-up arrives.
    pub safety_net: Duration,
    /// How often this instance checks for dead instances while any instance drives runs, and how soon after a poll of
    /// the queue.
    pub recovery_interval: Duration,
    /// A run that was recovered more often than this is not driven again.
    pub max_recoveries: i32,
    /// How long running nodes may continue after the stop.
    pub grace: Duration,
    /// Which runs this instance claims.
    pub scope: ClaimScope,
}

impl Default for RunnerSettings {
    fn default() -> Self {
        Self {
            max_concurrent_runs: 256,
            claim_batch: 128,
            safety_net: Duration::from_secs(60),
            recovery_interval: Duration::from_secs(1),
            max_recoveries: 20,
            grace: Duration::from_secs(30),
            scope: ClaimScope::Queue,
        }
    }
}

/// Claims runs from the queue and drives them, until it is stopped.
pub struct Runner {
    engine: Engine,
    owner: InstanceId,
    settings: RunnerSettings,
    handle: RunnerHandle,
    /// Whether this instance may own runs that it does not drive: the answer to a claim was lost, or a drive was aborted.
    holds_undriven: AtomicBool,
}

impl Runner {
    /// A runner that claims for `owner`. The caller proves that instance alive.
    pub fn new(engine: Engine, owner: InstanceId, settings: RunnerSettings) -> Self {
        Self {
            engine,
            owner,
            settings,
            handle: RunnerHandle::default(),
            holds_undriven: AtomicBool::new(false),
        }
    }

    /// The handle through which it is woken and observed.
    pub fn handle(&self) -> RunnerHandle {
        self.handle.clone()
    }

    /// Claims and drives until `stop`. Then running nodes may continue for the grace period, every unfinished run is
    /// released, and this returns. When `fence` is cancelled it drops everything at once and writes nothing.
    pub async fn run(self, stop: CancellationToken, fence: CancellationToken) {
        let signals = Signals {
            drain: stop.clone(),
            fence: fence.clone(),
            release: self.handle.release.clone(),
            ..Signals::default()
        };
        let mut driving: JoinSet<(RunId, DriveEnd)> = JoinSet::new();
        let mut next_recovery = Instant::now();
        let mut next_signals = Instant::now() + SIGNALS;
        let mut last_endings = Instant::now();
        let mut next_endings = last_endings + ENDINGS;
        let mut next = NextPoll::Claim;
        loop {
            if !driving.is_empty() && Instant::now() >= next_endings {
                self.claim_ending(&mut driving, &signals).await;
                last_endings = Instant::now();
                next_endings = last_endings + ENDINGS;
            }
            if Instant::now() >= next_recovery {
                let recovered = self.recover().await;
                if recovered.n_runs > 0 {
                    next = NextPoll::Claim;
                }
                next_recovery = self.next_recovery(recovered.is_anyone_driving);
            }
            next = self.poll_queue(next, &mut driving, &signals).await;
            let (at, then) = next.when_nothing_happens();
            tokio::select! {
                biased;
                () = fence.cancelled() => break,
                () = stop.cancelled() => break,
                Some(ended) = driving.join_next() => {
                    let mut may_be_claimed = self.note(ended);
                    while let Some(ended) = driving.try_join_next() {
                        may_be_claimed |= self.note(ended);
                    }
                    next = next.after_ends(may_be_claimed);
                }
                () = self.handle.wake_up.notified() => self.forward_signals().await,
                // A wake-up that arrives during a poll is kept until here.
                () = self.handle.queue_changed.notified() => {
                    next = NextPoll::Claim;
                    next_recovery = next_recovery.min(self.next_recovery(true));
                    next_endings = next_endings.min(last_endings + ENDINGS_AFTER_WAKE_UP);
                }
                () = tokio::time::sleep_until(next_endings), if !driving.is_empty() => {}
                () = tokio::time::sleep_until(at) => {
                    next = then;
                    next_recovery = next_recovery.min(self.next_recovery(true));
                }
                () = tokio::time::sleep_until(next_signals), if !driving.is_empty() => {
                    self.forward_signals().await;
                    next_signals = Instant::now() + SIGNALS;
                }
                () = tokio::time::sleep_until(next_recovery) => {}
            }
        }
        self.drain(driving, &signals).await;
    }

    /// Waits for the drives. After the grace period they release their runs; a drive that the store does not let release
    /// within [`RELEASE_LIMIT`] is dropped, and its run is recovered.
    async fn drain(&self, mut driving: JoinSet<(RunId, DriveEnd)>, signals: &Signals) {
        let grace = tokio::time::sleep(self.settings.grace);
        let limit = tokio::time::sleep(self.settings.grace + RELEASE_LIMIT);
        tokio::pin!(grace, limit);
        loop {
            tokio::select! {
                ended = driving.join_next() => match ended {
                    Some(ended) => drop(self.note(ended)),
                    None => return,
                },
                // A run that ended may have asked for the end of its children.
                () = self.handle.wake_up.notified() => self.forward_signals().await,
                () = &mut grace, if !signals.release.is_cancelled() => signals.release.cancel(),
                () = &mut limit => {
                    let n_runs = driving.len();
                    tracing::warn!(n_runs, "the store did not release {n_runs} runs in time; they will be recovered");
                    return driving.shutdown().await;
                }
            }
        }
    }

    /// When no instance drives, no instance can die with a run. That may change whenever the queue is polled here, after a
    /// wake-up or at a due time, because another instance may claim first. So a check for dead instances follows each poll.
    fn next_recovery(&self, may_anyone_drive: bool) -> Instant {
        let RunnerSettings { recovery_interval, safety_net, .. } = self.settings;
        Instant::now() + if may_anyone_drive { recovery_interval } else { safety_net.max(recovery_interval) }
    }

    /// Requeues the runs of dead instances.
    async fn recover(&self) -> Recovered {
        match self.engine.store().recover_dead_instances(self.settings.max_recoveries).await {
            Ok(recovered) => {
                if recovered.n_runs > 0 {
                    let n_runs = recovered.n_runs;
                    tracing::info!(n_runs, "requeued {n_runs} runs of dead instances");
                }
                recovered
            }
            Err(error) => {
                log_store_error("cannot check for dead instances", &error);
                Recovered { n_runs: 0, is_anyone_driving: true }
            }
        }
    }

    /// Polls the queue if it is time to, and returns when to poll next.
    async fn poll_queue(
        &self,
        next: NextPoll,
        driving: &mut JoinSet<(RunId, DriveEnd)>,
        signals: &Signals,
    ) -> NextPoll {
        let now = Instant::now();
        match next {
            NextPoll::Claim => {}
            NextPoll::ClaimRest { by } if by <= now || self.has_room_for_a_batch(driving.len()) => {}
            NextPoll::Ask => return self.ask().await,
            NextPoll::ClaimRest { .. } | NextPoll::ClaimAt(_) | NextPoll::AskAt(_) | NextPoll::Full => {
                return next;
            }
        }
        let room = self.settings.max_concurrent_runs.saturating_sub(driving.len());
        if room == 0 {
            return NextPoll::Full;
        }
        match self.claim(room.min(self.settings.claim_batch), driving, signals).await {
            // Runs end in groups, as their checkpoints do, so claims that wait for a group are fewer and larger.
            Claimed::Batch => NextPoll::ClaimRest { by: now + GATHER },
            // More may be coming, so it asks for the next time only when the queue is quiet.
            Claimed::Some => NextPoll::ClaimAt(now + QUIET),
            Claimed::None => self.ask().await,
            Claimed::Unknown => NextPoll::ClaimAt(now + self.settings.safety_net.min(AFTER_ERROR)),
        }
    }

    fn has_room_for_a_batch(&self, n_driving: usize) -> bool {
        let room = self.settings.max_concurrent_runs.saturating_sub(n_driving);
        room >= self.settings.claim_batch.min(self.settings.max_concurrent_runs)
    }

    async fn claim(
        &self,
        limit: usize,
        driving: &mut JoinSet<(RunId, DriveEnd)>,
        signals: &Signals,
    ) -> Claimed {
        if !self.may_claim(signals).await {
            return Claimed::Unknown;
        }
        let claimed = self.engine.store().claim(self.owner, self.settings.scope, limit).await;
        match self.start_all(claimed, driving, signals) {
            Some(0) => Claimed::None,
            Some(n) if n == limit => Claimed::Batch,
            Some(_) => Claimed::Some,
            None => Claimed::Unknown,
        }
    }

    /// Claims cancelled and overdue runs, whether or not there is room for them.
    async fn claim_ending(&self, driving: &mut JoinSet<(RunId, DriveEnd)>, signals: &Signals) {
        if self.may_claim(signals).await {
            let scope = self.settings.scope;
            let claimed = self.engine.store().claim_ending(self.owner, scope, ENDINGS_BATCH).await;
            self.start_all(claimed, driving, signals);
        }
    }

    async fn may_claim(&self, signals: &Signals) -> bool {
        !signals.drain.is_cancelled() && !signals.fence.is_cancelled() && self.release_undriven().await
    }

    /// Drives the claimed runs, and returns their number if the store answered.
    fn start_all(
        &self,
        claimed: Result<Vec<ClaimedRun>, StoreError>,
        driving: &mut JoinSet<(RunId, DriveEnd)>,
        signals: &Signals,
    ) -> Option<usize> {
        match claimed {
            Ok(claimed) => {
                let n_claimed = claimed.len();
                for run in claimed {
                    self.start(run, driving, signals);
                }
                Some(n_claimed)
            }
            Err(error) => {
                self.holds_undriven.store(true, Ordering::Relaxed);
                log_store_error("cannot claim runs", &error);
                None
            }
        }
    }

    /// Asks the store when a run can be claimed.
    async fn ask(&self) -> NextPoll {
        let safety_net = NextPoll::AskAt(Instant::now() + self.settings.safety_net);
        match self.engine.store().next_available_in(self.settings.scope).await {
            // A run that is available now arrived after the claim, or another instance is claiming it. The pause keeps this
            // from polling in a tight loop.
            Ok(Some(wait)) if wait < self.settings.safety_net => {
                NextPoll::ClaimAt(Instant::now() + wait.max(QUIET))
            }
            Ok(_) => safety_net,
            Err(error) => {
                log_store_error("cannot poll the queue", &error);
                NextPoll::AskAt(Instant::now() + self.settings.safety_net.min(AFTER_ERROR))
            }
        }
    }

    /// Requeues the runs that this instance owns but does not drive, if there may be any. Returns whether that is settled.
    async fn release_undriven(&self) -> bool {
        if !self.holds_undriven.load(Ordering::Relaxed) {
            return true;
        }
        let driven = self.handle.driven_ids();
        match self.engine.store().release_undriven(self.owner, &driven).await {
            Ok(n_runs) => {
                self.holds_undriven.store(false, Ordering::Relaxed);
                if n_runs > 0 {
                    tracing::warn!(n_runs, "requeued {n_runs} claimed runs that were not being driven");
                }
                true
            }
            Err(error) => {
                log_store_error("cannot release undriven runs", &error);
                false
            }
        }
    }

    fn start(&self, claimed: ClaimedRun, driving: &mut JoinSet<(RunId, DriveEnd)>, signals: &Signals) {
        let run = claimed.claim.run;
        let reached = Driven::default();
        self.handle.begin(run, reached.clone());
        let Driven { cancel, cancel_reason, wake_up } = reached;
        let signals = Signals { cancel, cancel_reason, wake_up, ..signals.clone() };
        let engine = self.engine.clone();
        let claim = claimed.claim;
        driving.spawn(async move {
            let drive = AssertUnwindSafe(engine.drive(claimed, signals.clone())).catch_unwind();
            match drive.await {
                Ok(end) => (run, end),
                // It would panic again on the next instance.
                Err(_) => (run, engine.fail_after_panic(claim, signals).await),
            }
        });
    }

    async fn forward_signals(&self) {
        if self.handle.n_driven() == 0 {
            return;
        }
        let ids = self.handle.driven_ids();
        match self.engine.store().list_signalled(self.owner, &ids).await {
            Ok(signalled) => self.handle.with_driven(|driven| {
                for SignalledRun { run, cancel_requested, cancel_reason } in signalled {
                    match driven.get(&run) {
                        Some(run) if cancel_requested => run.cancel_for(cancel_reason),
                        Some(run) => run.wake_up.notify_one(),
                        None => {}
                    }
                }
            }),
            Err(error) => log_store_error("cannot poll driven runs for cancellations and wake-ups", &error),
        }
    }

    /// Forgets a drive that ended, and returns whether its run may be claimed again at once.
    fn note(&self, ended: Result<(RunId, DriveEnd), tokio::task::JoinError>) -> bool {
        match ended {
            Ok((run, end)) => {
                self.handle.end(run);
                if end == DriveEnd::Abandoned {
                    self.holds_undriven.store(true, Ordering::Relaxed);
                }
                tracing::debug!(run.id = %run, end = ?end, "stopped driving a run");
                !matches!(end, DriveEnd::Ended(_) | DriveEnd::ClaimLost)
            }
            Err(error) => {
                tracing::error!(error = %error, "a drive was aborted");
                true
            }
        }
    }
}

fn log_store_error(what: &str, error: &StoreError) {
    tracing::warn!(error = %error, cause = ?std::error::Error::source(error), "{what}; retrying");
}
