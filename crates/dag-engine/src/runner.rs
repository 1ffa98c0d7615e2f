//! The claim loop of one instance: takes runs from the queue while there is room, and drives them.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use gathering_domain::{InstanceId, RunId};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::driver::{DriveEnd, Signals};
use crate::engine::Engine;
use crate::store::{ActedOn, ClaimedRun, StoreError};

/// What a runner is told once.
#[derive(Debug, Clone)]
pub struct RunnerSettings {
    /// How many runs this instance drives at once.
    pub max_concurrent_runs: usize,
    /// How many runs one claim takes at most.
    pub claim_batch: usize,
    /// How often the queue is looked at when nothing says that it changed.
    pub safety_net: Duration,
    /// How often this instance looks for dead ones.
    pub recovery_interval: Duration,
    /// A run that was recovered more often than this is not driven again.
    pub max_recoveries: i32,
    /// How long running nodes may go on after the stop.
    pub grace: Duration,
}

impl Default for RunnerSettings {
    fn default() -> Self {
        Self {
            max_concurrent_runs: 256,
            claim_batch: 128,
            safety_net: Duration::from_secs(5),
            recovery_interval: Duration::from_secs(1),
            max_recoveries: 20,
            grace: Duration::from_secs(30),
        }
    }
}

/// Takes runs from the queue and drives them, until it is told to stop.
pub struct Runner {
    engine: Engine,
    owner: InstanceId,
    settings: RunnerSettings,
    handle: RunnerHandle,
    /// Whether this instance may hold runs that it does not drive: the answer to a claim got lost, or a drive broke off.
    holds_undriven: AtomicBool,
}

/// Tells a [`Runner`] that there is something to look at. Cheap to clone.
#[derive(Clone, Default)]
pub struct RunnerHandle {
    queue_changed: Arc<Notify>,
    acted: Arc<Notify>,
    driven: Arc<Mutex<HashMap<RunId, Driven>>>,
    hand_back: CancellationToken,
}

/// What reaches a run that is driven here.
#[derive(Clone, Default)]
struct Driven {
    cancel: CancellationToken,
    acted: Arc<Notify>,
}

impl RunnerHandle {
    /// The queue may hold something new.
    pub fn wake(&self) {
        self.queue_changed.notify_one();
    }

    /// Somebody may have acted on a run that is driven here: asked for its end, or brought what it waits for.
    pub fn look_for_acts(&self) {
        self.acted.notify_one();
    }

    /// Ends a run if this instance drives it; answers whether it does.
    pub fn cancel(&self, run: RunId) -> bool {
        self.with_driven(|driven| driven.get(&run).map(|run| run.cancel.cancel())).is_some()
    }

    /// Ends the grace period of a runner that was stopped: what still executes is dropped and handed back now.
    pub fn hand_back_now(&self) {
        self.hand_back.cancel();
    }

    /// How many runs are driven now.
    pub fn n_driven(&self) -> usize {
        self.with_driven(|driven| driven.len())
    }

