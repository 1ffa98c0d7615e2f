//! `gathering mcp`: serves an MCP client on standard input and output, from a server elsewhere or from pipeline files.
//!
//! Standard output has nothing but messages of the protocol; the log goes to standard error.

mod local;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use gathering_dag_engine::{DefinitionFile, NodeSpecs};
use gathering_domain::Secret;
use gathering_mcp::PipeStop;
use gathering_mcp::offer::serve_lines;
use gathering_mcp::relay::Relay;
use gathering_tools::{Outbound, OutboundPolicy};
use tokio::io::{stdin, stdout};
use tokio_util::sync::CancellationToken;

use super::progress::tell;
use super::run::{LocalRuns, canonical_workspace, local_file};
use super::signals::Signals;
use super::validate::INVALID;
use crate::capabilities::Capabilities;
use crate::config::{API_KEY_VARIABLE, Config};
use crate::database::Database;
use local::LocalDesk;

/// The arguments of `gathering mcp`.
#[derive(Debug, Clone, clap::Args)]
pub struct McpArgs {
    /// The pipeline files that are tools: a call runs one in this process, as `gathering run` does
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The server to pass messages on to instead, with the API key in the variable GATHERING_API_KEY
    #[arg(long, value_name = "URL", conflicts_with_all = ["files", "workspace"])]
    pub server: Option<String>,
    /// The directory whose files the tools of the pipelines may use [default: the current one]
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
}

/// Serves a client until it closes the pipe, or until SIGTERM or SIGINT; exit code 0 then, and 2 for invalid files. Calls
/// may go on for the grace period, or until a signal that comes after the end began.
///
/// # Errors
/// If it cannot start, in words for the operator, or the pipe breaks.
pub(crate) async fn serve(config: &Config, args: &McpArgs) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let stop = PipeStop { grace: config.shutdown_grace, ..PipeStop::default() };
    let Some(server) = &args.server else {
        return Box::pin(serve_files(config, args, &mut signals, &stop)).await;
    };
    let relay = relay(server)?;
    tracing::info!(url = relay.url(), "passing messages on");
    until_signals(relay.serve_lines(stdin(), stdout(), &stop), &mut signals, &stop).await?;
    Ok(ExitCode::SUCCESS)
}

async fn serve_files(
    config: &Config,
    args: &McpArgs,
    signals: &mut Signals,
    stop: &PipeStop,
) -> anyhow::Result<ExitCode> {
    let specs = Capabilities::new(config)?.node_specs();
    let files = match Files::read(args, &specs).await {
        Ok(files) => files,
        Err(reason) => {
            tell(&reason);
            return Ok(ExitCode::from(INVALID));
        }
    };
    let db = Database::open(config).await?;
    let served = serve_on(config, &db, files, &specs, signals, stop).await;
    db.close().await;
    served.map(|()| ExitCode::SUCCESS)
}

async fn serve_on(
    config: &Config,
    db: &Database,
    Files { read, tools, workspace }: Files,
    specs: &NodeSpecs,
    signals: &mut Signals,
    stop: &PipeStop,
) -> anyhow::Result<()> {
    let mut runs = Vec::with_capacity(read.len());
    for (source, file) in &read {
        let source = (source.clone(), &file.document);
        runs.push(LocalRuns::new(config, db, specs.clone(), source, &workspace).await?);
    }
    let (desk, orders) = LocalDesk::new(tools, runs);
    let ended = CancellationToken::new();
    let serving = async {
        let serving = serve_lines(&desk, &(), stdin(), stdout(), stop);
        let served = until_signals(serving, signals, stop).await;
        ended.cancel();
        served
    };
    tokio::join!(serving, desk.drive(orders, &ended)).0
}

/// What is read before anything is started.
struct Files {
    read: Vec<(gathering_control::LocalFile, DefinitionFile)>,
    tools: Vec<tools::LocalTool>,
    workspace: String,
}

impl Files {
    /// # Errors
    /// What is wrong, for the person who wrote the files or named them.
    async fn read(args: &McpArgs, specs: &NodeSpecs) -> Result<Self, String> {
        if args.files.is_empty() {
            return Err("name the pipeline files that are tools, or a server with `--server`".to_owned());
        }
        let mut read = Vec::with_capacity(args.files.len());
        for path in &args.files {
            let file = DefinitionFile::read(path, specs).await.map_err(|invalid| invalid.to_string())?;
            read.push((local_file(path, &file.document).await?, file));
        }
        let documents = read.iter().map(|(_, file)| &file.document);
        let tools = tools::all(args.files.iter().map(PathBuf::as_path).zip(documents))?;
        let workspace = canonical_workspace(args.workspace.as_deref()).await;
        Ok(Self { read, tools, workspace: workspace.map_err(|reason| format!("--workspace: {reason}"))? })
    }
}

/// Serves until the end of the pipe, which signals bring about.
async fn until_signals(
    serving: impl Future<Output = std::io::Result<()>>,
    signals: &mut Signals,
    stop: &PipeStop,
) -> anyhow::Result<()> {
    let watching = async {
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
    };
    tokio::select! {
        served = serving => served.context("standard input or output broke"),
        () = watching => Ok(()),
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
