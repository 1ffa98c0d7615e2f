//! Benchmarks, with a database of their own that is as durable as a real one.

use anyhow::Result;
use clap::ValueEnum;
use gathering_postgres::{Cluster, Settings};

use crate::process;
use crate::workspace::Workspace;

/// The empty database that benchmarks make their schemas in.
const DATABASE: &str = "gathering_bench";

/// What can be measured. Each is the `[[bench]]` of this name in the end-to-end crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Benchmark {
    /// Runs: how fast they start, execute and drain, beside bare commits
    Engine,
    /// Events: through one process, into the log, and to many readers
    Events,
    /// Logins, the cost of authentication, requests a second, and whether response times leak secrets
    Http,
    /// Schedules: how late they fire, beside a drain of as many runs
    Schedule,
}

impl Benchmark {
    fn target(self) -> &'static str {
        match self {
            Benchmark::Engine => "engine",
            Benchmark::Events => "events",
            Benchmark::Http => "http",
            Benchmark::Schedule => "schedule",
        }
    }
}

/// Runs the chosen benchmarks, or all, with `arguments`. Their tables go to standard output.
///
/// Stops and deletes the database however they end.
pub(crate) fn run(workspace: &Workspace, chosen: &[Benchmark], arguments: &[String]) -> Result<()> {
    process::catch_interrupts()?;
    process::run(&mut workspace.cargo(&["build", "--release", "--package", "gathering-server"]))?;
    // Not a temporary cluster: those never flush to the disk, so their commits are too fast.
    let cluster = Cluster::start(&Settings::new(workspace.root().join(".gathering/bench")))?;
    let measured = cluster.ensure_database(DATABASE).map_err(Into::into).and_then(|()| {
        let all = Benchmark::value_variants();
        let chosen = if chosen.is_empty() { all } else { chosen };
        chosen.iter().try_for_each(|benchmark| measure(workspace, *benchmark, arguments, &cluster))
    });
    measured.and(cluster.destroy().map_err(Into::into))
}

fn measure(
    workspace: &Workspace,
    benchmark: Benchmark,
    arguments: &[String],
    cluster: &Cluster,
) -> Result<()> {
    let mut bench =
        workspace.cargo(&["bench", "--package", "gathering-e2e", "--bench", benchmark.target(), "--"]);
    bench.args(arguments);
    bench.env("GATHERING_TEST_DATABASE_URL", cluster.url(DATABASE));
    bench.env("GATHERING_TEST_BINARY", workspace.server("release"));
    process::run(&mut bench)
}
