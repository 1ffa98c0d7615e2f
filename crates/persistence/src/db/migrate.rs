//! The migrations that this program contains, and how they are applied.

use std::time::Duration;

use diesel::migration::{MigrationSource, MigrationVersion};
use diesel::pg::Pg;
use diesel_async::AsyncPgConnection;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio_postgres::Client;
use tokio_util::task::AbortOnDropHandle;

use crate::db::blockers::describe_holder;
use crate::db::connect::ConnectOptions;
use crate::db::error::DatabaseError;
use crate::db::keys::{LockOf, lock_key};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations");

/// How often the lock is tried while another instance migrates. No statement waits for it inside the server: a waiting
/// statement holds a snapshot, for which a concurrent index build would wait in turn.
const LOCK_POLL: Duration = Duration::from_millis(100);
const LOCK_LIMIT: Duration = Duration::from_secs(300);

/// How often the log says who is waited for.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Migrates a database to the schema of this program.
#[derive(Debug, Clone)]
pub struct Migrator {
    options: ConnectOptions,
}

/// Why the schema is not the one that this program needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// A newer program has migrated the database; nothing was changed.
    #[error(
        "the database has migrations that this version does not know ({}): upgrade gathering to the version that \
         made them, or restore an older backup",
        unknown_versions.join(", ")
    )]
    NewerSchema {
        /// The versions that this program does not carry.
        unknown_versions: Vec<String>,
    },
    /// The database was made before the first migration of this program; nothing was changed.
    #[error(
        "the database was made by a pre-release of gathering, whose migrations this version does not have ({}): start with \
         an empty database or schema",
        unknown_versions.join(", ")
    )]
    OlderSchema {
        /// The versions that this program does not carry.
        unknown_versions: Vec<String>,
    },
    /// Another instance has held the migration lock for five minutes; nothing was changed.
    #[error(
        "another instance has been migrating the database for five minutes, or its lock stayed behind in a pooler: {holder} \
         holds the migration lock; look at its log, then start again"
    )]
    Busy {
        /// The session that holds the lock.
        holder: String,
    },
    /// A migration failed and was rolled back; earlier ones stay applied.
    #[error("a migration failed and was rolled back")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database did not answer.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Migrator {
    /// Migrates the database of `options`, over a direct connection: not through a transaction pooler.
    pub const fn new(options: ConnectOptions) -> Self {
        Self { options }
    }

    /// Applies pending migrations and returns their number. With none pending this takes one connection and two short
    /// queries. Repeats: safe, also from several instances at once.
    ///
    /// # Errors
    /// [`MigrateError`] as its variants say.
    pub async fn run(&self) -> Result<usize, MigrateError> {
        if self.load_pending().await?.is_empty() {
            return Ok(0);
        }
        self.under_the_lock(|conn| Ok(conn.run_pending_migrations(MIGRATIONS)?.len())).await
    }

    /// How many migrations the database lacks.
    ///
    /// # Errors
    /// [`MigrateError`] as its variants say; nothing is changed.
    pub async fn count_pending(&self) -> Result<usize, MigrateError> {
        Ok(self.load_pending().await?.len())
    }

    /// Reverts every migration, and deletes all data with it; for tests.
    ///
    /// # Errors
    /// [`MigrateError`] as its variants say.
    #[cfg(feature = "testing")]
    pub async fn revert_all(&self) -> Result<usize, MigrateError> {
        self.under_the_lock(|conn| Ok(conn.revert_all_migrations(MIGRATIONS)?.len())).await
    }

    async fn load_pending(&self) -> Result<Vec<String>, MigrateError> {
        load_pending_with(&self.options.open_session().await?.client).await
    }

    /// Does `work` on a connection of its own that holds the migration lock. The lock ends with the connection, on
    /// every path.
    async fn under_the_lock(
        &self,
        work: impl FnOnce(&mut SyncConnection) -> Result<usize, Box<dyn std::error::Error + Send + Sync>>
        + Send
        + 'static,
    ) -> Result<usize, MigrateError> {
        let (client, connection) = self.options.open().await?;
        let driver = AbortOnDropHandle::new(tokio::spawn(connection));
        take_lock(&client).await?;
        // The previous holder of the lock may have migrated to a newer schema than ours.
        load_pending_with(&client).await?;
        let conn = AsyncPgConnection::try_from(client)
            .await
            .map_err(|error| DatabaseError::connection("preparing to migrate", error))?;
        // diesel's harness blocks its thread, so it gets one of its own; this one drives the connection.
        let done = tokio::task::spawn_blocking(move || work(&mut SyncConnection::from(conn))).await;
        drop(driver);
        match done {
            Ok(result) => result.map_err(MigrateError::Failed),
            Err(panicked) => Err(MigrateError::Failed(panicked.into())),
        }
    }
}

