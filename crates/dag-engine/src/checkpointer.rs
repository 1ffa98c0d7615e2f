//! Group commit: one task per instance writes the checkpoints of all its runs.
//!
//! Whatever is waiting goes into one transaction: no added delay, and under load many checkpoints share one flush of the
//! database's log. A second transaction may be under way meanwhile, so that neither the engine nor the database waits for
//! the other.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::store::{Checkpoint, RunStore, StoreError};

/// The most checkpoints in one transaction; what comes in meanwhile waits for the next.
const MAX_BATCH: usize = 1024;
/// The most transactions at once: while one is flushed, the next is filled and sent. More would only be smaller.
const MAX_IN_FLIGHT: usize = 2;
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

struct Request {
    checkpoint: Checkpoint,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

/// Where drivers leave their checkpoints. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Checkpointer(mpsc::Sender<Request>);

/// The task that writes them.
pub(crate) struct CheckpointerService {
    store: Arc<dyn RunStore>,
    requests: mpsc::Receiver<Request>,
}

impl Checkpointer {
    pub(crate) fn new(store: Arc<dyn RunStore>) -> (Self, CheckpointerService) {
        let (sender, requests) = mpsc::channel(4 * MAX_BATCH);
        (Self(sender), CheckpointerService { store, requests })
    }

    /// Writes a checkpoint: once this returns, it is durable.
    ///
    /// Cancellation: if dropped, it is unknown whether the checkpoint is written. While the store is away this waits.
    ///
    /// # Errors
    /// [`StoreError::ClaimLost`] if the run is somebody else's by now; [`StoreError::Unavailable`] only if the
    /// checkpointer has stopped.
    pub(crate) async fn commit(&self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        let stopped = || StoreError::Unavailable("the checkpointer has stopped".into());
        let (answer, answered) = oneshot::channel();
        self.0.send(Request { checkpoint, answer }).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

impl CheckpointerService {
    /// Writes until `stop` is cancelled and nothing is waiting, or all [`Checkpointer`]s are gone.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let store = self.store;
        let mut waiting = Vec::with_capacity(MAX_BATCH);
        // A run has one checkpoint on its way at most, so no two of these are about the same run.
        let mut in_flight = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !in_flight.is_empty() {
            tokio::select! {
                biased;
                Some(()) = in_flight.next() => {}
                n = self.requests.recv_many(&mut waiting, MAX_BATCH), if is_open && in_flight.len() < MAX_IN_FLIGHT => {
                    if n == 0 {
                        is_open = false;
                    } else {
                        in_flight.push(write(&*store, std::mem::take(&mut waiting), &stop));
                    }
                }
                () = stop.cancelled(), if in_flight.is_empty() => return,
            }
        }
    }
}

/// Writes a batch and answers those who wait for it; nobody, if the stop comes first.
async fn write(store: &dyn RunStore, batch: Vec<Request>, stop: &CancellationToken) {
    let (checkpoints, answers): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|request| (request.checkpoint, request.answer)).unzip();
    let Some(results) = commit(store, &checkpoints, stop).await else { return };
    for (answer, result) in answers.into_iter().zip(results) {
        // A driver that was dropped meanwhile does not need its answer.
        drop(answer.send(result));
    }
}

/// Repeats until the store has answered: a checkpoint of unknown fate must not be given up.
async fn commit(
    store: &dyn RunStore,
    checkpoints: &[Checkpoint],
    stop: &CancellationToken,
) -> Option<Vec<Result<(), StoreError>>> {
    let mut backoff = FIRST_BACKOFF;
    loop {
        match store.commit(checkpoints).await {
            Ok(results) => return Some(results),
            Err(error) => {
                tracing::warn!(error = %error, cause = ?std::error::Error::source(&error),
                    n_checkpoints = checkpoints.len(), "checkpoints cannot be written, trying again");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(MAX_BACKOFF),
        }
    }
}
