//! The bounded pool of connections for queries.

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, Manager, Object, QueueMode};
use diesel::result::Error as QueryError;
use diesel::{ConnectionError, OptionalExtension};
use diesel_async::pooled_connection::deadpool::{Object as PoolObject, Pool as Deadpool};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError, RecyclingMethod,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::FutureExt;

use crate::db::connect::{ConnectOptions, Session, SessionSettings};
use crate::db::direct::{DirectManager, PooledDirect, open_pool};
use crate::db::error::DatabaseError;
use crate::db::stale_statements::has_stale_statement;

/// A connection that goes back to its pool when it is dropped. One that is dropped inside a transaction is closed.
pub(crate) type PooledConnection = PoolObject<AsyncPgConnection>;

diesel::define_sql_function! {
    /// The schema that an unqualified `CREATE` uses.
    fn current_schema() -> diesel::sql_types::Nullable<diesel::sql_types::Text>;
}

/// The bounds of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    /// The most connections at once, without the engine's own four.
    pub max_size: usize,
    /// How long a query waits for a free connection.
    pub wait_timeout: Duration,
    /// How long a single statement may take before the server ends it; zero is no limit.
    pub statement_timeout: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            max_size: 16,
            wait_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
        }
    }
}

/// Connections for queries. Cloning is cheap and shares them.
#[derive(Clone)]
pub struct Pool {
    inner: Deadpool<AsyncPgConnection>,
    /// Opened on first use, for the engine's few frequent statements.
    commits: managed::Pool<DirectManager>,
    claims: managed::Pool<DirectManager>,
    direct: ConnectOptions,
    schema: Arc<str>,
    wait_timeout: Duration,
}

/// How busy a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStatus {
    /// Connections that are open.
    pub n_open: usize,
    /// Of those, how many are free.
    pub n_free: usize,
    /// Tasks that wait for one.
    pub n_waiting: usize,
    /// The most that may be open.
    pub max_size: usize,
}

impl Pool {
    /// Makes a pool and one connection in it, to learn the schema. `options` lead to a server without a transaction
    /// pooler.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::NoSchema`]; no connection is left open.
    pub async fn connect(options: ConnectOptions, settings: PoolSettings) -> Result<Self, DatabaseError> {
        let queries = SessionSettings::Queries(settings.statement_timeout);
        Self::open(open(&options, settings, queries)?, options, settings).await
    }

    /// The same, but the connections for queries go through a transaction pooler, and those of the engine, which set how
    /// their statements are planned, go to the server of `direct`. Through a pooler nothing is set: what limits a statement
    /// there is a setting of the role.
    ///
    /// # Errors
    /// As [`Pool::connect`].
    pub async fn connect_through_pooler(
        pooled: &ConnectOptions,
        direct: ConnectOptions,
        settings: PoolSettings,
    ) -> Result<Self, DatabaseError> {
        let pool = Self::open(open(pooled, settings, SessionSettings::Unset)?, direct, settings).await?;
        pool.warn_of_role_settings().await?;
        Ok(pool)
    }

    /// Says what an operator should set for the role, because nothing is set on connections that others share.
    async fn warn_of_role_settings(&self) -> Result<(), DatabaseError> {
        #[derive(diesel::QueryableByName)]
        struct Settings {
            #[diesel(sql_type = diesel::sql_types::Text)]
            statement_timeout: String,
            #[diesel(sql_type = diesel::sql_types::Text)]
            lc_messages: String,
        }
        let conn = self.get().await?;
        let settings: Settings = diesel::sql_query(
            "SELECT current_setting('statement_timeout') AS statement_timeout,
                current_setting('lc_messages') AS lc_messages",
        )
        .get_result(&mut &*conn)
        .await
        .map_err(|error| DatabaseError::query("reading the settings of the role", error))?;
        if settings.statement_timeout == "0" {
            tracing::warn!(
                "statements through the pooler have no time limit: set one for the role, such as ALTER ROLE ... SET \
                 statement_timeout = '30s'"
            );
        }
        let is_english =
            |messages: &str| ["en", "C", "POSIX"].iter().any(|start| messages.starts_with(start));
        if !settings.lc_messages.is_empty() && !is_english(&settings.lc_messages) {
            tracing::warn!(
                lc_messages = settings.lc_messages,
                "outages are recognised by English messages only: set them for the role with ALTER ROLE ... SET \
                 lc_messages = 'C'"
            );
        }
        Ok(())
    }

    async fn open(
        inner: Deadpool<AsyncPgConnection>,
        direct: ConnectOptions,
        settings: PoolSettings,
    ) -> Result<Self, DatabaseError> {
        let own = PoolSettings { max_size: 1, ..settings };
        let mut pool = Self {
            inner,
            commits: open_pool(&direct, PoolSettings { max_size: 3, ..own })?,
            claims: open_pool(&direct, own)?,
            direct,
            schema: "".into(),
            wait_timeout: settings.wait_timeout,
        };
        pool.schema = pool.load_schema().await?.into();
        Ok(pool)
    }

