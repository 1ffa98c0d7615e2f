//! A PgBouncer of the test, where one is found: in front of the schema of one test.

use std::fmt;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;
use tokio_postgres::config::Host;
use tokio_postgres::{Config, NoTls};

use crate::{Database, Process, wait_until};

/// Names the programs to try, separated by colons; else the one on the `PATH` is.
const PGBOUNCER: &str = "GATHERING_TEST_PGBOUNCER";

/// The first version that keeps prepared statements.
const FIRST_WITH_STATEMENTS: (u32, u32) = (1, 21);

/// The user that it is started as where the tests are root and the database is reached over the network: it refuses root.
const NOBODY: u32 = 65534;

const LIMIT: Duration = Duration::from_secs(30);

/// A running pooler, killed when this is dropped.
#[derive(Debug)]
pub struct Pooler {
    process: Process,
    url: String,
}

impl Pooler {
    /// A program that can keep prepared statements, or one that cannot, or any. Without one the test says that it is
    /// skipped.
    ///
    /// # Errors
    /// If a program that is named does not tell its version.
    pub fn find(keeps_statements: Option<bool>) -> Result<Option<PathBuf>> {
        let named = std::env::var_os(PGBOUNCER);
        let candidates: Vec<PathBuf> = match &named {
            Some(named) => std::env::split_paths(named).collect(),
            None => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                .map(|directory| directory.join("pgbouncer"))
                .filter(|program| program.is_file())
                .collect(),
        };
        for program in candidates {
            let keeps = version(&program)? >= FIRST_WITH_STATEMENTS;
            if keeps_statements.is_none_or(|wanted| wanted == keeps) {
                return Ok(Some(program));
            }
        }
        let wanted = match keeps_statements {
            Some(true) => " 1.21 or later",
            Some(false) => " before 1.21",
            None => "",
        };
        skip(format_args!("no PgBouncer{wanted} is on the PATH or named by {PGBOUNCER}"));
        Ok(None)
    }

    /// Starts it in front of the schema of `database`, with these settings, one a line.
    ///
    /// # Errors
    /// If it does not let a client in.
    pub async fn start(program: &Path, database: &Database, settings: &str) -> Result<Pooler> {
        let server = Config::from_str(&database.url()?)?;
        let (host, owner) = match server.get_hosts().first().context("no host")? {
            Host::Tcp(name) => (name.clone(), (NOBODY, NOBODY)),
            Host::Unix(path) => {
                let directory = fs::metadata(path)?;
                (path.display().to_string(), (directory.uid(), directory.gid()))
            }
        };
        let schema = server.get_options().and_then(|options| options.strip_prefix("-csearch_path="));
        let schema = schema.context("the database has no schema of its own")?;
        // Free until a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let file = database.directory().join(format!("pgbouncer-{port}.ini"));
        let text = format!(
            "[databases]\n\
             tests = host={host} port={} dbname={} user={} connect_query='SET search_path TO {schema}'\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = any\n\
             {settings}\n",
            server.get_ports().first().unwrap_or(&5432),
            server.get_dbname().context("no database")?,
            server.get_user().context("no user")?,
        );
        fs::write(&file, text)?;
        let mut command = Command::new(program);
        command.arg(&file).current_dir("/");
        if geteuid().is_root() {
            command.uid(owner.0).gid(owner.1);
        }
        let url = format!("postgresql://tests@127.0.0.1:{port}/tests");
        let mut pooler = Pooler { process: Process::start(&mut command)?, url };
        wait_until(LIMIT, "the pooler lets a client in", async || {
            if !pooler.process.is_running() {
                return Err(pooler.process.last_words());
            }
            tokio_postgres::connect(&pooler.url, NoTls).await.map(drop).map_err(|error| format!("{error:?}"))
        })
        .await?;
        Ok(pooler)
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Says that a test does nothing, and why.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn skip(why: fmt::Arguments<'_>) {
    println!("skipped: {why}");
}

fn version(program: &Path) -> Result<(u32, u32)> {
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text.lines().next().and_then(|line| line.strip_prefix("PgBouncer "));
    let parts: Vec<u32> =
        number.unwrap_or_default().split('.').filter_map(|part| part.parse().ok()).collect();
    ensure!(parts.len() >= 2, "{} is no PgBouncer: {text}", program.display());
    Ok((parts[0], parts[1]))
}
