//! The development database: a cluster in .gathering/dev that runs until `db down`.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use gathering_postgres::{Cluster, Settings};

use crate::process;
use crate::workspace::Workspace;

const DATABASE: &str = "gathering";

/// What to do with the development database.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Starts it, and prints its URL for DATABASE_URL
    Up,
    /// Stops it; the data stays
    Down,
    /// Deletes it with all data, creates it again and applies all migrations
    Reset,
    /// Applies the migrations of this checkout
    Migrate,
    /// Opens psql on it; starts it first if necessary
    Psql {
        /// Arguments for psql
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// Runs one command.
pub(crate) fn run(workspace: &Workspace, command: &Command) -> Result<()> {
    let settings = Settings::new(workspace.root().join(".gathering/dev"));
    match command {
        Command::Up => {
            print_url(up(&settings)?);
            eprintln!("set DATABASE_URL to this; `cargo xtask db down` stops it");
            Ok(())
        }
        Command::Down => down(&settings),
        Command::Reset => {
            Cluster::start(&settings)?.destroy()?;
            migrate(workspace, &up(&settings)?)
        }
        Command::Migrate => migrate(workspace, &up(&settings)?),
        Command::Psql { arguments } => {
            let cluster = Cluster::start(&settings)?;
            cluster.ensure_database(DATABASE)?;
            let mut psql = cluster.command("psql");
            cluster.detach();
            let error = psql.args(["-d", DATABASE]).args(arguments).exec();
            Err(error).context("cannot run psql")
        }
    }
}

/// Starts the cluster, leaves it running and returns the URL of its database.
fn up(settings: &Settings) -> Result<String> {
    let cluster = Cluster::start(settings)?;
    cluster.ensure_database(DATABASE)?;
    let url = cluster.url(DATABASE);
    cluster.detach();
    Ok(url)
}

fn down(settings: &Settings) -> Result<()> {
    match Cluster::find_running(settings)? {
        Some(cluster) => Ok(cluster.stop()?),
        None => bail!("the development database is not running"),
    }
}

fn migrate(workspace: &Workspace, url: &str) -> Result<()> {
    process::catch_interrupts()?;
    let mut server = workspace.cargo(&["run", "--quiet", "--package", "gathering-server", "--", "migrate"]);
    process::run(server.env("DATABASE_URL", url))?;
    print_url(url.to_owned());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the URL is the command's result, for a shell to read")]
fn print_url(url: String) {
    println!("{url}");
}
