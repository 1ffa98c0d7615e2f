//! Mounting the scripted server, and waiting for what becomes of it.

use std::time::{Duration, Instant};

use gathering_mcp::{
    EffectAllowance, HttpEndpoint, McpError, McpServer, McpServerConfig, McpServices, McpTransport,
    StdioCommand, ToolPins,
};
use gathering_tools::{Outbound, OutboundPolicy};
use serde_json::{Value, json};

/// Services that reach this host.
pub fn services() -> McpServices {
    let local = "127.0.0.0/8".parse().unwrap();
    McpServices::new(Outbound::new(OutboundPolicy::allowing([local])).unwrap())
}

/// The settings of the scripted server with these behaviours.
pub fn fake(behaviours: &[&str]) -> McpServerConfig {
    stdio(env!("CARGO_BIN_EXE_mcp-fake-server"), behaviours)
}

/// The settings of a command whose tools are accepted.
pub fn stdio(command: &str, arguments: &[&str]) -> McpServerConfig {
    let command = StdioCommand::new(command, arguments.iter().copied());
    accepting(McpTransport::Stdio(command))
}

/// The settings of a URL whose tools are accepted.
pub fn http(url: &str) -> McpServerConfig {
    accepting(McpTransport::Http(HttpEndpoint::new(url)))
}

fn accepting(transport: McpTransport) -> McpServerConfig {
    let mut config = McpServerConfig::new("fake", transport);
    config.pins = ToolPins::AcceptAll;
    config.allowance = EffectAllowance::default();
    config.limits.restart = Duration::from_millis(20);
    config.limits.max_line_bytes = 1 << 20;
    config.limits.max_result_bytes = 64 << 10;
    config
}

/// A mounted server with these settings.
pub fn mount(config: McpServerConfig) -> McpServer {
    McpServer::mount(config, services()).unwrap()
}

/// A mounted scripted server whose calls may take `call`.
pub fn mount_fake(behaviours: &[&str], call: Duration) -> McpServer {
    let mut config = fake(behaviours);
    config.limits.call = call;
    mount(config)
}

/// The text that a tool without arguments returns.
pub async fn text(server: &McpServer, tool: &str) -> Result<String, McpError> {
    server.call(tool, json!({})).await.map(|result| result.text())
}

/// Whether the server answers as if nothing had happened.
pub async fn is_well(server: &McpServer) -> bool {
    let echoed = server.call("echo", json!({"message": "well"})).await;
    echoed.is_ok_and(|result| result.text() == "well")
}

/// The messages that the scripted server was sent with this method.
pub async fn heard(server: &McpServer, method: &str) -> Vec<Value> {
    let heard: Vec<Value> = serde_json::from_str(&text(server, "heard").await.unwrap()).unwrap();
    heard.into_iter().filter(|message| message["method"] == method).collect()
}

/// Waits until `condition` holds.
pub async fn wait_until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let since = Instant::now();
    while !condition().await {
        assert!(since.elapsed() < Duration::from_secs(20), "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process exists, and is not only waiting to be reaped.
pub fn is_alive(process: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
