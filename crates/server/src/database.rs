//! The database of this process: the one that `DATABASE_URL` names, or an embedded cluster of its own.
//!
//! Owns the cluster, and stops it after the last connection. Never knows what is stored.

use anyhow::Context as _;
use gathering_domain::Secret;
use gathering_persistence::{ConnectOptions, MigrateError, Migrator, Pool, PoolSettings};
use gathering_postgres::{Cluster, Settings};

use crate::config::Config;

/// The database of the embedded cluster.
const EMBEDDED_NAME: &str = "gathering";

/// An open, migrated database.
pub struct Database {
    /// Connections for queries.
    pub pool: Pool,
    /// A direct address, without a pooler: for sessions that hold a lock or listen.
    pub direct: ConnectOptions,
    /// Present if it belongs to this process.
    cluster: Option<Cluster>,
}

impl Database {
    /// Opens the database of these settings, starting the embedded cluster when none is named, and migrates it.
    ///
    /// # Errors
    /// In words for the operator; nothing that was started is left running.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let place = Place::settle(config).await?;
        match place.connect(config).await {
            Ok(pool) => Ok(Self { pool, direct: place.direct, cluster: place.cluster }),
            Err(error) => {
                stop(place.cluster).await;
                Err(error)
            }
        }
    }

    /// Whether the database belongs to this process alone.
    pub const fn is_embedded(&self) -> bool {
        self.cluster.is_some()
    }

    /// Closes the connections, then stops the embedded cluster. Every task that uses the database has ended before.
    pub async fn close(self) {
        self.pool.close();
        stop(self.cluster).await;
    }
}

/// Migrates the database of these settings to this program's schema; returns the number of applied migrations.
///
/// # Errors
/// In words for the operator.
pub async fn migrate(config: &Config) -> anyhow::Result<usize> {
    let place = Place::settle(config).await?;
    let migrated = run_migrations(&place.direct).await;
    stop(place.cluster).await;
    migrated
}

async fn run_migrations(direct: &ConnectOptions) -> anyhow::Result<usize> {
    match Migrator::new(direct.clone()).run().await {
        Ok(n_migrations) => Ok(n_migrations),
        // Its text says what to do.
        Err(error @ MigrateError::NewerSchema { .. }) => Err(error.into()),
        Err(error) => Err(error).context("cannot migrate the database"),
    }
}

/// Where the database is.
struct Place {
    url: ConnectOptions,
    direct: ConnectOptions,
    cluster: Option<Cluster>,
}

impl Place {
    async fn settle(config: &Config) -> anyhow::Result<Self> {
        let (url, cluster) = match &config.database_url {
            Some(url) => (url.clone(), None),
            None => {
                let settings = Settings::new(&config.data_dir);
                let started = tokio::task::spawn_blocking(move || start(&settings)).await;
                let (url, cluster) = started.context("starting the embedded database")??;
                (url, Some(cluster))
            }
        };
        let direct = config.database_direct_url.as_ref().filter(|_| cluster.is_none()).unwrap_or(&url);
        let direct = ConnectOptions::parse(direct).context("invalid DATABASE_DIRECT_URL");
        let url = ConnectOptions::parse(&url).context("invalid DATABASE_URL");
        Ok(Self { url: url?, direct: direct?, cluster })
    }

    async fn connect(&self, config: &Config) -> anyhow::Result<Pool> {
        run_migrations(&self.direct).await?;
        let settings = PoolSettings { max_size: config.db_pool_size, ..PoolSettings::default() };
        Pool::connect(self.url.clone(), settings).await.context("cannot reach the database")
    }
}

/// Blocks: up to seconds for the first start.
fn start(settings: &Settings) -> anyhow::Result<(Secret, Cluster)> {
    let cluster = Cluster::start(settings)?;
    cluster.ensure_database(EMBEDDED_NAME)?;
    Ok((Secret::from(cluster.url(EMBEDDED_NAME)), cluster))
}

/// Stops the cluster on a blocking thread.
async fn stop(cluster: Option<Cluster>) {
    let Some(cluster) = cluster else { return };
    match tokio::task::spawn_blocking(move || cluster.stop()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(error = %error, "cannot stop the embedded database in order: {error}")
        }
        Err(error) => tracing::error!(error = %error, "stopping the embedded database ended abnormally"),
    }
}
