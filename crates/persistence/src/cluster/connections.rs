//! What the guarantees need of the connections to the database, proved before anything depends on it.
//!
//! Owns the proofs. Never knows which settings the addresses come from.
//!
//! A transaction pooler accepts everything and keeps little: a lock belongs to a server connection that other clients use
//! next, a notification reaches nobody, and a prepared statement stays on the server connection that happened to serve
//! it. Nothing of that is an error, so it must be tried.

use std::future::poll_fn;
use std::time::Duration;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use gathering_domain::InstanceId;
use tokio::sync::mpsc;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::db::connect::{ConnectOptions, Session};
use crate::db::error::DatabaseError;
use crate::db::pool::Pool;
use crate::db::schema::instances;

/// How long a notification may take that reaches a session at once, on a busy machine.
const HEARING_LIMIT: Duration = Duration::from_secs(5);

/// How long a statement may wait for a server connection; if all are in use, nothing is proved.
const STATEMENT_LIMIT: Duration = Duration::from_secs(2);

/// How long all proofs may take: a pooler may let each statement wait for a server connection.
const PROOF_LIMIT: Duration = Duration::from_secs(30);

/// How often a statement is tried on a server connection that may be another one.
const ROUNDS: usize = 3;

/// Why the connections cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionsError {
    /// The pooled and the direct address lead to different databases or schemas.
    #[error("the pooled connection leads to {pooled}, and the direct one to {direct}")]
    Different {
        /// Where queries would go.
        pooled: String,
        /// Where liveness locks and wake-ups would go.
        direct: String,
    },
    /// A row that was written through the direct connection is not there through the pool.
    #[error(
        "this instance is registered through the direct connection, and is not there through the pooled one"
    )]
    NotSeen,
    /// The direct connection does not keep what belongs to a session.
    #[error(
        "the direct connection is not a session of its own: a notification did not reach it within {} s, as behind a \
         transaction pooler",
        HEARING_LIMIT.as_secs()
    )]
    NotASession,
    /// A statement that was prepared on a connection was not there in its next transaction.
    #[error(
        "the pooler does not keep prepared statements: PgBouncer 1.21 or later is required, with max_prepared_statements \
         above 0"
    )]
    NoPreparedStatements(#[source] DatabaseError),
    /// The database did not answer.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Proves that both addresses lead to the same database and schema, that `direct` leads to sessions, and that prepared
/// statements can be used through `pooled`. Writes nothing. Takes some milliseconds, seconds where it refuses, and half a
/// minute at most.
///
/// # Errors
/// [`ConnectionsError`] as its variants say.
pub async fn check_connections(
    pooled: &ConnectOptions,
    direct: &ConnectOptions,
) -> Result<(), ConnectionsError> {
    tokio::time::timeout(PROOF_LIMIT, prove(pooled, direct)).await.unwrap_or_else(|_elapsed| {
        let waited = PROOF_LIMIT.as_secs();
        let reason = format!("no answer within {waited} s: a pooler may have no server connection free");
        Err(DatabaseError::connection("proving what the connections keep", reason).into())
    })
}

async fn prove(pooled: &ConnectOptions, direct: &ConnectOptions) -> Result<(), ConnectionsError> {
    // What is kept by a session is kept at the same address, too.
    let other = async {
        if pooled.is_same_address(direct) { Ok(None) } else { pooled.open_session().await.map(Some) }
    };
    let (mut listener, one, other) = tokio::try_join!(Listener::open(direct), pooled.open_session(), other)?;
    let (pooled, direct) = tokio::try_join!(load_place(&one.client), load_place(&listener.client))?;
    if pooled != direct {
        return Err(ConnectionsError::Different { pooled: pooled.describe(), direct: direct.describe() });
    }
    if !listener.hears(&one.client).await? {
        return Err(ConnectionsError::NotASession);
    }
    match other {
        Some(other) => check_statements(&one, &other).await,
        None => Ok(()),
    }
}

/// Checks through the pool that an instance is there that was registered through a direct connection.
///
/// # Errors
/// [`ConnectionsError::NotSeen`], or the database's.
pub async fn check_registered(pool: &Pool, instance: InstanceId) -> Result<(), ConnectionsError> {
    let conn = pool.get().await?;
    let is_there: bool = diesel::select(diesel::dsl::exists(instances::table.find(instance.as_uuid())))
        .get_result(&mut &*conn)
        .await
        .map_err(|error| DatabaseError::query("checking the registration", error))?;
    if is_there { Ok(()) } else { Err(ConnectionsError::NotSeen) }
}

/// Which database of which server a session is in, and in which schema.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    database: String,
    /// None if no schema on the search_path exists.
    schema: Option<String>,
    /// The database's number and the start of the server: two servers may have databases of one name.
    server: String,
}

