//! Each built-in tool through its toolbox, on real files.

mod edit_file;
mod read_parquet;
mod read_table;
mod run_command;
mod search_files;
mod time;

use gathering_tools::{BlockingPool, Outbound, OutboundPolicy, ToolContext, ToolError, Toolbox, Workspace};

/// A toolbox of the built-in tools, and a workspace to use them in.
struct Fixture {
    directory: tempfile::TempDir,
    tools: Toolbox,
    context: ToolContext,
}

impl Fixture {
    async fn new() -> Self {
        let pool = BlockingPool::new(2);
        let outbound = Outbound::new(OutboundPolicy::public_only()).unwrap();
        Self::with(Toolbox::with_builtin(&outbound, pool.clone()).unwrap(), pool).await
    }

    async fn with(tools: Toolbox, pool: BlockingPool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(directory.path(), pool).await.unwrap();
        Self { directory, tools, context: ToolContext::new().with_workspace(workspace) }
    }

    async fn call(&self, tool: &str, params: serde_json::Value) -> Result<serde_json::Value, ToolError> {
        self.tools.call(tool, params, &self.context).await
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(path)).unwrap()
    }
}
