//! MCP servers that are mounted in projects: how each is reached, and which definitions of its tools are accepted.
//!
//! Owns who mounts, accepts and unmounts, how many servers a project has, and what the operator allows of them. Never
//! knows the protocol: what a server offers is told by the caller that has connected to it.

mod secret_text;
mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use gathering_auth::{AuditEvent, AuditKind, Caller};
use gathering_domain::{Digest, McpServerName, ProjectId, UserId};
use serde_json::{Value, json};

use crate::access::{Scoped, right};
use crate::projects::ProjectControl;
use crate::{Conflict, ControlError, ControlStore};

pub use secret_text::SecretText;
pub use settings::{McpGeneration, McpHttpAuth, McpReach, McpRules, McpSettings};

/// The most MCP servers of a project.
pub const MAX_MCP_SERVERS: usize = 32;
/// The most bytes of the accepted definitions of a project, as JSON: every instance that uses them has them in memory.
pub const MAX_MCP_PINS_BYTES: usize = 4 * 1024 * 1024;

/// The accepted definitions of a server's tools, by the server's names.
pub type McpPins = BTreeMap<String, Value>;

/// A mounted MCP server.
#[derive(Debug, Clone, PartialEq)]
pub struct McpMount {
    /// The project.
    pub project: ProjectId,
    /// Its name in the project.
    pub name: McpServerName,
    /// How it is reached.
    pub settings: McpSettings,
    /// The accepted definitions of its tools.
    pub pins: McpPins,
    /// The account that mounted it; `None` if it is gone.
    pub created_by: Option<UserId>,
    /// When it was mounted, in UTC.
    pub created_at: DateTime<Utc>,
    /// When definitions were last accepted, in UTC.
    pub updated_at: DateTime<Utc>,
}

/// The mounted servers of a project as a store has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredMcpServers {
    /// Grows with every change.
    pub version: i64,
    /// All of them, by name; `None` if the version is the one that the caller knows.
    pub servers: Option<Vec<McpMount>>,
}

/// A server that somebody may mount, before anything was connected.
#[derive(Debug)]
pub struct AllowedMount {
    project: Scoped<ProjectId, right::Write>,
    name: McpServerName,
    settings: McpSettings,
}

impl AllowedMount {
    /// The project.
    pub fn project(&self) -> ProjectId {
        *self.project.thing()
    }

    /// The name that it gets.
    pub const fn name(&self) -> &McpServerName {
        &self.name
    }

    /// How it is reached.
    pub const fn settings(&self) -> &McpSettings {
        &self.settings
    }
}

/// A server that is to be mounted. Only this crate makes one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PlannedMount {
    /// Its name.
    pub name: McpServerName,
    /// How it is reached.
    pub settings: McpSettings,
    /// The definitions of its tools.
    pub pins: McpPins,
    /// The account that mounts it.
    pub by: Option<UserId>,
    /// The event that is recorded with it.
    pub audit: AuditEvent,
}

/// Definitions that are to be accepted. Only this crate makes one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PlannedAcceptance {
    /// The server.
    pub name: McpServerName,
    /// The digest of the definitions that are replaced.
    before: Digest,
    /// The definitions from now on.
    pub pins: McpPins,
    /// The event that is recorded with it.
    pub audit: AuditEvent,
}

/// A server and the size of its accepted definitions, as a store counts them while it holds the lock of the project.
pub type OtherMount = (McpServerName, usize);

impl PlannedMount {
    /// Whether the project has room for it beside its others.
    ///
    /// # Errors
    /// [`Conflict::McpServerExists`], [`Conflict::TooManyMcpServers`], [`Conflict::McpToolsTooLarge`].
    pub fn check(&self, others: &[OtherMount]) -> Result<(), ControlError> {
        check_room(&self.name, others)?;
        check_size(&self.pins, others.iter())
    }
}

