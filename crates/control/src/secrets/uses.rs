//! Which run, or which connection to an MCP server, used which secret, on its way to the audit record.
//!
//! It waits in memory and is written together, once for each run and secret: a run of a thousand calls writes one event.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gathering_auth::{AuditEvent, AuditKind, Origin};
use gathering_cache::BoundedCache;
use gathering_domain::{McpServerName, ProjectId, RunId, SecretName};
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

/// A secret of a project is used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretUse {
    /// The project.
    pub project: ProjectId,
    /// What uses it.
    pub user: SecretUser,
    /// The secret, which may be one that the operator gives.
    pub name: SecretName,
}

/// What uses a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretUser {
    /// A run, in what its nodes send.
    Run(RunId),
    /// A connection to an MCP server of the project.
    Connection {
        /// The server.
        server: McpServerName,
        /// Which connection of this process: each one counts.
        number: u64,
    },
}

impl SecretUse {
    /// The event that is recorded of it.
    pub fn audit_event(&self) -> AuditEvent {
        let Self { project, user, name } = self;
        let detail = match user {
            SecretUser::Run(run) => json!({ "project": project, "run": run, "secret": name }),
            SecretUser::Connection { server, .. } => {
                json!({ "project": project, "mcp_server": server.as_str(), "secret": name })
            }
        };
        AuditEvent::new(AuditKind::SecretUsed, None, Origin::default()).with_detail(detail)
    }
}

pub(super) struct UseLog {
    waiting: Mutex<HashSet<SecretUse>>,
    written: BoundedCache<(RunId, SecretName), ()>,
    n_connections: AtomicU64,
}

impl Default for UseLog {
    fn default() -> Self {
        let written = BoundedCache::new("secret_uses", N_REMEMBERED);
        Self { waiting: Mutex::default(), written, n_connections: AtomicU64::new(0) }
    }
}

impl UseLog {
    pub(super) fn add(&self, project: ProjectId, run: RunId, names: &BTreeSet<SecretName>) {
        for name in names {
            if self.written.get(&(run, name.clone())).is_some() {
                continue;
            }
            if !self.wait(SecretUse { project, user: SecretUser::Run(run), name: name.clone() }) {
                return;
            }
            self.written.insert((run, name.clone()), ());
        }
    }

    pub(super) fn add_connection(
        &self,
        project: ProjectId,
        server: &McpServerName,
        names: &BTreeSet<SecretName>,
    ) {
        let number = self.n_connections.fetch_add(1, Ordering::Relaxed);
        for name in names {
            let user = SecretUser::Connection { server: server.clone(), number };
            if !self.wait(SecretUse { project, user, name: name.clone() }) {
                return;
            }
        }
    }

    /// Whether there is room for it to wait.
    fn wait(&self, of_secret: SecretUse) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = waiting.len() < MAX_WAITING;
        if has_room {
            waiting.insert(of_secret);
        } else {
            let (project, user) = (of_secret.project, of_secret.user);
            tracing::warn!(project.id = %project, ?user, "too many uses of secrets at once: one is not recorded");
        }
        has_room
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

/// Writes which runs and connections used which secrets.
pub struct SecretUseService {
    store: Arc<dyn ControlStore>,
    log: Arc<UseLog>,
}

impl SecretControl {
    /// Notes that a connection to an MCP server of a project uses these secrets. It takes no time.
    pub fn note_connection(&self, project: ProjectId, server: &McpServerName, names: &BTreeSet<SecretName>) {
        self.uses.add_connection(project, server, names);
    }

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
    fn each_connection_to_a_server_is_noted() {
        let log = UseLog::default();
        let (project, server) = (ProjectId::new(), "web".parse().unwrap());
        let names = ["A", "B"].map(|name| name.parse().unwrap()).into();
        (0..3).for_each(|_| log.add_connection(project, &server, &names));
        let waiting = log.take();
        assert_eq!(waiting.len(), 6);
        let mut detail = waiting[0].audit_event().detail;
        let secret = detail.as_object_mut().unwrap().remove("secret");
        assert!(secret == Some(json!("A")) || secret == Some(json!("B")), "{secret:?}");
        assert_eq!(detail, json!({"project": project, "mcp_server": "web"}));
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
