//! A tool of a mounted server, known by its accepted definition. The connection is made by the call.

use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use gathering_domain::{Digest, McpServerName, ProjectId};
use gathering_mcp::{McpServerConfig, McpTool, ToolDefinition};
use gathering_tools::{Tool, ToolContext, ToolError, ToolSpec};
use serde_json::Value;

use super::{Inner, Mounts, NoConnection};

/// How long a call waits for the restart of a process that ended before.
const RESTART: Duration = Duration::from_secs(5);

/// A tool of a mounted server.
pub(super) struct ProjectTool {
    mounts: Weak<Inner>,
    project: ProjectId,
    server: McpServerName,
    /// The server's name for it.
    tool: String,
    digest: Digest,
    spec: ToolSpec,
}

impl ProjectTool {
    pub(super) fn new(
        mounts: Weak<Inner>,
        project: ProjectId,
        server: McpServerName,
        tool: &McpTool,
    ) -> Self {
        let (name, digest, spec) =
            (tool.definition.name().to_owned(), tool.digest, tool.spec(server.as_str()));
        Self { mounts, project, server, tool: name, digest, spec }
    }

    fn not_now(&self, why: &str) -> ToolError {
        ToolError::NotConfigured { message: format!("MCP server `{}`: {why}; nothing was sent", self.server) }
    }

    /// The settings of the connection, if the tool is still what it was when the node opened its tools.
    async fn config(&self, mounts: &Mounts) -> Result<McpServerConfig, ToolError> {
        let opened = mounts.open_now(self.project).await.map_err(|error| ToolError::Unavailable {
            message: format!("MCP server `{}`: its settings cannot be read: {error}", self.server),
        })?;
        let mount =
            opened.mounts.get(&self.server).ok_or_else(|| self.not_now("it is not mounted any more"))?;
        let pin = mount.pins.get(&self.tool).and_then(ToolDefinition::read);
        if pin.is_none_or(|pin| pin.digest() != self.digest) {
            return Err(self.not_now("another definition of the tool was accepted meanwhile"));
        }
        match mounts.config_of(mount.project, &mount.name, &mount.settings, &mount.pins).await {
            Ok(config) => Ok(config),
            Err(NoConnection::Refused(why)) => Err(self.not_now(&why)),
            Err(NoConnection::Store(error)) => Err(ToolError::Unavailable {
                message: format!("MCP server `{}`: the secrets cannot be read: {error}", self.server),
            }),
        }
    }
}

#[async_trait]
impl Tool for ProjectTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn uses_files(&self) -> bool {
        false
    }

    async fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError> {
        let inner = self.mounts.upgrade().ok_or_else(|| self.not_now("the server is shutting down"))?;
        let mounts = Mounts { inner };
        let config = self.config(&mounts).await?;
        let failed = |error: gathering_mcp::McpError| error.into_tool_error(self.server.as_str());
        let server = mounts.connect(self.project, &self.server, config).await.map_err(failed)?;
        server.retried(RESTART).await;
        let called = server.call_defined(&self.tool, params, self.digest, context).await;
        let result = called.map_err(failed)?;
        Ok(result.into_value())
    }
}
