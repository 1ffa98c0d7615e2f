//! The database and the data directory of one test: a schema of its own on the test cluster, a cluster of its own, or an
//! embedded one.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use gathering_postgres::{Cluster, Durability, Settings};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::wait::wait_until;

/// Names the cluster that tests make their schemas in; `cargo xtask test` sets it.
const DATABASE_URL: &str = "GATHERING_TEST_DATABASE_URL";

/// The database of a cluster of its own.
const OWN_DATABASE: &str = "gathering_test";

/// How long the processes of a cluster may take to end.
const CLUSTER_LIMIT: Duration = Duration::from_secs(30);

/// Where a test's processes keep what they know. It goes when this is dropped, so processes must be dropped before.
#[derive(Debug)]
pub struct Database {
    schema: Option<Schema>,
    /// Where the schema is alone in a cluster, which the test may crash.
    cluster: Option<Cluster>,
    directory: TempDir,
}

#[derive(Debug)]
struct Schema {
    name: String,
    cluster_url: String,
}

impl Database {
    /// A schema of its own with nothing in it, and a data directory for keys and workspaces.
    ///
    /// # Errors
    /// If the test cluster is not there.
    pub async fn empty() -> Result<Database> {
        let cluster_url = std::env::var(DATABASE_URL).with_context(|| {
            format!(
                "{DATABASE_URL} is not set: run `cargo xtask test`, which starts a database for the tests"
            )
        })?;
        let name = fresh_name();
        connect(&cluster_url).await?.batch_execute(&format!("CREATE SCHEMA {name}")).await?;
        Ok(Database { schema: Some(Schema { name, cluster_url }), cluster: None, directory: directory()? })
    }

    /// As [`Database::empty`], in a cluster of its own that [`Database::crash_and_restart`] may crash.
    ///
    /// # Errors
    /// If there is no PostgreSQL to start.
    pub async fn on_its_own() -> Result<Database> {
        let directory = directory()?;
        // As durable as a real one: what it has answered is to survive its crash.
        let settings = Settings::new(directory.path().join("cluster"));
        let cluster = tokio::task::spawn_blocking(move || -> Result<Cluster> {
            let cluster = Cluster::start(&settings)?;
            cluster.ensure_database(OWN_DATABASE)?;
            Ok(cluster)
        })
        .await??;
        let (name, cluster_url) = (fresh_name(), cluster.url(OWN_DATABASE));
        connect(&cluster_url).await?.batch_execute(&format!("CREATE SCHEMA {name}")).await?;
        Ok(Database { schema: Some(Schema { name, cluster_url }), cluster: Some(cluster), directory })
    }

    /// Ends the cluster without a checkpoint, as `pg_ctl stop -m immediate` does, and starts it again. It recovers by
    /// itself; its URL stays.
    ///
    /// # Errors
    /// If it is no cluster of its own, or does not come back.
    pub async fn crash_and_restart(&mut self) -> Result<()> {
        let cluster = self.cluster.take().context("the database shares its cluster")?;
        let pid_file = cluster.cluster_dir().join("postmaster.pid");
        kill(Pid::from_raw(i32::try_from(cluster.postmaster_pid())?), Signal::SIGQUIT)?;
        wait_until(CLUSTER_LIMIT, "PostgreSQL ends", async || {
            if pid_file.exists() { Err("its number is still there") } else { Ok(()) }
        })
        .await?;
        let settings = cluster_settings(&self.directory);
        let restarted = tokio::task::spawn_blocking(move || -> Result<Cluster> {
            cluster.stop()?;
            Ok(Cluster::start(&settings)?)
        });
        self.cluster = Some(restarted.await??);
        Ok(())
    }

    /// A data directory with nothing in it, for an embedded cluster.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn embedded() -> Result<Database> {
        Ok(Database { schema: None, cluster: None, directory: directory()? })
    }

    /// The data directory; its first user creates it.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A directory beside the data, for files of the test.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Leads a process to this database.
    pub fn configure(&self, command: &mut Command) {
        command.env("GATHERING_DATA_DIR", self.data_dir());
        if let Some(schema) = &self.schema {
            command.env("DATABASE_URL", schema.url());
        }
    }

    /// A command for the program on this database, in a directory of the test.
    ///
    /// # Errors
    /// If there is no program to start.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = crate::command(arguments)?;
        command.current_dir(self.directory());
        self.configure(&mut command);
        Ok(command)
    }

    /// Where it is.
    ///
    /// # Errors
    /// If the database is embedded.
    pub fn url(&self) -> Result<String> {
        Ok(self.schema.as_ref().context("an embedded database is reached by its owner only")?.url())
    }

    /// A session of the test's own.
    ///
    /// # Errors
    /// If the database is embedded or does not answer.
    pub async fn session(&self) -> Result<Client> {
        connect(&self.url()?).await
    }
}

impl Database {
    /// Every row of every table as JSON text, by table.
    ///
    /// # Errors
    /// As [`Database::session`].
    pub async fn rows(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let session = self.session().await?;
        let tables = "SELECT c.relname::text FROM pg_class c \
                      WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'";
        let mut found = BTreeMap::new();
        for table in session.query(tables, &[]).await? {
            let table: String = table.get(0);
            let rows = session.query(&format!("SELECT row_to_json(t)::text FROM \"{table}\" t"), &[]).await?;
            found.insert(table, rows.iter().map(|row| row.get(0)).collect());
        }
        Ok(found)
    }

    /// Where the files of a project are.
    pub fn files_of(&self, project: &str) -> PathBuf {
        self.data_dir().join("workspaces").join(project)
    }
}

impl Schema {
    fn url(&self) -> String {
        let separator = if self.cluster_url.contains('?') { '&' } else { '?' };
        format!("{}{separator}options=-csearch_path%3D{}", self.cluster_url, self.name)
    }

    fn drop_now(&self) -> Result<()> {
        let sql = format!("SET lock_timeout = '10s'; DROP SCHEMA IF EXISTS {} CASCADE", self.name);
        let url = self.cluster_url.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { Ok(connect(&url).await?.batch_execute(&sql).await?) })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let dropped = match &self.schema {
            _ if self.cluster.is_some() => Ok(self.cluster.take().map_or(Ok(()), |own| Ok(own.destroy()?))),
            // A thread of its own, as this may be any runtime.
            Some(schema) => std::thread::scope(|scope| scope.spawn(|| schema.drop_now()).join()),
            None => Ok(stop_orphan(&self.data_dir())),
        };
        if let Ok(Err(error)) = dropped {
            eprintln!("the test's database stays: {error:#}");
        }
    }
}

/// Stops the PostgreSQL that a killed process left running.
fn stop_orphan(data_dir: &Path) -> Result<()> {
    if let Some(cluster) = Cluster::find_running(&Settings::new(data_dir))? {
        cluster.stop()?;
    }
    Ok(())
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("the test database does not answer")?;
    // Ends with its client.
    tokio::spawn(connection);
    Ok(client)
}

/// A directory that other users can pass through: as root, the cluster below it belongs to another user.
fn directory() -> Result<TempDir> {
    let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o711)).tempdir()?;
    Ok(directory)
}

/// A crash of its processes costs nothing with these; the machine does not crash in a test.
fn cluster_settings(directory: &TempDir) -> Settings {
    Settings { durability: Durability::FastForTests, ..Settings::new(directory.path().join("cluster")) }
}

fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    format!("e2e_{}_{count}_{now}", std::process::id())
}
