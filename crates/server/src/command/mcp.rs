//! `gathering mcp`: serves an MCP client on standard input and output.
//!
//! Standard output has nothing but messages of the protocol; the log goes to standard error.

use std::process::ExitCode;

use anyhow::Context as _;
use gathering_domain::Secret;
use gathering_mcp::PipeStop;
use gathering_mcp::relay::Relay;
use gathering_tools::{Outbound, OutboundPolicy};

use super::signals::Signals;
use crate::config::{API_KEY_VARIABLE, Config};

/// The arguments of `gathering mcp`.
#[derive(Debug, Clone, clap::Args)]
pub struct McpArgs {
    /// The server to pass messages on to, with the API key in the variable GATHERING_API_KEY
    #[arg(long, value_name = "URL")]
    pub server: String,
}

/// Serves a client until it closes the pipe, or until SIGTERM or SIGINT; exit code 0 then. Calls may go on for the grace
/// period, or until a signal that comes after the end began.
///
/// # Errors
/// If it cannot start, in words for the operator, or the pipe breaks.
pub(crate) async fn serve(config: &Config, args: &McpArgs) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let relay = relay(&args.server)?;
    tracing::info!(url = relay.url(), "passing messages on");
    let stop = PipeStop { grace: config.shutdown_grace, ..PipeStop::default() };
    let serving = relay.serve_lines(tokio::io::stdin(), tokio::io::stdout(), &stop);
    tokio::select! {
        served = serving => served.context("standard input or output broke")?,
        () = stop_at_signals(&mut signals, &stop) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Never returns.
async fn stop_at_signals(signals: &mut Signals, stop: &PipeStop) {
    loop {
        let name = signals.next().await;
        if stop.drain.is_cancelled() {
            tracing::info!(signal = name, "{name}: dropping the calls that go on");
            stop.now.cancel();
        } else {
            tracing::info!(signal = name, "{name}: stopping");
            stop.drain.cancel();
        }
    }
}

/// The person who started this named the server, so any address may be reached.
fn relay(url: &str) -> anyhow::Result<Relay> {
    let key = std::env::var(API_KEY_VARIABLE).unwrap_or_default();
    let key = key.trim();
    anyhow::ensure!(!key.is_empty(), "{API_KEY_VARIABLE} is not set: give an API key of the server there");
    let everywhere = ["0.0.0.0/0", "::/0"].map(str::parse).into_iter().collect::<Result<Vec<_>, _>>()?;
    let outbound = Outbound::new(OutboundPolicy::allowing(everywhere))?;
    Relay::new(outbound, url, Secret::from(key)).context("--server or GATHERING_API_KEY cannot be used")
}
