//! How a connection is made: from a URL to an open session, for the pool and for single sessions.
//!
//! Never knows what a connection is used for.

use std::fmt::{self, Write as _};
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use diesel::ConnectionResult;
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use gathering_domain::{ExposeSecret, Secret};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Config, Connection, NoTls, Socket};
use tokio_util::task::AbortOnDropHandle;

use crate::db::error::DatabaseError;
use crate::db::stale_statements::StaleStatements;

/// How long connecting may take, all its round trips included; and again the wait for the first answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A first answer that takes longer is worth a warning.
const WARN_AFTER: Duration = Duration::from_secs(2);

/// A silent peer is probed after this long, and then at each interval.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;

/// What a session is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionSettings {
    /// Nothing: the server connection belongs to a pooler, and whatever is set stays behind for its next client.
    Unset,
    /// For queries, none of which may take longer; zero is no limit. PostgreSQL plans as it decides: the first executions
    /// of a statement are each planned for their values.
    Queries(Duration),
    /// The same, but a statement is planned once for all values: for a few frequent statements.
    Engine(Duration),
}

/// A session without diesel, driven by a task of its own; it ends when this is dropped.
pub(crate) struct Session {
    pub(crate) client: Client,
    _driver: AbortOnDropHandle<Result<(), tokio_postgres::Error>>,
}

/// The address of the database, and the credentials. The password is not shown in `Debug`.
#[derive(Clone)]
pub struct ConnectOptions {
    config: Config,
}

/// A text that is not a usable database URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDatabaseUrl {
    /// It is malformed.
    #[error("it must be of the form postgresql://user:password@host:port/database")]
    Syntax(#[source] tokio_postgres::Error),
    /// It asks for an encrypted connection, which this build does not make.
    #[error(
        "it asks for TLS (sslmode=require), which is not supported: use a Unix socket, a private network or a local \
         tunnel, and sslmode=disable"
    )]
    TlsUnsupported,
}

impl ConnectOptions {
    /// The longest time until an idle connection notices that the peer's host is lost.
    pub const SILENT_PEER_LIMIT: Duration = Duration::from_secs(
        KEEPALIVE_IDLE.as_secs() + KEEPALIVE_INTERVAL.as_secs() * KEEPALIVE_RETRIES as u64,
    );

