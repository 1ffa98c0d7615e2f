//! Measures what a call costs beside the server's own time: the same calls over a bare pipe, and over a mounted server.
//!
//! ```sh
//! cargo run --release -p gathering-mcp --example measure_a_call -- TOOL JSON COMMAND [ARGUMENTS]
//! ```
//!
//! The server must speak 2025-11-25, as all those of npm do.

use std::error::Error;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gathering_mcp::{
    McpProtocol, McpServer, McpServerConfig, McpServices, McpTransport, StdioCommand, ToolPins,
};
use gathering_tools::{Outbound, OutboundPolicy};
use serde_json::{Value, json};

/// Calls before the measured ones.
const WARM_UP: usize = 200;
/// Measured calls.
const CALLS: usize = 2000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tool, params, command, args @ ..] = &arguments[..] else {
        return Err("name a tool, its arguments as JSON, and a command".into());
    };
    let params: Value = serde_json::from_str(params)?;
    let bare = over_a_bare_pipe(tool, &params, command, args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mounted = runtime.block_on(over_a_mounted_server(tool, &params, command, args))?;
    let mut out = std::io::stdout().lock();
    for (name, durations) in [("bare pipe", &bare), ("mounted", &mounted)] {
        let [p50, p99] = [50, 99].map(|percent| quantile(durations, percent).as_secs_f64() * 1e3);
        writeln!(out, "{name:<10} p50 {p50:.3} ms, p99 {p99:.3} ms")?;
    }
    let added = quantile(&mounted, 50).saturating_sub(quantile(&bare, 50));
    writeln!(out, "added      p50 {:.3} ms", added.as_secs_f64() * 1e3)?;
    Ok(())
}

fn over_a_bare_pipe(
    tool: &str,
    params: &Value,
    command: &str,
    args: &[String],
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut server = Command::new(command).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = server.stdin.take().ok_or("no input")?;
    let mut output = BufReader::new(server.stdout.take().ok_or("no output")?);
    let mut ask = |id: usize, method: &str, params: &Value| -> Result<(), Box<dyn Error>> {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        input.write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        loop {
            line.clear();
            if output.read_line(&mut line)? == 0 {
                return Err("the server ended".into());
            }
            if serde_json::from_str::<Value>(&line).is_ok_and(|message| message["id"] == id) {
                return Ok(());
            }
        }
    };
    let client = json!({"name": "measure", "version": "1"});
    ask(
        0,
        "initialize",
        &json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}),
    )?;
    let call = json!({"name": tool, "arguments": params});
    let mut durations = Vec::with_capacity(CALLS);
    for id in 1..=WARM_UP + CALLS {
        let since = Instant::now();
        ask(id, "tools/call", &call)?;
        durations.push(since.elapsed());
    }
    drop(input);
    server.wait()?;
    Ok(durations.split_off(WARM_UP))
}

async fn over_a_mounted_server(
    tool: &str,
    params: &Value,
    command: &str,
    args: &[String],
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let transport = McpTransport::Stdio(StdioCommand::new(command, args));
    let mut config = McpServerConfig::new("measured", transport);
    config.pins = ToolPins::AcceptAll;
    config.protocol = McpProtocol::V2025_11_25;
    let outbound = Outbound::new(OutboundPolicy::public_only())?;
    let server = McpServer::mount(config, McpServices::new(outbound))?;
    let mut durations = Vec::with_capacity(CALLS);
    for _ in 0..WARM_UP + CALLS {
        let since = Instant::now();
        server.call(tool, params.clone()).await?;
        durations.push(since.elapsed());
    }
    server.stop().await;
    Ok(durations.split_off(WARM_UP))
}

fn quantile(durations: &[Duration], percent: usize) -> Duration {
    let mut sorted = durations.to_vec();
    sorted.sort();
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}
