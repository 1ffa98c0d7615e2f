//! Development commands, run as `cargo xtask <command>`.
//!
//! The same commands serve people and continuous integration: `.ci/run` calls `check` and `test`, `ci` is both.

mod bench;
mod check;
mod database;
mod dev;
mod openapi;
mod process;
mod schema;
mod table_macros;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Development commands of GatheRing.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs all tests on a private database; passes further arguments to `cargo test`
    Test {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measures the release build against the limits of this machine, on a private database; prints Markdown tables
    Bench {
        /// Only these benchmarks [default: all]
        #[arg(value_enum)]
        only: Vec<bench::Benchmark>,
        /// Arguments for the benchmarks, such as `-- --help`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Runs what continuous integration runs: `check`, then `test`
    Ci,
    /// Runs the checks without the tests: tidiness, format, generated files, lints, documentation
    Check {
        /// Only these checks, in the order of the full run [default: all]
        #[arg(value_enum)]
        only: Vec<check::Step>,
    },
    /// Manages the development database in .gathering/dev
    #[command(subcommand)]
    Db(database::Command),
    /// Serves with reload: rebuilds and restarts when a source file changes
    Dev {
        /// Arguments for `gathering serve`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Regenerates diesel's schema from the migrations, and docs/openapi.json from the server
    Schema {
        /// Fail when the committed files differ instead of writing them
        #[arg(long)]
        check: bool,
        /// Skip docs/openapi.json, which needs a built server
        #[arg(long)]
        database_only: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            process::exit_code_after_interrupt().map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match task {
        Task::Test { arguments } => test::run(&workspace, &arguments),
        Task::Bench { only, arguments } => bench::run(&workspace, &only, &arguments),
        Task::Ci => check::run(&workspace, &[]).and_then(|()| test::run(&workspace, &[])),
        Task::Check { only } => check::run(&workspace, &only),
        Task::Db(command) => database::run(&workspace, &command),
        Task::Dev { arguments } => dev::run(&workspace, &arguments),
        Task::Schema { check, database_only } => schema::run(&workspace, check, database_only),
    }
}
