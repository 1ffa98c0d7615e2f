//! Mounted MCP servers in memory.

use async_trait::async_trait;
use chrono::Utc;
use gathering_auth::AuditEvent;
use gathering_domain::{McpServerName, ProjectId};

use super::MemoryControl;
use super::state::State;
use crate::{
    ControlError, McpMount, McpServerStore, OtherMount, PlannedAcceptance, PlannedMount, Scoped,
    StoredMcpServers, pins_bytes, right,
};

impl State {
    fn mounts_of(&self, project: ProjectId) -> impl Iterator<Item = &McpMount> {
        self.mcp_servers.values().filter(move |mount| mount.project == project)
    }

    fn mount_sizes(&self, project: ProjectId) -> Vec<OtherMount> {
        self.mounts_of(project).map(|mount| (mount.name.clone(), pins_bytes(&mount.pins))).collect()
    }

    fn note_mcp_change(&mut self, project: ProjectId, audit: &AuditEvent) {
        *self.mcp_versions.entry(project).or_default() += 1;
        self.audit.push(audit.clone());
    }
}

#[async_trait]
impl McpServerStore for MemoryControl {
    async fn mount_mcp_server(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        mount: &PlannedMount,
    ) -> Result<McpMount, ControlError> {
        let mut state = self.lock();
        state.may_still_change(project)?;
        let (project, now) = (*project.thing(), Utc::now());
        mount.check(&state.mount_sizes(project))?;
        let PlannedMount { name, settings, pins, by, audit } = mount.clone();
        let key = (project, name.clone());
        let (created_at, updated_at) = (now, now);
        let mount = McpMount { project, name, settings, pins, created_by: by, created_at, updated_at };
        state.mcp_servers.insert(key, mount.clone());
        state.note_mcp_change(project, &audit);
        Ok(mount)
    }

    async fn accept_mcp_tools(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        acceptance: &PlannedAcceptance,
    ) -> Result<McpMount, ControlError> {
        let mut state = self.lock();
        state.may_still_change(project)?;
        let project = *project.thing();
        let sizes = state.mount_sizes(project);
        let stored = state.mcp_servers.get_mut(&(project, acceptance.name.clone()));
        let stored = stored.ok_or(ControlError::NotFound)?;
        acceptance.check(&stored.pins, &sizes)?;
        (stored.pins, stored.updated_at) = (acceptance.pins.clone(), Utc::now());
        let mount = stored.clone();
        state.note_mcp_change(project, &acceptance.audit);
        Ok(mount)
    }

    async fn unmount_mcp_server(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        name: &McpServerName,
        audit: &AuditEvent,
    ) -> Result<(), ControlError> {
        let mut state = self.lock();
        state.may_still_change(project)?;
        let project = *project.thing();
        state.mcp_servers.remove(&(project, name.clone())).ok_or(ControlError::NotFound)?;
        state.note_mcp_change(project, audit);
        Ok(())
    }

    async fn find_mcp_servers(
        &self,
        project: ProjectId,
        known: Option<i64>,
    ) -> Result<StoredMcpServers, ControlError> {
        let state = self.lock();
        let version = state.mcp_versions.get(&project).copied().unwrap_or_default();
        if known == Some(version) {
            return Ok(StoredMcpServers { version, servers: None });
        }
        Ok(StoredMcpServers { version, servers: Some(state.mounts_of(project).cloned().collect()) })
    }
}
