//! A tool of a server as a tool of a toolbox.

use async_trait::async_trait;
use gathering_domain::Digest;
use gathering_tools::{Tool, ToolContext, ToolError, ToolSpec};
use serde_json::Value;

use crate::catalogue::McpTool;
use crate::server::McpServer;

/// A tool of a server. It is callable while the server describes it as it did when this was made.
#[derive(Debug)]
pub struct MountedTool {
    server: McpServer,
    tool: String,
    digest: Digest,
    spec: ToolSpec,
}

impl MountedTool {
    pub(crate) fn new(server: McpServer, tool: &McpTool) -> Self {
        let spec = tool.spec(server.name());
        Self { tool: tool.definition.name().to_owned(), digest: tool.digest, spec, server }
    }
}

#[async_trait]
impl Tool for MountedTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn uses_files(&self) -> bool {
        false
    }

    /// Its output has the shape of [`crate::McpResult`].
    async fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError> {
        let called = self.server.call_defined(&self.tool, params, self.digest, context).await;
        match called {
            Ok(result) => Ok(result.into_value()),
            Err(error) => Err(error.into_tool_error(self.server.name())),
        }
    }
}
