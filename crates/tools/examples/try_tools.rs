//! Lists the built-in tools, or checks the parameters of one and calls it on the current directory.
//!
//! `cargo run -p gathering-tools --example try_tools -- search_files '{"pattern": "fn main"}'`

use std::io::Write as _;

use gathering_tools::{BlockingPool, Outbound, OutboundPolicy, ToolContext, Toolbox, Workspace};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = BlockingPool::new(4);
    let tools = Toolbox::with_builtin(&Outbound::new(OutboundPolicy::public_only())?, pool.clone())?;
    let mut out = std::io::stdout().lock();
    let Some(name) = std::env::args().nth(1) else {
        for tool in tools.list() {
            writeln!(out, "{}: {}", tool.name, tool.description)?;
        }
        return Ok(());
    };
    let params: Value = serde_json::from_str(&std::env::args().nth(2).unwrap_or_else(|| "{}".to_owned()))?;
    if let Err(problems) = tools.validate(&name, &params) {
        for problem in problems.iter() {
            writeln!(out, "{problem}")?;
        }
        return Ok(());
    }
    let context = ToolContext::new().with_workspace(Workspace::open(".", pool).await?);
    writeln!(out, "{:#}", tools.call(&name, params, &context).await?)?;
    Ok(())
}