    fn with_driven<T>(&self, act: impl FnOnce(&mut HashMap<RunId, Driven>) -> T) -> T {
        // The map holds plain handles, so a panic elsewhere cannot have left it half-changed.
        act(&mut self.driven.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Runner {
    /// A runner that claims in the name of `owner`, whose liveness somebody else proves.
    pub fn new(engine: Engine, owner: InstanceId, settings: RunnerSettings) -> Self {
        Self {
            engine,
            owner,
            settings,
            handle: RunnerHandle::default(),
            holds_undriven: AtomicBool::new(false),
        }
    }

    /// What wakes it.
    pub fn handle(&self) -> RunnerHandle {
        self.handle.clone()
    }

    /// Claims and drives until `stop`; then lets running nodes go on for the grace period, hands every unfinished run
    /// back, and returns. When `fence` is cancelled everything is dropped at once and nothing is written.
    pub async fn run(self, stop: CancellationToken, fence: CancellationToken) {
        let signals = Signals {
            drain: stop.clone(),
            fence: fence.clone(),
            hand_back: self.handle.hand_back.clone(),
            ..Signals::default()
        };
        let mut driving: JoinSet<(RunId, DriveEnd)> = JoinSet::new();
        let mut next_recovery = tokio::time::Instant::now();
        loop {
            let queue_changed = self.handle.queue_changed.notified();
            tokio::pin!(queue_changed);
            // Registered before looking, or a change between the look and the wait would be missed.
            queue_changed.as_mut().enable();
            if tokio::time::Instant::now() >= next_recovery {
                self.recover().await;
                next_recovery = tokio::time::Instant::now() + self.settings.recovery_interval;
            }
            let more_is_waiting = self.claim_up_to_the_limit(&mut driving, &signals).await;
            let sleep = self.until_next_look(more_is_waiting, driving.len()).await;
            tokio::select! {
                biased;
                () = fence.cancelled() => break,
                () = stop.cancelled() => break,
                Some(ended) = driving.join_next() => {
                    self.note(ended);
                    while let Some(ended) = driving.try_join_next() {
                        self.note(ended);
                    }
                }
                () = self.handle.acted.notified() => self.pass_on_acts().await,
                () = &mut queue_changed => {}
                () = tokio::time::sleep(sleep) => self.pass_on_acts().await,
                () = tokio::time::sleep_until(next_recovery) => {}
            }
        }
        self.drain(driving, &signals).await;
    }

    async fn drain(&self, mut driving: JoinSet<(RunId, DriveEnd)>, signals: &Signals) {
        let grace = tokio::time::sleep(self.settings.grace);
        tokio::pin!(grace);
        loop {
            tokio::select! {
                ended = driving.join_next() => match ended {
                    Some(ended) => self.note(ended),
                    None => return,
                },
                () = &mut grace, if !signals.hand_back.is_cancelled() => signals.hand_back.cancel(),
            }
        }
    }

    async fn recover(&self) {
        match self.engine.store().recover_dead_instances(self.settings.max_recoveries).await {
            Ok(0) => {}
            Ok(n_runs) => tracing::info!(n_runs, "took over {n_runs} runs of instances that died"),
            Err(error) => log_store_error("dead instances cannot be looked for", &error),
        }
    }

    /// Answers whether the queue may hold more than was taken.
    async fn claim_up_to_the_limit(
        &self,
        driving: &mut JoinSet<(RunId, DriveEnd)>,
        signals: &Signals,
    ) -> bool {
        let room = self.settings.max_concurrent_runs.saturating_sub(driving.len());
        let limit = room.min(self.settings.claim_batch);
        if limit == 0 || signals.drain.is_cancelled() || signals.fence.is_cancelled() {
            return false;
        }
        if !self.release_undriven().await {
            return false;
        }
        match self.engine.store().claim(self.owner, limit).await {
            Ok(claimed) => {
                let more = claimed.len() == limit;
                for run in claimed {
                    self.start(run, driving, signals);
                }
                more
            }
            Err(error) => {
                self.holds_undriven.store(true, Ordering::Relaxed);
                log_store_error("runs cannot be claimed", &error);
                false
            }
        }
    }

    /// Puts back what this instance holds without driving it, if there may be such runs; answers whether that is settled.
    async fn release_undriven(&self) -> bool {
        if !self.holds_undriven.load(Ordering::Relaxed) {
            return true;
        }
        let driven: Vec<RunId> = self.handle.with_driven(|driven| driven.keys().copied().collect());
        match self.engine.store().release_undriven(self.owner, &driven).await {
            Ok(n_runs) => {
                self.holds_undriven.store(false, Ordering::Relaxed);
                if n_runs > 0 {
                    tracing::warn!(
                        n_runs,
                        "{n_runs} runs were held without being driven, and are queued again"
                    );
                }
                true
            }
            Err(error) => {
                log_store_error("undriven runs cannot be put back", &error);
                false
            }
        }
    }

    fn start(&self, claimed: ClaimedRun, driving: &mut JoinSet<(RunId, DriveEnd)>, signals: &Signals) {
        let run = claimed.claim.run;
        let reached = Driven::default();
        self.handle.with_driven(|driven| driven.insert(run, reached.clone()));
        let signals = Signals { cancel: reached.cancel, acted: reached.acted, ..signals.clone() };
        let engine = self.engine.clone();
        driving.spawn(async move {
            let drive = AssertUnwindSafe(engine.drive(claimed, signals)).catch_unwind();
            (run, drive.await.unwrap_or(DriveEnd::Abandoned))
        });
    }

    async fn until_next_look(&self, more_is_waiting: bool, n_driving: usize) -> Duration {
        if n_driving >= self.settings.max_concurrent_runs {
            // Room comes with the end of a run, which wakes the loop.
            return self.settings.safety_net;
        }
        if more_is_waiting {
            return Duration::ZERO;
        }
        match self.engine.store().next_available_in().await {
            Ok(Some(wait)) => wait.min(self.settings.safety_net),
            Ok(None) => self.settings.safety_net,
            Err(error) => {
                log_store_error("the queue cannot be looked at", &error);
                self.settings.safety_net.min(Duration::from_secs(1))
            }
        }
    }

    async fn pass_on_acts(&self) {
        if self.handle.n_driven() == 0 {
            return;
        }
        match self.engine.store().list_acted_on(self.owner).await {
            Ok(acted_on) => self.handle.with_driven(|driven| {
                for ActedOn { run, cancel_requested } in acted_on {
                    match driven.get(&run) {
                        Some(run) if cancel_requested => run.cancel.cancel(),
                        Some(run) => run.acted.notify_one(),
                        None => {}
                    }
                }
            }),
            Err(error) => log_store_error("it cannot be looked for who acted on a run", &error),
        }
    }

    fn note(&self, ended: Result<(RunId, DriveEnd), tokio::task::JoinError>) {
        match ended {
            Ok((run, end)) => {
                self.handle.with_driven(|driven| driven.remove(&run));
                if end == DriveEnd::Abandoned {
                    self.holds_undriven.store(true, Ordering::Relaxed);
                }
                tracing::debug!(run.id = %run, end = ?end, "a run is no longer driven here");
            }
            Err(error) => tracing::error!(error = %error, "a drive was aborted from outside"),
        }
    }
}

fn log_store_error(what: &str, error: &StoreError) {
    tracing::warn!(error = %error, cause = ?std::error::Error::source(error), "{what}, trying again");
}
