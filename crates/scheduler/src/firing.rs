//! The loop that fires schedules when they are due.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long the loop sleeps at most: a wake-up can get lost.
const SAFETY_NET: Duration = Duration::from_secs(60);

/// The pause while another instance is firing what is due. If that instance dies, this one takes over.
const WHILE_LOCKED: Duration = Duration::from_millis(200);

/// The pauses after failures grow from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// What a round of firing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// How many schedules were planned and written.
    pub n_schedules: usize,
    /// Whether there may be more that is due now.
    pub is_full: bool,
    /// How long until a schedule is due, by the store's clock; zero if one is due now, `None` if there is none.
    pub next_in: Option<Duration>,
}

/// Why a round did not take place.
#[derive(Debug, thiserror::Error)]
#[error("cannot fire schedules: {0}")]
pub struct FireError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Keeps schedules and their ledger. Its clock is the one that counts.
#[async_trait]
pub trait FireStore: Send + Sync + 'static {
    /// Fires what is due, as one transaction: it plans some of the schedules that are due and that no other caller has locked,
    /// enters the due times in the ledger, starts their runs, and sets when each is due next. All of it holds when this
    /// returns `Ok`. After an error it holds or nothing does, and nothing is done twice either way (I6).
    ///
    /// # Errors
    /// [`FireError`] if the store failed; the loop will try again.
    async fn fire_due(&self) -> Result<Round, FireError>;
}

/// Fires the schedules of a store when they are due. It sleeps until the earliest is due or one is changed, and asks the
/// store nothing in between.
pub struct Firing {
    store: Arc<dyn FireStore>,
    changes: watch::Receiver<u64>,
}

impl Firing {
    /// The loop over `store`. It looks again whenever `changes` changes: after a schedule was written, on any instance.
    pub fn new(store: Arc<dyn FireStore>, changes: watch::Receiver<u64>) -> Self {
        Self { store, changes }
    }

    /// Fires until `stop`. A round in progress is completed first. Logs failures and tries again.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut retry = RETRY.0;
        while !stop.is_cancelled() {
            // What changes from here on may be missed by the round.
            self.changes.mark_unchanged();
            let pause = match self.store.fire_due().await {
                Ok(round) => {
                    retry = RETRY.0;
                    pause_after(round)
                }
                Err(error) => {
                    let FireError(source) = &error;
                    tracing::warn!(error = &**source as &dyn std::error::Error, "{error}; retrying");
                    let pause = retry;
                    retry = (retry * 2).min(RETRY.1);
                    pause
                }
            };
            if !self.sleep(pause, &stop).await {
                return;
            }
        }
    }

    /// Sleeps until `pause` is over or a schedule changes; `false` if the loop is to end.
    async fn sleep(&mut self, pause: Duration, stop: &CancellationToken) -> bool {
        tokio::select! {
            () = stop.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
            // Without a sender nothing wakes the loop any more: the owner is going down.
            changed = self.changes.changed() => changed.is_ok(),
        }
    }
}

fn pause_after(round: Round) -> Duration {
    match round.next_in {
        _ if round.is_full => Duration::ZERO,
        Some(Duration::ZERO) if round.n_schedules == 0 => WHILE_LOCKED,
        Some(next_in) => next_in.min(SAFETY_NET),
        None => SAFETY_NET,
    }
}