    async fn load_schema(&self) -> Result<String, DatabaseError> {
        let conn = self.get().await?;
        diesel::select(current_schema())
            .get_result::<Option<String>>(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("asking for the schema", error))?
            .flatten()
            .ok_or(DatabaseError::NoSchema)
    }

    /// The name of the schema that holds the tables; lock keys and channels derive from it.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// A free connection. Cancel: safe.
    pub(crate) async fn get(&self) -> Result<PooledConnection, DatabaseError> {
        self.get_from(&self.inner).await
    }

    /// A connection for checkpoints, one for each that is written at once: no request shares it. Cancel: safe.
    pub(crate) async fn get_for_commits(&self) -> Result<PooledDirect, DatabaseError> {
        self.get_from(&self.commits).await
    }

    /// The claim loop's connection. Cancel: safe.
    pub(crate) async fn get_for_claims(&self) -> Result<PooledDirect, DatabaseError> {
        self.get_from(&self.claims).await
    }

    /// A session beside the pool, for statements that set something, wait for others or take a lock.
    pub(crate) async fn open_session(&self) -> Result<Session, DatabaseError> {
        self.direct.open_session().await
    }

    async fn get_from<M>(&self, connections: &managed::Pool<M>) -> Result<Object<M>, DatabaseError>
    where
        M: Manager<Error: Into<DatabaseError> + std::fmt::Display>,
    {
        match tokio::time::timeout(self.wait_timeout, connections.get()).await {
            Ok(Ok(conn)) => Ok(conn),
            Ok(Err(managed::PoolError::Backend(error))) => Err(error.into()),
            Ok(Err(error)) => Err(DatabaseError::connection("getting a connection", error.to_string())),
            Err(elapsed) if is_exhausted(connections.status()) => {
                Err(DatabaseError::timed_out("waiting for a free connection", elapsed))
            }
            Err(_elapsed) => {
                let waited = self.wait_timeout.as_secs();
                let reason = format!("no connection was made within {waited} s: a pooler may have none free");
                Err(DatabaseError::connection("connecting", reason))
            }
        }
    }

    /// Checks that the database answers.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`].
    pub async fn ping(&self) -> Result<(), DatabaseError> {
        let conn = self.get().await?;
        diesel::select(diesel::dsl::sql::<diesel::sql_types::Integer>("1"))
            .get_result::<i32>(&mut &*conn)
            .await
            .map(|_| ())
            .map_err(|error| DatabaseError::query("checking that the database answers", error))
    }

    /// Its current use, without the engine's connections.
    pub fn status(&self) -> PoolStatus {
        let status = self.inner.status();
        PoolStatus {
            n_open: status.size,
            n_free: status.available,
            n_waiting: status.waiting,
            max_size: status.max_size,
        }
    }

    /// Closes free connections now and the others when they return; tasks that wait for one get an error.
    pub fn close(&self) {
        self.inner.close();
        self.commits.close();
        self.claims.close();
    }
}

/// Whether all connections that a pool may have are open and in use.
const fn is_exhausted(status: deadpool::Status) -> bool {
    status.size >= status.max_size && status.available == 0
}

/// diesel-async wraps what `open`'s `custom_setup` answers twice, and its own error names no source: what was wrapped is
/// unwrapped here, or the reason would be lost.
impl From<PoolError> for DatabaseError {
    fn from(error: PoolError) -> Self {
        let doing = "connecting";
        match error {
            PoolError::ConnectionError(ConnectionError::CouldntSetupConfiguration(
                QueryError::QueryBuilderError(cause),
            )) => match cause.downcast::<Self>() {
                Ok(own) => *own,
                Err(cause) => Self::connection(doing, cause),
            },
            PoolError::ConnectionError(error) => Self::connection(doing, error),
            PoolError::QueryError(error) => Self::query(doing, error),
        }
    }
}

/// Makes a pool without a connection in it.
fn open(
    options: &ConnectOptions,
    settings: PoolSettings,
    session: SessionSettings,
) -> Result<Deadpool<AsyncPgConnection>, DatabaseError> {
    let mut config = ManagerConfig::default();
    // A connection that was closed is noticed without a query; asking each time would double the round trips.
    config.recycling_method = RecyclingMethod::CustomFunction(Box::new(|conn| {
        let is_stale = has_stale_statement(conn);
        async move { if is_stale { Err(QueryError::BrokenTransactionManager) } else { Ok(()) } }.boxed()
    }));
    let options = options.clone();
    config.custom_setup = Box::new(move |_url| {
        let options = options.clone();
        async move {
            options.open_for_queries(session).await.map_err(|error| {
                ConnectionError::CouldntSetupConfiguration(QueryError::QueryBuilderError(Box::new(error)))
            })
        }
        .boxed()
    });
    let manager = AsyncDieselConnectionManager::new_with_config(String::new(), config);
    Deadpool::builder(manager)
        .max_size(settings.max_size.max(1))
        // The last used connection comes first, as its prepared statements, plans and caches are warm. Taking turns
        // would spread the few statements of a quiet time over all connections, each of them slow at first.
        .queue_mode(QueueMode::Lifo)
        .build()
        .map_err(|error| DatabaseError::connection("making the connection pool", error))
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("schema", &self.schema).field("status", &self.status()).finish()
    }
}
