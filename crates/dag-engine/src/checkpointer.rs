//! Group commit: one task per instance writes the checkpoints of all its runs.
//!
//! All waiting checkpoints go into one transaction. This adds no delay, and under load many checkpoints share one flush
//! of the database's log. Checkpoints that only append never wait for each other's locks, so two groups of them may be
//! in flight at once, and neither the engine nor the database idles. Checkpoints that release runs touch the rows of
//! other runs, parents and children, in an order that two transactions would not share: they are written one group at a
//! time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::rehearsal::with_plain_values;
use crate::store::{Checkpoint, RunStore, StoreError};

/// The most checkpoints in one transaction; later ones wait for the next.
const MAX_BATCH: usize = 1024;
/// The most transactions at once that only append: while one is flushed, the next is filled. More would only be smaller.
const MAX_APPENDING: usize = 2;
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// After this many faults of the store, each checkpoint of a batch is tried alone.
const TRIES_TOGETHER: usize = 2;
/// A checkpoint is refused after this many faults in a row that must be its own.
const TRIES_ALONE: usize = 5;

struct Request {
    checkpoint: Checkpoint,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

/// Accepts the checkpoints of drivers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Checkpointer {
    appends: mpsc::Sender<Request>,
    releases: mpsc::Sender<Request>,
}

/// The task that writes them.
pub(crate) struct CheckpointerService {
    store: Arc<dyn RunStore>,
    appends: mpsc::Receiver<Request>,
    releases: mpsc::Receiver<Request>,
}

impl Checkpointer {
    pub(crate) fn new(store: Arc<dyn RunStore>) -> (Self, CheckpointerService) {
        let (to_append, appends) = mpsc::channel(4 * MAX_BATCH);
        let (to_release, releases) = mpsc::channel(4 * MAX_BATCH);
        let service = CheckpointerService { store, appends, releases };
        (Self { appends: to_append, releases: to_release }, service)
    }

    /// Writes a checkpoint: once this returns, it is durable.
    ///
    /// Cancellation: if dropped, it is unknown whether the checkpoint is written. While the store is unavailable this
    /// waits.
    ///
    /// # Errors
    /// [`StoreError::ClaimLost`] if another claim owns the run by now; [`StoreError::Refused`] if the store rejects it,
    /// and nothing of it is written; [`StoreError::Unavailable`] only if the checkpointer has stopped.
    pub(crate) async fn commit(&self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        let stopped = || StoreError::Unavailable("the checkpointer has stopped".into());
        let (answer, answered) = oneshot::channel();
        let lane = if checkpoint.release.is_some() { &self.releases } else { &self.appends };
        lane.send(Request { checkpoint, answer }).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

impl CheckpointerService {
    /// Writes until `stop` is cancelled and nothing is waiting, or all [`Checkpointer`]s are gone.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let store = &*self.store;
        tokio::join!(
            write_all(store, self.appends, MAX_APPENDING, &stop),
            write_all(store, self.releases, 1, &stop),
        );
    }
}

/// Writes what arrives, at most `max_in_flight` batches at once. A run has at most one checkpoint in flight, so no two
/// concern the same run.
async fn write_all(
    store: &dyn RunStore,
    mut requests: mpsc::Receiver<Request>,
    max_in_flight: usize,
    stop: &CancellationToken,
) {
    let mut waiting = Vec::with_capacity(MAX_BATCH);
    let mut in_flight = InFlight(Vec::with_capacity(max_in_flight));
    let mut is_open = true;
    while is_open || !in_flight.0.is_empty() {
        tokio::select! {
            biased;
            () = in_flight.next(), if !in_flight.0.is_empty() => {}
            n = requests.recv_many(&mut waiting, MAX_BATCH), if is_open && in_flight.0.len() < max_in_flight => {
                if n == 0 {
                    is_open = false;
                } else {
                    in_flight.0.push(Box::pin(write(store, std::mem::take(&mut waiting), stop)));
                }
            }
            () = stop.cancelled(), if in_flight.0.is_empty() => return,
        }
    }
}

/// The few batches in flight. `FuturesUnordered` would wake its own task each time a batch is not done at once, and
/// with it a thread to take that task over, just when the database needs the processor.
struct InFlight<F>(Vec<Pin<Box<F>>>);

impl<F: Future<Output = ()>> InFlight<F> {
    /// Ends with one of them; never if there is none. Cancel: safe.
    async fn next(&mut self) {
        poll_fn(|context| {
            match self.0.iter_mut().position(|batch| batch.as_mut().poll(context).is_ready()) {
                Some(done) => {
                    self.0.swap_remove(done);
                    Poll::Ready(())
                }
                None => Poll::Pending,
            }
        })
        .await;
    }
}

/// Writes a batch and answers the drivers that wait for it; none, if the stop comes first.
async fn write(store: &dyn RunStore, batch: Vec<Request>, stop: &CancellationToken) {
    let (checkpoints, answers): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|request| (request.checkpoint, request.answer)).unzip();
    let error = match commit(store, &checkpoints, stop).await {
        Committed::Refused(error) => error,
        committed => return answer(answers, committed),
    };
    tracing::warn!(error = %error, "writing checkpoints singly: the store may reject one of them");
    for (checkpoint, to) in checkpoints.into_iter().zip(answers) {
        let run = checkpoint.claim.run;
        let committed = match commit(store, &[checkpoint], stop).await {
            Committed::Refused(source) => {
                Committed::Answered(vec![Err(StoreError::Refused { run, source: Box::new(source) })])
            }
            committed => committed,
        };
        answer([to], committed);
    }
}

