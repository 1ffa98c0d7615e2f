//! Notices on a connection that the server does not have a statement that was prepared on it.
//!
//! That is no fault of the statement: a pooler handed the connection a server connection without it, or somebody
//! deallocated it. The connection still believes in the statement, so it is not used again; its successor prepares anew.

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel::result::Error as QueryError;
use diesel_async::{AsyncConnection as _, AsyncPgConnection};

/// How PostgreSQL says that a statement is not there (26000), or is there already (42P05).
pub(crate) const STALE_STATEMENT: &str = "prepared statement \"";

/// Watches the statements of one connection.
#[derive(Debug, Default)]
pub(crate) struct StaleStatements {
    is_stale: bool,
}

impl Instrumentation for StaleStatements {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::FinishQuery { error: Some(QueryError::DatabaseError(_, info)), .. } =
            event
            && info.message().starts_with(STALE_STATEMENT)
        {
            self.is_stale = true;
        }
    }
}

/// Whether a statement of this connection was missing or in the way.
pub(crate) fn has_stale_statement(conn: &mut AsyncPgConnection) -> bool {
    let watched = conn.instrumentation().as_any().downcast_ref::<StaleStatements>();
    watched.is_some_and(|statements| statements.is_stale)
}