impl PlannedAcceptance {
    /// Whether these definitions may replace `before`.
    ///
    /// # Errors
    /// [`ControlError::Outdated`] if somebody accepted others since; [`Conflict::McpToolsTooLarge`].
    pub fn check(&self, before: &McpPins, all: &[OtherMount]) -> Result<(), ControlError> {
        if pins_digest(before) != self.before {
            return Err(ControlError::Outdated);
        }
        check_size(&self.pins, all.iter().filter(|(name, _)| *name != self.name))
    }
}

fn check_room(name: &McpServerName, others: &[OtherMount]) -> Result<(), ControlError> {
    if others.iter().any(|(other, _)| other == name) {
        return Err(Conflict::McpServerExists.into());
    }
    if others.len() >= MAX_MCP_SERVERS {
        return Err(Conflict::TooManyMcpServers.into());
    }
    Ok(())
}

fn check_size<'o>(pins: &McpPins, others: impl Iterator<Item = &'o OtherMount>) -> Result<(), ControlError> {
    let others: usize = others.map(|(_, size_bytes)| *size_bytes).sum();
    if others.saturating_add(pins_bytes(pins)) > MAX_MCP_PINS_BYTES {
        return Err(Conflict::McpToolsTooLarge.into());
    }
    Ok(())
}

/// How many bytes accepted definitions have as JSON.
pub fn pins_bytes(pins: &McpPins) -> usize {
    json!(pins).to_string().len()
}

/// What tells definitions from all others. The order of keys does not matter.
pub fn pins_digest(pins: &McpPins) -> Digest {
    Digest::of_json(&json!(pins))
}

/// What may be done with mounted MCP servers. Cloning is cheap and shares the store.
#[derive(Clone)]
pub struct McpServerControl {
    store: Arc<dyn ControlStore>,
    projects: ProjectControl,
    rules: Arc<McpRules>,
}

impl McpServerControl {
    /// The mounted servers of this store, as far as the operator allows them.
    pub fn new(store: Arc<dyn ControlStore>, rules: McpRules) -> Self {
        Self { projects: ProjectControl::new(Arc::clone(&store)), store, rules: Arc::new(rules) }
    }

    /// What the operator allows.
    pub fn rules(&self) -> &McpRules {
        &self.rules
    }

