//! Checkpoints on their way to the store: at most one at a time.

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::{DriveEnd, Driver};
use crate::store::{Checkpoint, Release, StoreError};

/// A checkpoint in flight.
pub(super) struct InFlight {
    pub(super) commit: BoxFuture<'static, Result<(), StoreError>>,
    pub(super) launches: Vec<usize>,
    pub(super) durable_waiters: Vec<oneshot::Sender<()>>,
    pub(super) end: Option<DriveEnd>,
}

impl Driver {
    /// Sends the pending records to the checkpointer, if there are any.
    pub(super) fn checkpoint(&mut self) -> Option<InFlight> {
        let release = self.release.clone();
        if self.records.is_empty() && release.is_none() {
            return None;
        }
        let records = std::mem::take(&mut self.records);
        let first_seq = self.next_seq;
        self.next_seq += i64::try_from(records.len()).unwrap_or(i64::MAX);
        let end = release.as_ref().map(|release| match release {
            Release::End(end) => DriveEnd::Ended(end.result.event()),
            Release::Park { .. } => DriveEnd::Parked,
            Release::Requeue => DriveEnd::Requeued,
        });
        let frees = std::mem::take(&mut self.frees);
        let asking = self.asking.clone().filter(|_| release.is_some());
        let checkpoint = Checkpoint { claim: self.claimed.claim, first_seq, records, release, frees };
        let checkpointer = self.around.checkpointer.clone();
        Some(InFlight {
            commit: async move {
                if let Some(asking) = asking {
                    asking.settle().await;
                }
                checkpointer.commit(checkpoint).await
            }
            .boxed(),
            launches: std::mem::take(&mut self.launches),
            durable_waiters: std::mem::take(&mut self.durable_waiters),
            end,
        })
    }
}

/// Completes with the commit in flight; never, without one.
pub(super) async fn commit_of(in_flight: &mut Option<InFlight>) -> Result<(), StoreError> {
    match in_flight {
        Some(flight) => (&mut flight.commit).await,
        None => std::future::pending().await,
    }
}
