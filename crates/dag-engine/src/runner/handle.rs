//! The handle of a runner: wake-ups and signals go in, and what it drives can be observed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gathering_domain::RunId;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Wakes a [`Runner`](super::Runner) and observes it. Cheap to clone.
#[derive(Clone, Default)]
pub struct RunnerHandle {
    pub(super) queue_changed: Arc<Notify>,
    pub(super) wake_up: Arc<Notify>,
    driven: Arc<Mutex<HashMap<RunId, Driven>>>,
    is_driving: Arc<watch::Sender<bool>>,
    pub(super) release: CancellationToken,
}

/// The signals of a run that is driven here.
#[derive(Clone, Default)]
pub(super) struct Driven {
    pub(super) cancel: CancellationToken,
    pub(super) cancel_reason: Arc<OnceLock<String>>,
    pub(super) wake_up: Arc<Notify>,
}

impl Driven {
    /// Cancels the run. Of several reasons the first stands.
    pub(super) fn cancel_for(&self, reason: Option<String>) {
        if let Some(reason) = reason {
            self.cancel_reason.get_or_init(|| reason);
        }
        self.cancel.cancel();
    }
}

impl RunnerHandle {
    /// Says that the queue may hold a new run.
    pub fn wake(&self) {
        self.queue_changed.notify_one();
    }

    /// Says that a run that is driven here may have a signal: a cancellation, or a wait of a node that may be over.
    pub fn wake_up_driven(&self) {
        self.wake_up.notify_one();
    }

    /// Cancels a run if this instance drives it, and returns whether it does.
    pub fn cancel(&self, run: RunId) -> bool {
        self.with_driven(|driven| driven.get(&run).map(|run| run.cancel.cancel())).is_some()
    }

    /// Ends the grace period of a stopped runner: it drops what still executes and releases those runs now.
    pub fn release_now(&self) {
        self.release.cancel();
    }

    /// How many runs are driven.
    pub fn n_driven(&self) -> usize {
        self.with_driven(|driven| driven.len())
    }

    /// Whether any run is driven. It becomes true before any node of a run executes.
    pub fn driving(&self) -> watch::Receiver<bool> {
        self.is_driving.subscribe()
    }

    /// Only the runner calls this and [`Self::end`], from one task.
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
