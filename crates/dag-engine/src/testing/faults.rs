//! A plan of what goes wrong with which call of a store.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::journal::{JournalEvent, Record};
use crate::store::Checkpoint;

/// What goes wrong with one call of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done and the caller is told that the store is away.
    FailBefore,
    /// It is done, but the answer gets lost: the caller is told that the store is away.
    FailAfter,
    /// It takes this long.
    Delay(Duration),
    /// The process dies before anything is done.
    CrashBefore,
    /// It is done, and the process dies before it hears of it.
    CrashAfter,
}

/// Which calls of an instance go wrong, by their number from 0. Each happens once.
#[derive(Debug, Default)]
pub struct Faults {
    plan: Mutex<(usize, BTreeMap<usize, Fault>)>,
    crashed: CancellationToken,
    refused: Option<Value>,
}

impl Faults {
    /// A plan of what goes wrong at which call.
    pub fn planned(plan: impl IntoIterator<Item = (usize, Fault)>) -> Self {
        Self { plan: Mutex::new((0, plan.into_iter().collect())), ..Self::default() }
    }

    /// A store that can never write a node's success with this output.
    pub fn refusing(output: Value) -> Self {
        Self { refused: Some(output), ..Self::default() }
    }

    pub(super) fn refuses(&self, checkpoint: &Checkpoint) -> bool {
        let refused = |record: &Record| match &record.event {
            JournalEvent::Succeeded { output } => self.refused.as_ref() == Some(output),
            _ => false,
        };
        checkpoint.records.iter().any(refused)
    }

    /// Cancelled when a call crashed the process: whoever plays the process drops everything of it.
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

    /// A process that died answers nothing and asks nothing any more.
    pub(super) async fn crash(&self) -> std::convert::Infallible {
        self.crashed.cancel();
        std::future::pending().await
    }
}
