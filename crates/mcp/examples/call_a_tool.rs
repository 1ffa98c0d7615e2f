//! Mounts a server, lists its tools, and calls one.
//!
//! ```sh
//! cargo run -p gathering-mcp --example call_a_tool -- COMMAND [ARGUMENTS] [-- TOOL JSON]
//! cargo run -p gathering-mcp --example call_a_tool -- http://localhost:3001/mcp [-- TOOL JSON]
//! ```

use std::io::Write as _;

use gathering_mcp::{
    HttpEndpoint, McpServer, McpServerConfig, McpServices, McpTransport, StdioCommand, ToolPins,
};
use gathering_tools::{Outbound, OutboundPolicy};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut parts = arguments.split(|argument| argument == "--");
    let (server, call) = (parts.next().unwrap_or_default(), parts.next());
    let [command, args @ ..] = server else { return Err("name a command or a URL".into()) };
    let transport = if command.starts_with("http") {
        McpTransport::Http(HttpEndpoint::new(command))
    } else {
        McpTransport::Stdio(StdioCommand::new(command, args))
    };

    let mut config = McpServerConfig::new("tried", transport);
    config.pins = ToolPins::AcceptAll;
    let outbound = Outbound::new(OutboundPolicy::allowing(["127.0.0.0/8".parse()?]))?;
    let server = McpServer::mount(config, McpServices::new(outbound))?;
    let done = show(&server, call).await;
    server.stop().await;
    if let Err(error) = done {
        writeln!(std::io::stderr(), "{error}")?;
        std::process::exit(1);
    }
    Ok(())
}

async fn show(server: &McpServer, call: Option<&[String]>) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    let catalogue = server.ready().await?;
    let about = &catalogue.server;
    writeln!(out, "{} {}, protocol {}", about.name, about.version, about.protocol_version)?;
    for tool in &catalogue.tools {
        let first_line = tool.definition.description().lines().next().unwrap_or_default();
        writeln!(out, "{}: {first_line}", tool.name)?;
        if let Some(reason) = &tool.not_callable {
            writeln!(out, "  not callable: {reason}")?;
        }
    }
    if let Some([tool, arguments]) = call {
        let result = server.call(tool, serde_json::from_str(arguments)?).await?;
        writeln!(out, "{:#}", result.into_value())?;
    }
    Ok(())
}
