//! Which run used which secret, on its way to the audit record.
//!
//! It waits in memory and is written together, once for each run and secret: a run of a thousand calls writes one event.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gathering_auth::{AuditEvent, AuditKind, Origin};
use gathering_cache::BoundedCache;
use gathering_domain::{ProjectId, RunId, SecretName};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::SecretControl;
use crate::{ControlError, ControlStore};

/// How many wait at most.
const MAX_WAITING: usize = 10_000;

/// How many runs and secrets are remembered as written.
const N_REMEMBERED: u64 = 10_000;

/// How often they are written.
const INTERVAL: Duration = Duration::from_secs(1);

/// A run uses a secret of its project.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretUse {
    /// The project.
    pub project: ProjectId,
    /// The run.
    pub run: RunId,
    /// The secret, which may be one that the operator gives.
    pub name: SecretName,
}

impl SecretUse {
    /// The event that is recorded of it.
    pub fn audit_event(&self) -> AuditEvent {
        let Self { project, run, name } = self;
        let detail = json!({ "project": project, "run": run, "secret": name });
        AuditEvent::new(AuditKind::SecretUsed, None, Origin::default()).with_detail(detail)
    }
}

pub(super) struct UseLog {
    waiting: Mutex<HashSet<SecretUse>>,
    written: BoundedCache<(RunId, SecretName), ()>,
}

impl Default for UseLog {
    fn default() -> Self {
        Self { waiting: Mutex::default(), written: BoundedCache::new("secret_uses", N_REMEMBERED) }
    }
}

impl UseLog {
    pub(super) fn add(&self, project: ProjectId, run: RunId, names: &BTreeSet<SecretName>) {
        for name in names {
            if self.written.get(&(run, name.clone())).is_some() {
                continue;
            }
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= MAX_WAITING {
                tracing::warn!(run.id = %run, "too many uses of secrets at once: one is not recorded");
                return;
            }
            waiting.insert(SecretUse { project, run, name: name.clone() });
            self.written.insert((run, name.clone()), ());
        }
    }

    fn take(&self) -> Vec<SecretUse> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).drain().collect()
    }

    /// Keeps for the next time what could not be written.
    fn put_back(&self, uses: Vec<SecretUse>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_WAITING.saturating_sub(waiting.len());
        waiting.extend(uses.into_iter().take(room));
    }
}

/// Writes which runs used which secrets.
pub struct SecretUseService {
    store: Arc<dyn ControlStore>,
    log: Arc<UseLog>,
}

impl SecretControl {
    /// What writes the uses of secrets. Its owner has it run.
    pub fn use_service(&self) -> SecretUseService {
        SecretUseService { store: Arc::clone(&self.store), log: Arc::clone(&self.uses) }
    }
}

impl SecretUseService {
    /// Writes what waits, every second until `stop`, and what waits then. What cannot be written waits for the next time.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let is_last = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            if let Err(error) = self.flush().await {
                tracing::warn!(error = %error, "cannot record the uses of secrets: {error}");
            }
            if is_last {
                return;
            }
        }
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// The store's: then it waits on.
    pub async fn flush(&self) -> Result<(), ControlError> {
        let waiting = self.log.take();
        if waiting.is_empty() {
            return Ok(());
        }
        let written = self.store.note_secret_uses(&waiting).await;
        if written.is_err() {
            self.log.put_back(waiting);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_uses_a_secret_often_is_noted_once() {
        let log = UseLog::default();
        let (project, run) = (ProjectId::new(), RunId::new());
        let names = ["A", "B"].map(|name| name.parse().unwrap()).into();
        for _ in 0..1000 {
            log.add(project, run, &names);
        }
        let waiting = log.take();
        assert_eq!(waiting.len(), 2);
        log.add(project, run, &names);
        assert!(log.take().is_empty(), "it is written already");
        log.put_back(waiting);
        assert_eq!(log.take().len(), 2);
    }

    #[test]
    fn a_flood_takes_a_bounded_room() {
        let log = UseLog::default();
        let names = BTreeSet::from(["A".parse().unwrap()]);
        for _ in 0..MAX_WAITING + 10 {
            log.add(ProjectId::new(), RunId::new(), &names);
        }
        assert_eq!(log.take().len(), MAX_WAITING);
    }
}
