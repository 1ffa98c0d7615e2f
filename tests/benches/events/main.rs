//! How fast events are: in one process, into the log, and to many readers, beside limits that the machine sets, measured in
//! the same run.
//!
//! `cargo xtask bench events` starts this with a database and the server. The result is a table in Markdown on standard
//! output; progress goes to standard error. docs/benchmarks.md explains the lines.

mod bus;
mod durable;
mod fan_out;
#[expect(dead_code, reason = "the benchmark of the engine uses the rest")]
#[path = "../engine/table.rs"]
mod table;

use anyhow::Result;
use clap::Parser;
use gathering_e2e::{Client, Database, Server};

use crate::table::Report;

/// Benchmarks of events.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask bench events --")]
struct Settings {
    /// Events through the bus of one process
    #[arg(long, default_value_t = 2_000_000)]
    published: u64,
    /// Events posted in batches
    #[arg(long, default_value_t = 50_000)]
    posted: usize,
    /// Events to all readers, one after the other
    #[arg(long, default_value_t = 200)]
    sent: usize,
    /// Readers, each with a stream of its own
    #[arg(long, default_value_t = 1000)]
    readers: usize,
    /// Only these parts
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// What `cargo bench` passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The bus of one process
    Bus,
    /// Events posted in batches
    Durable,
    /// Events to many readers
    FanOut,
}

fn main() -> Result<()> {
    let settings = Settings::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(measure(&settings))?;
    report.print();
    Ok(())
}

async fn measure(settings: &Settings) -> Result<Report> {
    let is_chosen = |part: Part| settings.only.is_empty() || settings.only.contains(&part);
    let n_processors = std::thread::available_parallelism()?;
    let machine =
        format!("{n_processors} processors, shared by the server, PostgreSQL (fsync on) and the clients.");
    let mut report = Report::default();
    report.machine = machine;
    if is_chosen(Part::Bus) {
        bus::measure(settings.published, &mut report).await?;
    }
    if is_chosen(Part::Durable) {
        durable::measure(settings.posted, &mut report).await?;
    }
    if is_chosen(Part::FanOut) {
        fan_out::measure(settings.readers, settings.sent, &mut report).await?;
    }
    Ok(report)
}

/// A server on an empty database, and the account that owns what is in it.
async fn start() -> Result<(Database, Server, Client)> {
    let database = Database::empty().await?;
    let server = Server::start_with(&database, |command| {
        command.env("GATHERING_LOG", "info");
    })
    .await?;
    let owner = server.client().join("owner@example.org").await?;
    Ok((database, server, owner))
}