fn answer(waiting: impl IntoIterator<Item = oneshot::Sender<Result<(), StoreError>>>, committed: Committed) {
    if let Committed::Answered(results) = committed {
        for (to, result) in waiting.into_iter().zip(results) {
            // A driver that was dropped meanwhile does not need its answer.
            drop(to.send(result));
        }
    }
}

/// The result of a batch.
enum Committed {
    /// One answer each.
    Answered(Vec<Result<(), StoreError>>),
    /// The store rejects this batch, and one checkpoint alone although it would write one with other values.
    Refused(StoreError),
    /// The stop came first.
    Stopped,
}

/// Repeats until the store has answered: a checkpoint whose fate is unknown must not be given up while the store is
/// unavailable or slow, and a fault that would meet any other checkpoint must not fail this one's run (I4). Only faults
/// that are the checkpoint's own, so many in a row, make it refused.
async fn commit(store: &dyn RunStore, checkpoints: &[Checkpoint], stop: &CancellationToken) -> Committed {
    let mut backoff = FIRST_BACKOFF;
    let mut n_faults = 0;
    loop {
        match store.commit(checkpoints).await {
            Ok(results) => return Committed::Answered(results),
            Err(error) if error.is_transient() => {
                tracing::warn!(error = %error, n_checkpoints = checkpoints.len(),
                    "cannot write checkpoints; retrying: {error}");
            }
            Err(error) => {
                tracing::error!(error = %error, n_checkpoints = checkpoints.len(),
                    "the store failed to write checkpoints; retrying: {error}");
                let (is_counted, tries) = match checkpoints {
                    [alone] => (is_own_fault(store, alone).await, TRIES_ALONE),
                    _ => (true, TRIES_TOGETHER),
                };
                n_faults = if is_counted { n_faults + 1 } else { 0 };
                if n_faults >= tries {
                    return Committed::Refused(error);
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Committed::Stopped,
            () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(MAX_BACKOFF),
        }
    }
}

/// Whether the store would write a checkpoint with other values, so that it rejects this one for its values.
async fn is_own_fault(store: &dyn RunStore, checkpoint: &Checkpoint) -> bool {
    store.rehearse(&with_plain_values(checkpoint)).await.is_ok()
}
