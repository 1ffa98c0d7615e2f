//! What reaches a runner from outside, and what it tells.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use gathering_domain::RunId;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Tells a [`Runner`](super::Runner) that there is something to look at. Cheap to clone.
#[derive(Clone, Default)]
pub struct RunnerHandle {
    pub(super) queue_changed: Arc<Notify>,
    pub(super) wake_up: Arc<Notify>,
    driven: Arc<Mutex<HashMap<RunId, Driven>>>,
    is_driving: Arc<watch::Sender<bool>>,
    pub(super) release: CancellationToken,
}

/// What reaches a run that is driven here.
#[derive(Clone, Default)]
pub(super) struct Driven {
    pub(super) cancel: CancellationToken,
    pub(super) wake_up: Arc<Notify>,
}

impl RunnerHandle {
    /// The queue may hold something new.
    pub fn wake(&self) {
        self.queue_changed.notify_one();
    }

    /// Somebody may have acted on a run that is driven here: asked for its end, or brought what it waits for.
    pub fn wake_up_driven(&self) {
        self.wake_up.notify_one();
    }

    /// Ends a run if this instance drives it; answers whether it does.
    pub fn cancel(&self, run: RunId) -> bool {
        self.with_driven(|driven| driven.get(&run).map(|run| run.cancel.cancel())).is_some()
    }

    /// Ends the grace period of a runner that was stopped: what still executes is dropped and handed back now.
    pub fn release_now(&self) {
        self.release.cancel();
    }

    /// How many runs are driven now.
    pub fn n_driven(&self) -> usize {
        self.with_driven(|driven| driven.len())
    }

    /// Whether any run is driven; changes as that does. It is true before anything of a run executes.
    pub fn driving(&self) -> watch::Receiver<bool> {
        self.is_driving.subscribe()
    }

    /// Only the runner begins and ends, in one task.
    pub(super) fn begin(&self, run: RunId, reached: Driven) {
        self.with_driven(|driven| driven.insert(run, reached));
        self.tell();
    }

    pub(super) fn end(&self, run: RunId) {
        self.with_driven(|driven| driven.remove(&run));
        self.tell();
    }

    fn tell(&self) {
        let is_driving = self.n_driven() > 0;
        self.is_driving.send_if_modified(|told| std::mem::replace(told, is_driving) != is_driving);
    }

    pub(super) fn driven_ids(&self) -> Vec<RunId> {
        self.with_driven(|driven| driven.keys().copied().collect())
    }

    pub(super) fn with_driven<T>(&self, act: impl FnOnce(&mut HashMap<RunId, Driven>) -> T) -> T {
        // The map holds plain handles, so a panic elsewhere cannot have left it half-changed.
        act(&mut self.driven.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