    /// Reads a URL (`postgresql://…`, the host may be a socket's directory as `%2Frun%2Fpostgresql`) or a list of
    /// `key=value`. Its `options`, such as `-c search_path=name`, are kept.
    ///
    /// # Errors
    /// [`InvalidDatabaseUrl`]; its text does not show the URL, which may hold a password.
    pub fn parse(url: &Secret) -> Result<Self, InvalidDatabaseUrl> {
        let mut config = Config::from_str(url.expose_secret()).map_err(InvalidDatabaseUrl::Syntax)?;
        match config.get_ssl_mode() {
            SslMode::Disable | SslMode::Prefer => {}
            _ => return Err(InvalidDatabaseUrl::TlsUnsupported),
        }
        if config.get_application_name().is_none() {
            config.application_name("gathering");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        config
            .ssl_mode(SslMode::Disable)
            .keepalives(true)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(Self::SILENT_PEER_LIMIT);
        Ok(Self { config })
    }

    /// Whether both lead to the same place in the same way.
    pub(crate) fn is_same_address(&self, other: &Self) -> bool {
        self.config == other.config
    }

    /// The same, but the loss of the peer's host is noticed after `limit`, with a probe every `interval`.
    pub(crate) fn with_silent_peer_limit(&self, interval: Duration, limit: Duration) -> Self {
        let mut config = self.config.clone();
        config.keepalives_idle(interval).keepalives_interval(interval).tcp_user_timeout(limit);
        Self { config }
    }

    /// Opens a session that has answered; the caller drives the connection. Warns while no answer comes.
    ///
    /// A pooler logs a client in before it has a server connection for it, so only an answer proves that there is one.
    pub(crate) async fn open(&self) -> Result<(Client, Connection<Socket, NoTlsStream>), DatabaseError> {
        let (client, mut connection) =
            match tokio::time::timeout(CONNECT_TIMEOUT, self.config.connect(NoTls)).await {
                Ok(Ok(opened)) => opened,
                Ok(Err(error)) => return Err(DatabaseError::connection("connecting", error)),
                Err(elapsed) => return Err(DatabaseError::connection("connecting", elapsed)),
            };
        self.wait_for_answer(&client, &mut connection).await?;
        Ok((client, connection))
    }

    async fn wait_for_answer(
        &self,
        client: &Client,
        connection: &mut Connection<Socket, NoTlsStream>,
    ) -> Result<(), DatabaseError> {
        let mut answer = pin!(first_answer(client, connection));
        let mut answered = tokio::time::timeout(WARN_AFTER, &mut answer).await;
        if answered.is_err() {
            let place = self.place();
            tracing::warn!(
                database = %place,
                "waiting for {place}: it let this instance in and does not answer; a pooler may have no server connection free"
            );
            answered = tokio::time::timeout(CONNECT_TIMEOUT - WARN_AFTER, answer).await;
        }
        match answered {
            Ok(answered) => answered.map_err(|error| DatabaseError::session("connecting", error)),
            Err(_elapsed) => {
                let (place, waited) = (self.place(), CONNECT_TIMEOUT.as_secs());
                let reason = format!(
                    "{place} let this instance in and did not answer within {waited} s: a pooler may have no server \
                     connection free"
                );
                Err(DatabaseError::connection("connecting", reason))
            }
        }
    }

    /// Opens a session for a few statements.
    pub(crate) async fn open_session(&self) -> Result<Session, DatabaseError> {
        let (client, connection) = self.open().await?;
        Ok(Session { client, _driver: AbortOnDropHandle::new(tokio::spawn(connection)) })
    }

    /// Opens a session for diesel's queries. A task of its own drives it.
    pub(crate) async fn open_for_queries(
        &self,
        settings: SessionSettings,
    ) -> Result<AsyncPgConnection, DatabaseError> {
        let (client, connection) = self.open().await?;
        let conn = AsyncPgConnection::try_from_client_and_connection(client, connection).await;
        set_up(conn, settings).await
    }

    /// Its hosts and its database, for people.
    fn place(&self) -> String {
        let mut place = String::new();
        let ports = self.config.get_ports();
        for (number, host) in self.config.get_hosts().iter().enumerate() {
            let port = ports.get(number).or(ports.first()).copied().unwrap_or(5432);
            let separator = if place.is_empty() { "" } else { ", " };
            // Writing to a `String` cannot fail.
            let _ = match host {
                Host::Tcp(name) => write!(place, "{separator}{name}:{port}"),
                Host::Unix(path) => write!(place, "{separator}{}:{port}", path.display()),
            };
        }
        let _ = write!(place, "/{}", self.config.get_dbname().unwrap_or_default());
        place
    }
}

/// Waits until the other side has executed something for this session.
async fn first_answer(
    client: &Client,
    connection: &mut Connection<Socket, NoTlsStream>,
) -> Result<(), tokio_postgres::Error> {
    let mut answer = pin!(client.batch_execute(""));
    tokio::select! {
        answered = &mut answer => answered,
        ended = connection => {
            ended?;
            answer.await
        }
    }
}

/// Asks for messages in English, by which errors are classified; without the right to it the server's language stays.
macro_rules! messages_in_english {
    () => {
        "CASE WHEN has_parameter_privilege('lc_messages', 'SET') THEN set_config('lc_messages', 'C', false) END"
    };
}

/// Makes a session that is open and driven ready for diesel's statements.
pub(crate) async fn set_up(
    opened: ConnectionResult<AsyncPgConnection>,
    settings: SessionSettings,
) -> Result<AsyncPgConnection, DatabaseError> {
    use diesel::sql_types::Text;
    use diesel_async::RunQueryDsl;

    let mut conn = opened.map_err(|error| DatabaseError::connection("setting up a connection", error))?;
    conn.set_instrumentation(StaleStatements::default());
    let (statement_timeout, setting) = match settings {
        SessionSettings::Unset => return Ok(conn),
        SessionSettings::Queries(statement_timeout) => (
            statement_timeout,
            diesel::sql_query(concat!(
                "SELECT set_config('statement_timeout', $1, false), ",
                messages_in_english!()
            )),
        ),
        // By an index and in its order, whatever the statistics say at that moment: those of an empty table would make
        // it a plan that reads all of a full one.
        SessionSettings::Engine(statement_timeout) => (
            statement_timeout,
            diesel::sql_query(concat!(
                "SELECT set_config('statement_timeout', $1, false), set_config('plan_cache_mode', 'force_generic_plan', false),
                    set_config('enable_seqscan', 'off', false),
                    set_config('enable_sort', 'off', false), set_config('jit', 'off', false), ",
                messages_in_english!()
            )),
        ),
    };
    setting
        .bind::<Text, _>(format!("{}ms", statement_timeout.as_millis()))
        .execute(&mut &conn)
        .await
        .map_err(|error| DatabaseError::query("setting up a connection", error))?;
    Ok(conn)
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("hosts", &self.config.get_hosts())
            .field("database", &self.config.get_dbname())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<ConnectOptions, InvalidDatabaseUrl> {
        ConnectOptions::parse(&Secret::from(url))
    }

    #[test]
    fn a_socket_directory_and_a_search_path_are_read() {
        let options = parse("postgresql://ada@%2Frun%2Fpg/db?options=-c%20search_path%3Done").unwrap();
        assert_eq!(options.config.get_options(), Some("-c search_path=one"));
        assert_eq!(options.config.get_hosts(), [tokio_postgres::config::Host::Unix("/run/pg".into())]);
    }

    #[test]
    fn a_place_names_hosts_ports_and_the_database_and_no_password() {
        let place = |url: &str| parse(url).unwrap().place();
        assert_eq!(place("postgresql://ada:hunter2@one,two:6432/db"), "one:5432, two:6432/db");
        assert_eq!(place("postgresql://ada:hunter2@%2Frun%2Fpg:7000/db"), "/run/pg:7000/db");
    }

    #[test]
    fn encryption_is_not_silently_left_out() {
        assert!(matches!(
            parse("postgresql://a@b/c?sslmode=require"),
            Err(InvalidDatabaseUrl::TlsUnsupported)
        ));
    }

    #[test]
    fn the_password_is_shown_nowhere() {
        let options = parse("postgresql://ada:hunter2@host/db").unwrap();
        assert!(!format!("{options:?}").contains("hunter2"));
        let error = parse("postgresql://ada:hunter2@host/db?nonsense=1").unwrap_err();
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }
}
