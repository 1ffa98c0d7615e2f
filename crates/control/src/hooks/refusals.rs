//! Refused calls on their way to the ledger.
//!
//! They wait in memory and are written together, so that a flood of them costs the database little, and the answer to one
//! tells nothing by the time that it takes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Refusal;
use crate::{ControlError, ControlStore};

/// How many wait at most, those that are counted together as one.
const MAX_WAITING: usize = 1000;

/// How many of one hook and reason wait one by one. Those beyond are counted with the last.
const ALIKE_ONE_BY_ONE: usize = 10;

/// How often they are written.
const INTERVAL: Duration = Duration::from_secs(1);

/// Refused calls that are to be entered in the ledger.
#[derive(Debug, Default)]
pub struct RefusalLog {
    waiting: Mutex<Vec<Refusal>>,
}

impl RefusalLog {
    pub(super) fn add(&self, refusal: Refusal) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_alike = |other: &&mut Refusal| (other.hook, other.reason) == (refusal.hook, refusal.reason);
        let n_alike = waiting.iter_mut().filter(is_alike).count();
        if n_alike >= ALIKE_ONE_BY_ONE
            && let Some(last) = waiting.iter_mut().rev().find(is_alike)
        {
            last.n_calls += refusal.n_calls;
        } else if waiting.len() < MAX_WAITING {
            waiting.push(refusal);
        } else {
            tracing::debug!("too many refused calls of hooks at once: one is not entered in the ledger");
        }
    }

    fn take(&self) -> Vec<Refusal> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes refused calls into the ledger of their hooks.
pub struct RefusalLogService {
    store: Arc<dyn ControlStore>,
    log: Arc<RefusalLog>,
}

impl RefusalLogService {
    pub(super) fn new(store: Arc<dyn ControlStore>, log: Arc<RefusalLog>) -> Self {
        Self { store, log }
    }

    /// Writes what waits, every second until `stop`, and what waits then. What cannot be written is logged, and lost.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let is_last = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            if let Err(error) = self.flush().await {
                tracing::warn!(error = %error, "cannot enter refused calls of hooks: {error}");
            }
            if is_last {
                return;
            }
        }
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// The store's: then it is lost.
    pub async fn flush(&self) -> Result<(), ControlError> {
        let waiting = self.log.take();
        if waiting.is_empty() { Ok(()) } else { self.store.note_refusals(&waiting).await }
    }
}

#[cfg(test)]
mod tests {
    use gathering_domain::HookId;

    use super::*;
    use crate::hooks::RefusalReason::{BadSignature, RateLimited};

    #[test]
    fn a_flood_is_counted_and_takes_a_bounded_room() {
        let log = RefusalLog::default();
        let (flooded, other) = (HookId::new(), HookId::new());
        for _ in 0..10_000 {
            log.add(Refusal::of_untrusted(flooded, BadSignature, 1));
        }
        log.add(Refusal::of_untrusted(flooded, RateLimited, 1));
        log.add(Refusal::of_untrusted(other, BadSignature, 1));
        let waiting = log.take();
        assert_eq!(waiting.len(), ALIKE_ONE_BY_ONE + 2);
        assert_eq!(waiting.iter().map(|refusal| refusal.n_calls).sum::<i64>(), 10_002);
        for _ in 0..MAX_WAITING + 10 {
            log.add(Refusal::of_untrusted(HookId::new(), BadSignature, 1));
        }
        assert_eq!(log.take().len(), MAX_WAITING);
        assert!(log.take().is_empty());
    }
}
