//! Lists a directory of yours through the workspace and reads the first Markdown file in it.
//!
//! `cargo run -p gathering-tools --example read_a_directory -- DIRECTORY`

use std::io::Write as _;

use gathering_tools::{BlockingPool, Outbound, OutboundPolicy, ToolContext, Toolbox, Workspace};
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let pool = BlockingPool::new(4);
    let tools = Toolbox::with_builtin(&Outbound::new(OutboundPolicy::public_only())?, pool.clone())?;
    let context = ToolContext::new().with_workspace(Workspace::open(directory, pool).await?);

    let mut out = std::io::stdout().lock();
    let listed = tools.call("list_files", json!({"pattern": "*.md"}), &context).await?;
    writeln!(out, "{listed:#}")?;
    if let Some(path) = listed.pointer("/items/0/path") {
        let file = tools.call("read_file", json!({"path": path}), &context).await?;
        writeln!(out, "{}", file["content"].as_str().unwrap_or_default())?;
    }
    Ok(())
}
