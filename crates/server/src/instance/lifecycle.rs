//! One identity after the other: registered, working, lost, registered anew.

use std::time::Duration;

use gathering_dag_engine::{Engine, Runner, RunnerHandle, RunnerSettings};
use gathering_persistence::{ConnectOptions, InstanceInfo, Liveness, Wake, WakeBus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Identity;

/// The pause between two attempts to register.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct InstanceLifecycle {
    engine: Engine,
    wakes: WakeBus,
    direct: ConnectOptions,
    info: InstanceInfo,
    settings: RunnerSettings,
    stop: CancellationToken,
    published: watch::Sender<Identity>,
    /// The claim loop of the identity that was published last, until it is run.
    runner: Option<Runner>,
}

impl InstanceLifecycle {
    pub(super) fn new(
        engine: Engine,
        wakes: WakeBus,
        direct: ConnectOptions,
        info: InstanceInfo,
        settings: RunnerSettings,
        stop: CancellationToken,
        first: &Liveness,
    ) -> (Self, watch::Receiver<Identity>) {
        let (runner, identity) = begin(&engine, &settings, first);
        let (published, identities) = watch::channel(identity);
        let lifecycle = Self { engine, wakes, direct, info, settings, stop, published, runner: Some(runner) };
        (lifecycle, identities)
    }

    /// Works until the stop; returns the identity that is still valid then, for its owner to end in order.
    pub(super) async fn run(mut self, first: Liveness) -> Option<Liveness> {
        let mut liveness = first;
        loop {
            let fence = liveness.lost();
            self.work(&liveness).await;
            if !fence.is_cancelled() {
                return Some(liveness);
            }
            // Nothing executes under the lost identity any more: its session may end, so that its runs are recovered.
            drop(liveness);
            liveness = self.begin_again().await?;
        }
    }

    /// Executes until the stop or the loss of this identity.
    async fn work(&mut self, liveness: &Liveness) {
        let fence = liveness.lost();
        let Some(runner) = self.runner.take() else { return };
        let handle = runner.handle();
        let working = async {
            tokio::join!(
                runner.run(self.stop.clone(), fence.clone()),
                announce(liveness, &self.stop, &fence)
            );
        };
        tokio::select! {
            () = working => {}
            () = pass_on(&self.wakes, &handle) => {}
            () = tell_driving(liveness, &handle) => {}
        }
    }

    async fn begin_again(&mut self) -> Option<Liveness> {
        loop {
            if self.stop.is_cancelled() {
                return None;
            }
            match Liveness::begin(&self.direct, &self.info).await {
                Ok(liveness) => {
                    let (runner, identity) = begin(&self.engine, &self.settings, &liveness);
                    tracing::info!(instance.id = %identity.id, "registered as new instance {}", identity.id);
                    self.runner = Some(runner);
                    self.published.send_replace(identity);
                    return Some(liveness);
                }
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot register a new instance; retrying: {error}"
                ),
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
}

fn begin(engine: &Engine, settings: &RunnerSettings, liveness: &Liveness) -> (Runner, Identity) {
    let runner = Runner::new(engine.clone(), liveness.instance(), settings.clone());
    let identity = Identity { id: liveness.instance(), fence: liveness.lost(), runner: runner.handle() };
    (runner, identity)
}

/// Marks this instance as draining once it is.
async fn announce(liveness: &Liveness, stop: &CancellationToken, fence: &CancellationToken) {
    tokio::select! {
        biased;
        () = fence.cancelled() => return,
        () = stop.cancelled() => {}
    }
    if let Err(error) = liveness.announce_draining().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "cannot mark this instance as draining: {error}"
        );
    }
}

/// Reports to the liveness session whether runs are driven. Never ends.
async fn tell_driving(liveness: &Liveness, runner: &RunnerHandle) {
    let mut driving = runner.driving();
    loop {
        liveness.set_driving(*driving.borrow_and_update());
        if driving.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Wakes the claim loop when the queue changes or a cancel is requested, on any instance. Never ends.
async fn pass_on(wakes: &WakeBus, runner: &RunnerHandle) {
    let (mut runs, mut cancels) = (wakes.subscribe(Wake::Runs), wakes.subscribe(Wake::Signals));
    loop {
        tokio::select! {
            changed = runs.changed() => match changed {
                Ok(()) => runner.wake(),
                Err(_) => return std::future::pending().await,
            },
            changed = cancels.changed() => match changed {
                Ok(()) => runner.wake_up_driven(),
                Err(_) => return std::future::pending().await,
            },
        }
    }
}
