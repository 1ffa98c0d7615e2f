//! The database and the data directory of one test: a schema of its own on the test cluster, or an embedded cluster.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use gathering_postgres::{Cluster, Settings};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// Names the cluster that tests make their schemas in; `cargo xtask test` sets it.
const DATABASE_URL: &str = "GATHERING_TEST_DATABASE_URL";

/// Where a test's processes keep what they know. It goes when this is dropped, so processes must be dropped before.
#[derive(Debug)]
pub struct Database {
    schema: Option<Schema>,
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
        Ok(Database { schema: Some(Schema { name, cluster_url }), directory: directory()? })
    }

    /// A data directory with nothing in it, for an embedded cluster.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn embedded() -> Result<Database> {
        Ok(Database { schema: None, directory: directory()? })
    }

    /// The data directory; whoever uses it first makes it.
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

    /// A session of the test's own.
    ///
    /// # Errors
    /// If the database is embedded or does not answer.
    pub async fn session(&self) -> Result<Client> {
        let schema = self.schema.as_ref().context("an embedded database is reached by its owner only")?;
        connect(&schema.url()).await
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

fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    format!("e2e_{}_{count}_{now}", std::process::id())
}
