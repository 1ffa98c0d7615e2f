//! How quickly runs are driven, drained and begun, against the limit that the database sets, measured in the same run.
//!
//! `cargo xtask bench engine` starts this with a database and the server. The result is a table in Markdown on standard
//! output; progress goes to standard error. docs/benchmarks.md explains the lines.

mod bare;
mod driven;
mod graphs;
mod history;
mod queue;
mod server;
mod stand;
mod steady;
mod table;

use anyhow::Result;
use clap::Parser;

use crate::stand::Stand;
use crate::table::Report;

/// Benchmarks of the engine.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask bench engine --")]
struct Settings {
    /// Rounds in which a figure and its limit are measured in turn
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Single runs, one after the other, per figure
    #[arg(long, default_value_t = 60)]
    runs: usize,
    /// Runs in the queue that is drained
    #[arg(long, default_value_t = 20_000)]
    queued: usize,
    /// Runs that are started over HTTP
    #[arg(long, default_value_t = 300)]
    requests: usize,
    /// Seconds in which the transactions of an idle instance are counted, and before those of the database alone
    #[arg(long, default_value_t = 120)]
    idle_seconds: u64,
    /// Runs in the history of which pages are read
    #[arg(long, default_value_t = 1_000_000)]
    history: usize,
    /// Runs a second that are accepted and driven at a steady rate
    #[arg(long, default_value_t = 200)]
    per_second: usize,
    /// For so many minutes
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Only these parts of the table
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// What `cargo bench` passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// One run after the other: a chain, a fan, delays
    Single,
    /// 100 chains at once
    Crowd,
    /// A long queue, and what it leaves in the log
    Queue,
    /// A long queue of runs that are limited by keys
    Lines,
    /// The server: from the request to the first node
    Http,
    /// The server: its start, and what it does when there is nothing to do
    Idle,
    /// Pages of a long history
    History,
    /// Runs at a steady rate beside a long-running reader; only when it is asked for, as it takes half an hour
    Steady,
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
    let mut report = Report::default();
    let stand = Stand::start().await?;
    report.machine = stand.machine().await?;
    if is_chosen(Part::Single) {
        driven::measure(&stand, settings.runs, &mut report).await?;
    }
    if is_chosen(Part::Crowd) {
        queue::crowd(&stand, settings.rounds, &mut report).await?;
    }
    if is_chosen(Part::Queue) {
        queue::drain(&stand, settings.queued, settings.rounds, &mut report).await?;
    }
    if is_chosen(Part::Lines) {
        queue::lines(&stand, settings.queued, settings.rounds, &mut report).await?;
    }
    stand.stop().await?;
    if is_chosen(Part::Http) {
        server::first_node(settings.requests, &mut report).await?;
    }
    if is_chosen(Part::Idle) {
        server::idle(settings.rounds, settings.idle_seconds, &mut report).await?;
    }
    if is_chosen(Part::History) {
        history::measure(settings.history, &mut report).await?;
    }
    if settings.only.contains(&Part::Steady) {
        let pace = steady::Pace { per_second: settings.per_second, minutes: settings.minutes };
        steady::measure(pace, &mut report).await?;
    }
    Ok(report)
}