type SyncConnection = AsyncConnectionWrapper<AsyncPgConnection>;

/// The versions that this program contains and the database lacks.
async fn load_pending_with(client: &Client) -> Result<Vec<String>, MigrateError> {
    let known = known_versions()?;
    let applied = load_applied(client).await?;
    let unknown_versions: Vec<String> =
        applied.iter().filter(|version| !known.contains(version)).cloned().collect();
    if let Some(oldest) = unknown_versions.first() {
        let is_older = known.first().is_some_and(|first| oldest < first);
        return Err(if is_older {
            MigrateError::OlderSchema { unknown_versions }
        } else {
            MigrateError::NewerSchema { unknown_versions }
        });
    }
    Ok(known.into_iter().filter(|version| !applied.contains(version)).collect())
}

fn known_versions() -> Result<Vec<String>, MigrateError> {
    let migrations = MigrationSource::<Pg>::migrations(&MIGRATIONS).map_err(MigrateError::Failed)?;
    let mut versions: Vec<String> = migrations
        .iter()
        .map(|migration| MigrationVersion::as_owned(&migration.name().version()).to_string())
        .collect();
    versions.sort_unstable();
    Ok(versions)
}

async fn load_applied(client: &Client) -> Result<Vec<String>, DatabaseError> {
    let doing = "reading the schema's version";
    // Only in the schema that would be migrated, not along the whole search_path.
    let row = client
        .query_one(
            "SELECT current_schema()::text, \
                    to_regclass(quote_ident(current_schema()) || '.__diesel_schema_migrations') IS NOT NULL",
            &[],
        )
        .await
        .map_err(|error| DatabaseError::session(doing, error))?;
    if row.get::<_, Option<String>>(0).is_none() {
        return Err(DatabaseError::NoSchema);
    }
    if !row.get::<_, Option<bool>>(1).unwrap_or(false) {
        return Ok(Vec::new());
    }
    let rows = client
        .query("SELECT version FROM __diesel_schema_migrations ORDER BY version", &[])
        .await
        .map_err(|error| DatabaseError::session(doing, error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn take_lock(client: &Client) -> Result<(), MigrateError> {
    let doing = "taking the migration lock";
    let schema: Option<String> = client
        .query_one("SELECT current_schema()::text", &[])
        .await
        .map_err(|error| DatabaseError::session(doing, error))?
        .get(0);
    let key = lock_key(&schema.ok_or(DatabaseError::NoSchema)?, LockOf::Migrations);
    let start = tokio::time::Instant::now();
    let mut logged_at = None;
    loop {
        let taken: bool = client
            .query_one("SELECT pg_try_advisory_lock($1)", &[&key])
            .await
            .map_err(|error| DatabaseError::session(doing, error))?
            .get(0);
        if taken {
            return Ok(());
        }
        if logged_at.is_none_or(|at: tokio::time::Instant| at.elapsed() >= LOG_INTERVAL) {
            let holder =
                describe_holder(client, key).await.map_err(|error| DatabaseError::session(doing, error))?;
            if start.elapsed() >= LOCK_LIMIT {
                return Err(MigrateError::Busy { holder });
            }
            logged_at = Some(tokio::time::Instant::now());
            tracing::info!(%holder, "waiting for the migration lock, which {holder} holds");
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}
