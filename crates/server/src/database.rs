//! The database of this process: the one that `DATABASE_URL` names, or an embedded cluster of its own.
//!
//! Owns the cluster, and stops it after the last connection. Never knows what is stored.

use anyhow::Context as _;
use chrono::TimeDelta;
use gathering_domain::{ExposeSecret, Secret};
use gathering_persistence::{
    ConnectOptions, ConnectionsError, MigrateError, Migrator, Pool, PoolSettings, check_connections,
    ensure_journal_partitions, load_clock_difference,
};
use gathering_postgres::{Cluster, ClusterError, Settings};

use crate::config::Config;

/// The journal's partitions are made so many weeks ahead: a lock that delays this for days does no harm.
pub const PARTITIONS_WEEKS: u8 = 4;

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
    let migrated = place.migrate().await;
    stop(place.cluster).await;
    migrated
}

/// What a look at a database finds.
pub enum Examined {
    /// It is an embedded one, which does not exist yet.
    NotMade,
    /// It is an embedded one, which another process owns.
    InUse(anyhow::Error),
    /// It is there.
    Reached {
        /// How many migrations it lacks, or why it cannot be migrated.
        pending: Result<usize, MigrateError>,
        /// How far its clock is ahead of that of this machine.
        clock_ahead: TimeDelta,
    },
}

/// Looks at the database of these settings without changing it, as `serve` would find it.
///
/// # Errors
/// In words for the operator, if it cannot be reached.
pub async fn examine(config: &Config) -> anyhow::Result<Examined> {
    let is_embedded = config.database_url.is_none();
    if is_embedded && !config.data_dir.join("postgres").exists() {
        return Ok(Examined::NotMade);
    }
    let place = match Place::settle(config).await {
        Ok(place) => place,
        Err(error) if matches!(error.downcast_ref(), Some(ClusterError::Locked { .. })) => {
            return Ok(Examined::InUse(error));
        }
        Err(error) => return Err(error),
    };
    let examined = place.examine().await;
    stop(place.cluster).await;
    examined
}

/// Where the database is.
struct Place {
    url: ConnectOptions,
    /// `url` again, unless the settings name another.
    direct: ConnectOptions,
    has_pooler: bool,
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
        let has_pooler = direct.expose_secret() != url.expose_secret();
        let direct = ConnectOptions::parse(direct).context("invalid DATABASE_DIRECT_URL");
        let url = ConnectOptions::parse(&url).context("invalid DATABASE_URL");
        Ok(Self { url: url?, direct: direct?, has_pooler, cluster })
    }

    /// Proves first what a migration depends on: its lock stays behind in a pooler. Whether one is pending is asked
    /// meanwhile.
    async fn migrate(&self) -> anyhow::Result<usize> {
        let migrator = Migrator::new(self.direct.clone());
        let prove = async {
            // Nothing stands before a cluster of this process.
            if self.cluster.is_none() {
                check_connections(&self.url, &self.direct).await.map_err(refuse)?;
            }
            anyhow::Ok(())
        };
        let (proved, pending) = tokio::join!(prove, migrator.count_pending());
        proved?;
        let migrated = match pending {
            Ok(0) => return Ok(0),
            Ok(_) => migrator.run().await,
            Err(error) => Err(error),
        };
        match migrated {
            Ok(n_migrations) => Ok(n_migrations),
            // Its text says what to do.
            Err(error @ (MigrateError::NewerSchema { .. } | MigrateError::OlderSchema { .. })) => {
                Err(error.into())
            }
            Err(error) => Err(error).context("cannot migrate the database"),
        }
    }

    async fn examine(&self) -> anyhow::Result<Examined> {
        if self.cluster.is_none() {
            check_connections(&self.url, &self.direct).await.map_err(refuse)?;
        }
        let clock_ahead = load_clock_difference(&self.direct).await.context("cannot reach the database")?;
        let pending = Migrator::new(self.direct.clone()).count_pending().await;
        Ok(Examined::Reached { pending, clock_ahead })
    }

    async fn connect(&self, config: &Config) -> anyhow::Result<Pool> {
        self.migrate().await?;
        let settings = PoolSettings { max_size: config.db_pool_size, ..PoolSettings::default() };
        let pool = if self.has_pooler {
            Pool::connect_through_pooler(&self.url, self.direct.clone(), settings).await
        } else {
            Pool::connect(self.url.clone(), settings).await
        };
        let pool = pool.context("cannot reach the database")?;
        // Without this week's partition no run can be written, and the server may have been down for months.
        if let Err(error) = ensure_journal_partitions(&pool, PARTITIONS_WEEKS).await {
            tracing::warn!(error = %error, "cannot make partitions of the journal at the start: {error}");
        }
        Ok(pool)
    }
}

/// The same refusal, with the settings that an operator must change.
pub fn refuse(error: ConnectionsError) -> anyhow::Error {
    let advice = match error {
        ConnectionsError::NotASession => {
            "set DATABASE_DIRECT_URL to a URL that leads to PostgreSQL without a transaction pooler"
        }
        ConnectionsError::Different { .. } | ConnectionsError::NotSeen => {
            "DATABASE_URL and DATABASE_DIRECT_URL must lead to the same database and schema"
        }
        ConnectionsError::NoPreparedStatements(_) => "the pooler at DATABASE_URL cannot be used",
        _ => "cannot reach the database through DATABASE_URL and DATABASE_DIRECT_URL",
    };
    anyhow::Error::from(error).context(advice)
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