impl Place {
    fn describe(&self) -> String {
        let schema = self.schema.as_deref().unwrap_or("none");
        format!("database {} (schema {schema}, {})", self.database, self.server)
    }
}

const PLACE: &str = "
    SELECT current_database()::text, current_schema()::text,
        format('number %s on a server that started at %s UTC', oid,
            to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'))
    FROM pg_database WHERE datname = current_database()";

async fn load_place(client: &Client) -> Result<Place, DatabaseError> {
    // Without a name, so that the pooler need not keep it.
    let row = client
        .query_typed_one(PLACE, &[])
        .await
        .map_err(|error| DatabaseError::session("asking where a connection leads", error))?;
    Ok(Place { database: row.get(0), schema: row.get(1), server: row.get(2) })
}

/// A session that listens on a channel of its own.
struct Listener {
    client: Client,
    channel: String,
    heard: mpsc::Receiver<()>,
    _driver: AbortOnDropHandle<()>,
}

impl Listener {
    async fn open(options: &ConnectOptions) -> Result<Self, DatabaseError> {
        let (client, mut connection) = options.open().await?;
        let (tell, heard) = mpsc::channel(1);
        let channel = format!("gathering_{}", Uuid::new_v4().simple());
        let own = channel.clone();
        let driver = tokio::spawn(async move {
            // Ends with the connection, whose failure the next statement tells.
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if matches!(message, AsyncMessage::Notification(heard) if heard.channel() == own) {
                    // If one waits already, that is proof enough.
                    tell.try_send(()).ok();
                }
            }
        });
        Ok(Self { client, channel, heard, _driver: AbortOnDropHandle::new(driver) })
    }

    /// Whether a notification by another session arrives while this one sends nothing.
    async fn hears(&mut self, notifier: &Client) -> Result<bool, DatabaseError> {
        let failed = |error| DatabaseError::session("proving that a connection is a session", error);
        self.client.batch_execute(&format!("LISTEN {}", self.channel)).await.map_err(failed)?;
        let sql = "SELECT pg_notify($1, '')";
        notifier.query_typed_one(sql, &[(&self.channel, Type::TEXT)]).await.map_err(failed)?;
        Ok(matches!(tokio::time::timeout(HEARING_LIMIT, self.heard.recv()).await, Ok(Some(()))))
    }
}

const BACKEND: &str = "SELECT pg_backend_pid()";

/// Executes a prepared statement of `one` while `other` keeps the server connection that it got, so that a transaction
/// pooler must use another one for it.
async fn check_statements(one: &Session, other: &Session) -> Result<(), ConnectionsError> {
    let failed = |error: tokio_postgres::Error| {
        let is_missing = error.code().is_some_and(|code| matches!(code.code(), "26000" | "42P05"));
        let error = DatabaseError::session("executing a prepared statement", error);
        if is_missing {
            ConnectionsError::NoPreparedStatements(error)
        } else {
            ConnectionsError::Database(error)
        }
    };
    let statement = one.client.prepare(BACKEND).await.map_err(failed)?;
    for _ in 0..ROUNDS {
        let first: i32 = one.client.query_one(&statement, &[]).await.map_err(failed)?.get(0);
        other.client.batch_execute("BEGIN").await.map_err(failed)?;
        let taken: i32 = other.client.query_typed_one(BACKEND, &[]).await.map_err(failed)?.get(0);
        let again = tokio::time::timeout(STATEMENT_LIMIT, one.client.query_one(&statement, &[])).await;
        other.client.batch_execute("ROLLBACK").await.map_err(failed)?;
        match again {
            Ok(answered) => drop(answered.map_err(failed)?),
            Err(_elapsed) => return Ok(()),
        }
        if taken == first {
            return Ok(());
        }
    }
    Ok(())
}