    /// The servers of a project, by name: of the caller's default project if none is named.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn list(
        &self,
        caller: &Caller,
        project: Option<ProjectId>,
    ) -> Result<Vec<McpMount>, ControlError> {
        let project = self.projects.find_or_default::<right::Read>(caller, project).await?;
        self.of_project(*project.thing()).await
    }

    /// A server of a project.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn find(
        &self,
        caller: &Caller,
        project: Option<ProjectId>,
        name: &McpServerName,
    ) -> Result<McpMount, ControlError> {
        let servers = self.list(caller, project).await?;
        servers.into_iter().find(|server| server.name == *name).ok_or(ControlError::NotFound)
    }

    /// Whether the caller may mount this server. Nothing is connected or stored.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`]; [`ControlError::Invalid`] with every problem of the
    /// settings; [`Conflict::McpServerExists`], [`Conflict::TooManyMcpServers`]. Or the store's.
    pub async fn allow(
        &self,
        caller: &Caller,
        project: Option<ProjectId>,
        name: McpServerName,
        settings: McpSettings,
    ) -> Result<AllowedMount, ControlError> {
        let project = self.projects.find_or_default::<right::Write>(caller, project).await?;
        settings.check(&self.rules).map_err(ControlError::Invalid)?;
        let others: Vec<OtherMount> =
            self.of_project(*project.thing()).await?.into_iter().map(|other| (other.name, 0)).collect();
        check_room(&name, &others)?;
        Ok(AllowedMount { project, name, settings })
    }

    /// Mounts a server whose tools have these definitions: who mounts it accepts them. The event is recorded.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Forbidden`] or [`ControlError::Revoked`] if the caller lost the right;
    /// [`Conflict::McpServerExists`], [`Conflict::TooManyMcpServers`], [`Conflict::McpToolsTooLarge`]. Nothing was
    /// changed. Or the store's.
    pub async fn mount(&self, allowed: AllowedMount, pins: McpPins) -> Result<McpMount, ControlError> {
        let AllowedMount { project, name, settings } = allowed;
        let more = json!({ "transport": settings.summary(), "n_tools": pins.len() });
        let audit = audit(AuditKind::McpServerMounted, &project, &name, more);
        let planned = PlannedMount { name, settings, pins, by: project.user(), audit };
        let mounted = self.store.mount_mcp_server(&project, &planned).await?;
        tracing::info!(project.id = %mounted.project, mcp.server = %mounted.name, "MCP server {} is mounted", mounted.name);
        Ok(mounted)
    }

    /// A server of a project that the caller may change.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn find_to_change(
        &self,
        caller: &Caller,
        project: Option<ProjectId>,
        name: &McpServerName,
    ) -> Result<Scoped<McpMount, right::Write>, ControlError> {
        let project = self.projects.find_or_default::<right::Write>(caller, project).await?;
        let servers = self.of_project(*project.thing()).await?;
        let server = servers.into_iter().find(|server| server.name == *name).ok_or(ControlError::NotFound)?;
        Ok(project.with(server))
    }

    /// Accepts these definitions of a server's tools instead of those that it has. The event is recorded.
    ///
    /// # Errors
    /// [`ControlError::Outdated`] if somebody accepted others since the server was found; [`ControlError::NotFound`] if
    /// it was unmounted; as [`McpServerControl::mount`].
    pub async fn accept(
        &self,
        server: &Scoped<McpMount, right::Write>,
        pins: McpPins,
    ) -> Result<McpMount, ControlError> {
        let project = server.with(server.project);
        let more = json!({ "n_tools": pins.len(), "digest": pins_digest(&pins).to_string() });
        let audit = audit(AuditKind::McpToolsAccepted, &project, &server.name, more);
        let before = pins_digest(&server.pins);
        let planned = PlannedAcceptance { name: server.name.clone(), before, pins, audit };
        self.store.accept_mcp_tools(&project, &planned).await
    }

    /// Unmounts a server. Calls that start from the answer on find no tool of it. The event is recorded.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], also for a server that the project does not have; [`ControlError::Forbidden`] or
    /// [`ControlError::Revoked`]. Or the store's.
    pub async fn unmount(
        &self,
        caller: &Caller,
        project: Option<ProjectId>,
        name: &McpServerName,
    ) -> Result<ProjectId, ControlError> {
        let project = self.projects.find_or_default::<right::Write>(caller, project).await?;
        let audit = audit(AuditKind::McpServerUnmounted, &project, name, json!({}));
        self.store.unmount_mcp_server(&project, name, &audit).await?;
        tracing::info!(project.id = %*project, mcp.server = %name, "MCP server {name} is unmounted");
        Ok(project.into_thing())
    }

    /// The servers of a project, unless their version is the `known` one. For the server itself: it checks no access.
    ///
    /// # Errors
    /// The store's.
    pub async fn load(
        &self,
        project: ProjectId,
        known: Option<i64>,
    ) -> Result<StoredMcpServers, ControlError> {
        self.store.find_mcp_servers(project, known).await
    }

    async fn of_project(&self, project: ProjectId) -> Result<Vec<McpMount>, ControlError> {
        Ok(self.load(project, None).await?.servers.unwrap_or_default())
    }
}

fn audit(
    kind: AuditKind,
    project: &Scoped<ProjectId, right::Write>,
    name: &McpServerName,
    more: Value,
) -> AuditEvent {
    let mut detail = json!({ "project": project.thing(), "server": name, "by": project.user() });
    if let (Value::Object(detail), Value::Object(more)) = (&mut detail, more) {
        detail.extend(more);
    }
    AuditEvent::new(kind, project.user(), project.origin()).with_detail(detail)
}
