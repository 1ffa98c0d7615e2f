//! How a connection is made: from a URL to an open session, for the pool and for single sessions.
//!
//! Never knows what a connection is used for.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use diesel::ConnectionResult;
use diesel_async::AsyncPgConnection;
use gathering_domain::{ExposeSecret, Secret};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Config, Connection, NoTls, Socket};

use crate::db::error::DatabaseError;

/// How long making one connection may take, all its round trips included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A silent peer is probed after this long, and then at each interval.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;

/// When the statements that are prepared on a connection are planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plans {
    /// As PostgreSQL decides: the first executions are each planned for their values.
    OfEachValue,
    /// Once for all values: for a few frequent statements.
    Once,
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

    /// The same, but the loss of the peer's host is noticed after `limit`, with a probe every `interval`.
    pub(crate) fn with_silent_peer_limit(&self, interval: Duration, limit: Duration) -> Self {
        let mut config = self.config.clone();
        config.keepalives_idle(interval).keepalives_interval(interval).tcp_user_timeout(limit);
        Self { config }
    }

    /// Opens a session; the caller drives the connection.
    pub(crate) async fn open(&self) -> Result<(Client, Connection<Socket, NoTlsStream>), DatabaseError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.config.connect(NoTls)).await {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(error)) => Err(DatabaseError::connection("connecting", error)),
            Err(elapsed) => Err(DatabaseError::connection("connecting", elapsed)),
        }
    }

    /// Opens a session for queries, none of which may take longer than `statement_timeout`; zero is no limit. A task of its
    /// own drives it.
    pub(crate) async fn open_for_queries(
        &self,
        statement_timeout: Duration,
    ) -> Result<AsyncPgConnection, DatabaseError> {
        let (client, connection) = self.open().await?;
        let conn = AsyncPgConnection::try_from_client_and_connection(client, connection).await;
        set_up(conn, statement_timeout, Plans::OfEachValue).await
    }
}

/// Asks for messages in English, by which errors are classified; without the right to it the server's language stays.
macro_rules! messages_in_english {
    () => {
        "CASE WHEN has_parameter_privilege('lc_messages', 'SET') THEN set_config('lc_messages', 'C', false) END"
    };
}

/// Makes a session that is open and driven ready for statements, none of which may take longer than `statement_timeout`.
pub(crate) async fn set_up(
    opened: ConnectionResult<AsyncPgConnection>,
    statement_timeout: Duration,
    plans: Plans,
) -> Result<AsyncPgConnection, DatabaseError> {
    use diesel::sql_types::Text;
    use diesel_async::RunQueryDsl;

    let conn = opened.map_err(|error| DatabaseError::connection("setting up a connection", error))?;
    let setting = match plans {
        Plans::OfEachValue => diesel::sql_query(concat!(
            "SELECT set_config('statement_timeout', $1, false), ",
            messages_in_english!()
        )),
        // By an index and in its order, whatever the statistics say at that moment: those of an empty table would make
        // it a plan that reads all of a full one.
        Plans::Once => diesel::sql_query(concat!(
            "SELECT set_config('statement_timeout', $1, false), set_config('plan_cache_mode', 'force_generic_plan', false),
                set_config('enable_seqscan', 'off', false),
                set_config('enable_sort', 'off', false), set_config('jit', 'off', false), ",
            messages_in_english!()
        )),
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
