//! What is kept of mounted MCP servers.

use async_trait::async_trait;
use gathering_auth::AuditEvent;
use gathering_domain::{McpServerName, ProjectId};

use crate::ControlError;
use crate::access::{Scoped, right};
use crate::mcp_servers::{McpMount, PlannedAcceptance, PlannedMount, StoredMcpServers};

/// Keeps mounted MCP servers. What [`ControlStore`](crate::ControlStore) says of every method holds here. Each change
/// locks the project first, checks the right again, raises the project's version of its servers, and records the event.
#[async_trait]
pub trait McpServerStore: Send + Sync + 'static {
    /// Mounts a server, if [`PlannedMount::check`] allows it beside the others.
    ///
    /// # Errors
    /// As `check` answers; [`ControlError::NotFound`], [`ControlError::Forbidden`] or [`ControlError::Revoked`] if the
    /// caller may not do it any more, or the project is gone. Nothing was changed.
    async fn mount_mcp_server(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        mount: &PlannedMount,
    ) -> Result<McpMount, ControlError>;

    /// Replaces the accepted definitions of a server, if [`PlannedAcceptance::check`] allows it.
    ///
    /// # Errors
    /// As `check` answers; [`ControlError::NotFound`] if there is no such server; as
    /// [`McpServerStore::mount_mcp_server`].
    async fn accept_mcp_tools(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        acceptance: &PlannedAcceptance,
    ) -> Result<McpMount, ControlError>;

    /// Unmounts a server.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] if there is no such server; as [`McpServerStore::mount_mcp_server`].
    async fn unmount_mcp_server(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        name: &McpServerName,
        audit: &AuditEvent,
    ) -> Result<(), ControlError>;

    /// The version of the project's servers, and the servers by name unless it is the `known` one. A project that is
    /// gone has none. For the server itself: it checks no access.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_mcp_servers(
        &self,
        project: ProjectId,
        known: Option<i64>,
    ) -> Result<StoredMcpServers, ControlError>;
}
