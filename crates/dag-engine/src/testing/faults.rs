//! A fault plan: which call of a store fails, and how.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::journal::{JournalEvent, Record};
use crate::store::{Checkpoint, StoreError};

/// How one call of the store fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done; the caller gets [`crate::StoreError::Unavailable`].
    FailBefore,
    /// The call takes effect, but its answer is lost: the caller gets [`crate::StoreError::TimedOut`].
    FailAfter,
    /// It takes this long.
    Delay(Duration),
    /// The process dies before the call takes effect.
    CrashBefore,
    /// The call takes effect, and the process dies before the answer.
    CrashAfter,
}

/// The calls of an instance that fail, by their number from 0. Each fails once.
#[derive(Debug, Default)]
pub struct Faults {
    plan: Mutex<(usize, BTreeMap<usize, Fault>)>,
    crashed: CancellationToken,
    refused: Option<Value>,
    broken: Option<watch::Receiver<bool>>,
}

impl Faults {
    /// A plan of faults by the number of the call.
    pub fn planned(plan: impl IntoIterator<Item = (usize, Fault)>) -> Self {
        Self { plan: Mutex::new((0, plan.into_iter().collect())), ..Self::default() }
    }

    /// A store that can never write a node's success with this output.
    pub fn refusing(output: Value) -> Self {
        Self { refused: Some(output), ..Self::default() }
    }

    /// A store that can write no checkpoint while `broken` is true.
    pub fn broken_while(broken: watch::Receiver<bool>) -> Self {
        Self { broken: Some(broken), ..Self::default() }
    }

    /// Whether these checkpoints can be written.
    pub(super) fn check(&self, checkpoints: &[Checkpoint]) -> Result<(), StoreError> {
        if self.broken.as_ref().is_some_and(|broken| *broken.borrow()) {
            return Err(StoreError::Fault("no checkpoint can be written".into()));
        }
        let refused = |record: &Record| match &record.event {
            JournalEvent::Succeeded { output } => self.refused.as_ref() == Some(output),
            _ => false,
        };
        if checkpoints.iter().flat_map(|checkpoint| &checkpoint.records).any(refused) {
            return Err(StoreError::Fault("a checkpoint that cannot be written".into()));
        }
        Ok(())
    }

    /// Cancelled when a call crashed the process: the test then drops everything of it.
    pub fn crashed(&self) -> CancellationToken {
        self.crashed.clone()
    }

    /// How many calls there were.
    pub fn n_calls(&self) -> usize {
        self.plan.lock().map_or(0, |plan| plan.0)
    }

    pub(super) fn next(&self) -> Option<Fault> {
        let mut plan = self.plan.lock().ok()?;
        let number = plan.0;
        plan.0 += 1;
        plan.1.remove(&number)
    }

    /// A process that died sends and receives nothing any more.
    pub(super) async fn crash(&self) -> std::convert::Infallible {
        self.crashed.cancel();
        std::future::pending().await
    }
}
