//! What logging in, being recognised and calling a tool cost, against the limit that the machine sets, measured in the same run.
//!
//! `cargo xtask bench http` starts this with a database and the server. The result is a table in Markdown on standard
//! output; progress goes to standard error. It fails when a client could tell by the time of an answer what the answer
//! does not say. docs/benchmarks.md explains the lines.

mod bare;
mod connection;
mod load;
mod login;
mod machine;
mod recognition;
mod stand;
mod statistics;
mod table;
mod timing;
mod tools;

use anyhow::{Result, ensure};
use clap::Parser;

use crate::stand::Stand;
use crate::table::Report;

/// What the server does without being told otherwise.
const COST: u32 = 12;

/// Where the hash takes so little time that it hides nothing.
const LEAST_COST: u32 = 4;

/// Benchmarks of the HTTP interface.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask bench http --")]
struct Settings {
    /// Samples per group of the rank tests at cost 12
    #[arg(long, default_value_t = 60)]
    samples: usize,
    /// Samples per group of the rank tests at cost 4
    #[arg(long, default_value_t = 300)]
    cheap_samples: usize,
    /// Logins one after the other, for their latency
    #[arg(long, default_value_t = 100)]
    logins: usize,
    /// Rounds in which a rate and its limit are measured in turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only this part of the table
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// What `cargo bench` passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Logins against bcrypt alone, and what they leave to others
    Login,
    /// What it costs to recognise a caller, and requests a second
    Requests,
    /// Calls of tools, one by one and many at once
    Tools,
    /// The rank tests
    Timing,
}

fn main() -> Result<()> {
    let settings = Settings::parse();
    let is_chosen = |part: Part| settings.only.is_none_or(|only| only == part);
    let mut report = Report::default();
    let stand = Stand::start(COST)?;
    report.machine = machine::describe(&stand)?;
    if is_chosen(Part::Login) {
        login::measure(&stand, settings.logins, settings.rounds, &mut report)?;
    }
    if is_chosen(Part::Requests) {
        recognition::measure(&stand, settings.rounds, &mut report)?;
    }
    if is_chosen(Part::Tools) {
        tools::measure(&stand, settings.rounds, &mut report)?;
    }
    if is_chosen(Part::Timing) {
        timing::measure(&stand, settings.samples, &mut report)?;
        drop(stand);
        timing::measure(&Stand::start(LEAST_COST)?, settings.cheap_samples, &mut report)?;
    }
    report.print();
    let n_telling = report.comparisons.iter().filter(|comparison| comparison.is_telling()).count();
    ensure!(n_telling == 0, "{n_telling} answers tell by their time what they do not say");
    Ok(())
}
