//! How a failure of the database is classified, and which error the ports get for it.
//!
//! [`Class`] is decided by SQLSTATE. diesel-async does not pass the SQLSTATE of most errors on, so the error of a diesel
//! statement is classified by its kind, and else by PostgreSQL's own message ([`MESSAGES`]). What no rule knows is a
//! fault: it is logged as an error, and never hidden behind "unavailable".

mod aborted;

use std::error::Error;
use std::fmt::Write as _;

use diesel::result::{DatabaseErrorKind, Error as QueryError};

use crate::db::connect::InvalidDatabaseUrl;
use crate::db::stale_statements::STALE_STATEMENT;

pub(crate) use aborted::Aborted;

type Cause = Box<dyn Error + Send + Sync>;

/// Why the database did not do what was asked.
///
/// The text of [`Unavailable`](Self::Unavailable), [`TimedOut`](Self::TimedOut) and [`Fault`](Self::Fault) contains every
/// cause down to the innermost, so they have no `source`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The settings cannot be used: nothing was tried.
    #[error("invalid database URL")]
    InvalidUrl(#[source] InvalidDatabaseUrl),
    /// The database cannot be reached, has no resources left, or ended the session: whether the last statement took
    /// effect is unknown. A later attempt may succeed.
    #[error("the database is unavailable while {doing}: {}", chain(&**cause))]
    Unavailable {
        /// What was tried.
        doing: &'static str,
        /// Why.
        cause: Cause,
    },
    /// A statement or the wait for a lock or a connection took too long and was ended. A later attempt may succeed.
    #[error("timed out while {doing}: {}", chain(&**cause))]
    TimedOut {
        /// What was tried.
        doing: &'static str,
        /// Which limit was reached.
        cause: Cause,
    },
    /// The database refused a statement that it should accept: the schema or the program is wrong, and an operator must act.
    #[error("unexpected database error while {doing}: {}", chain(&**cause))]
    Fault {
        /// What was tried.
        doing: &'static str,
        /// What the database said.
        cause: Cause,
    },
    /// The schema that `search_path` names first does not exist.
    #[error("no schema on the search_path exists: create it, or correct `options` in the database URL")]
    NoSchema,
    /// A required row does not exist; nothing was changed.
    #[error("{what} does not exist")]
    Missing {
        /// What.
        what: &'static str,
    },
    /// Another row has this name already, or something still refers to the row; nothing was changed.
    #[error("{what} conflicts with what is stored")]
    Conflict {
        /// What.
        what: &'static str,
    },
    /// A stored value is invalid: an operator must act.
    #[error("{what} in the database is corrupt")]
    Corrupt {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
}

/// What a caller may do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Retry later.
    Unavailable,
    /// Retry later; the database was reached.
    TimedOut,
    /// Tell an operator.
    Fault,
}

/// The start of a message that PostgreSQL or PgBouncer sends in English, and its SQLSTATE. Only what is not a fault.
/// [`set_up`](crate::db::connect) asks for English messages where it may.
const MESSAGES: [(&str, &str); 24] = [
    ("canceling statement due to statement timeout", "57014"),
    ("canceling statement due to user request", "57014"),
    ("canceling statement due to lock timeout", "55P03"),
    ("could not obtain lock on ", "55P03"),
    ("canceling statement due to conflict with recovery", "40001"),
    ("deadlock detected", "40P01"),
    ("terminating connection due to idle-in-transaction timeout", "25P03"),
    ("terminating connection due to transaction timeout", "25P04"),
    ("terminating connection due to idle-session timeout", "57P05"),
    ("terminating connection due to conflict with recovery", "40001"),
    ("terminating connection due to ", "57P01"),
    ("terminating connection because of crash", "57P02"),
    ("the database system is ", "57P03"),
    ("sorry, too many clients already", "53300"),
    ("remaining connection slots are reserved", "53300"),
    ("too many connections for ", "53300"),
    // Both that it does not exist and that it exists already.
    (STALE_STATEMENT, "26000"),
    ("out of memory", "53200"),
    ("out of shared memory", "53200"),
    ("could not extend file", "53100"),
    ("query_wait_timeout", "08P01"),
    ("server conn crashed", "08P01"),
    ("server login has been failing", "08P01"),
    ("pgbouncer cannot connect to server", "08P01"),
];

/// What PostgreSQL says, as if a check had been violated, when the journal has no partition for a row. Maintenance makes
/// it, so the next attempt may succeed.
const NO_PARTITION: &str = "no partition of relation ";

/// What tokio-postgres says when the connection failed, as opposed to the statement.
const CONNECTION_LOST: [&str; 4] = [
    "connection closed",
    "error communicating with the server",
    "error connecting to server",
    "timeout waiting for server",
];

impl Class {
    fn of_sqlstate(code: &str) -> Self {
        match code {
            // query_canceled, lock_not_available, and the time-outs of transactions.
            "57014" | "55P03" | "25P03" | "25P04" => Self::TimedOut,
            // Serialization failure and deadlock: the next attempt meets other transactions. Read-only: the server was
            // demoted, and its successor will answer.
            "40001" | "40P01" | "25006" => Self::Unavailable,
            // A prepared statement is not there, or there already: nothing was executed, and the next connection prepares
            // it anew.
            "26000" | "42P05" => Self::Unavailable,
            // Connections, resources, and the ends of sessions by an operator.
            _ if ["08", "53", "57P0"].iter().any(|class| code.starts_with(class)) => Self::Unavailable,
            _ => Self::Fault,
        }
    }

    fn of_message(message: &str) -> Self {
        let known = MESSAGES.iter().find(|(start, _)| message.starts_with(start));
        known.map_or(Self::Fault, |(_, code)| Self::of_sqlstate(code))
    }

    fn of_query(error: &QueryError) -> Self {
        match error {
            QueryError::DatabaseError(kind, info) => match kind {
                DatabaseErrorKind::SerializationFailure
                | DatabaseErrorKind::ReadOnlyTransaction
                | DatabaseErrorKind::ClosedConnection => Self::Unavailable,
                DatabaseErrorKind::UnableToSendCommand
                    if CONNECTION_LOST.iter().any(|start| info.message().starts_with(start)) =>
                {
                    Self::Unavailable
                }
                DatabaseErrorKind::CheckViolation if info.message().starts_with(NO_PARTITION) => {
                    Self::Unavailable
                }
                DatabaseErrorKind::UniqueViolation
                | DatabaseErrorKind::ForeignKeyViolation
                | DatabaseErrorKind::NotNullViolation
                | DatabaseErrorKind::CheckViolation
                | DatabaseErrorKind::RestrictViolation
                | DatabaseErrorKind::ExclusionViolation
                | DatabaseErrorKind::UnableToSendCommand => Self::Fault,
                _ => Self::of_message(info.message()),
            },
            // The connection failed inside a transaction, or was left in one.
            QueryError::BrokenTransactionManager => Self::Unavailable,
            QueryError::RollbackErrorOnCommit { commit_error, .. } => Self::of_query(commit_error),
            _ => Self::Fault,
        }
    }

    fn of_session(error: &tokio_postgres::Error) -> Self {
        match error.code() {
            Some(code) => Self::of_sqlstate(code.code()),
            None => {
                let text = error.to_string();
                let is_lost = CONNECTION_LOST.iter().any(|start| text.starts_with(start));
                if is_lost { Self::Unavailable } else { Self::Fault }
            }
        }
    }
}

impl DatabaseError {
    /// A failure to connect, whatever the reason.
    pub(crate) fn connection(doing: &'static str, cause: impl Into<Cause>) -> Self {
        Self::Unavailable { doing, cause: cause.into() }
    }

    /// A limit of this program was reached.
    pub(crate) fn timed_out(doing: &'static str, cause: impl Into<Cause>) -> Self {
        Self::TimedOut { doing, cause: cause.into() }
    }

    /// A statement that failed on a session without diesel.
    pub(crate) fn session(doing: &'static str, error: tokio_postgres::Error) -> Self {
        Self::of(Class::of_session(&error), doing, error.into())
    }

    /// A statement that failed where no refusal was expected.
    pub(crate) fn query(doing: &'static str, error: QueryError) -> Self {
        match error {
            QueryError::DeserializationError(source) => Self::Corrupt { what: doing, source },
            error => Self::of(Class::of_query(&error), doing, error.into()),
        }
    }

    /// A stored value that no domain type accepts.
    pub(crate) fn corrupt(what: &'static str, source: impl Into<Cause>) -> Self {
        Self::Corrupt { what, source: source.into() }
    }

    fn of(class: Class, doing: &'static str, cause: Cause) -> Self {
        match class {
            Class::Unavailable => Self::Unavailable { doing, cause },
            Class::TimedOut => Self::TimedOut { doing, cause },
            Class::Fault => Self::Fault { doing, cause },
        }
    }
}

/// An error and its causes in one line, each told once.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = error.to_string();
        // tokio-postgres puts "db error" in front of what the database said.
        if message != "db error" && !text.ends_with(&message) {
            let separator = if text.is_empty() { "" } else { ": " };
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{separator}{message}");
        }
        next = error.source();
    }
    text
}

/// The constraint that a statement violated, if it was refused for one of this kind.
pub(crate) fn violated(error: &QueryError, expected: Refusal) -> Option<&str> {
    match (error, expected) {
        (QueryError::DatabaseError(DatabaseErrorKind::UniqueViolation, info), Refusal::Unique)
        | (QueryError::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, info), Refusal::ForeignKey) => {
            Some(info.constraint_name().unwrap_or(""))
        }
        _ => None,
    }
}

/// The kinds of refusal that are an answer rather than an error.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal {
    /// A row with these values exists.
    Unique,
    /// The row that is referred to does not exist.
    ForeignKey,
}

impl From<DatabaseError> for gathering_dag_engine::StoreError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Missing { what } => Self::Missing { what: what.to_owned() },
            DatabaseError::Corrupt { what, source } => Self::Corrupt { what: what.to_owned(), source },
            unavailable @ DatabaseError::Unavailable { .. } => Self::Unavailable(unavailable.into()),
            timed_out @ DatabaseError::TimedOut { .. } => Self::TimedOut(timed_out.into()),
            other => Self::Fault(Box::new(other)),
        }
    }
}

impl From<DatabaseError> for gathering_auth::StoreError {
    fn from(error: DatabaseError) -> Self {
        match error {
            corrupt @ DatabaseError::Corrupt { .. } => Self::Corrupt(corrupt.into()),
            unavailable @ DatabaseError::Unavailable { .. } => Self::Unavailable(unavailable.into()),
            timed_out @ DatabaseError::TimedOut { .. } => Self::TimedOut(timed_out.into()),
            other => Self::Fault(Box::new(other)),
        }
    }
}

impl From<DatabaseError> for gathering_control::ControlError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Missing { .. } => Self::NotFound,
            unavailable @ DatabaseError::Unavailable { .. } => Self::Unavailable(unavailable.into()),
            timed_out @ DatabaseError::TimedOut { .. } => Self::TimedOut(timed_out.into()),
            other => Self::Broken(other.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of(error: &DatabaseError) -> Class {
        match error {
            DatabaseError::Unavailable { .. } => Class::Unavailable,
            DatabaseError::TimedOut { .. } => Class::TimedOut,
            DatabaseError::Fault { .. } => Class::Fault,
            other => panic!("no class: {other}"),
        }
    }

    #[test]
    fn every_sqlstate_has_the_class_of_the_table() {
        for (class, codes) in [
            (
                Class::Unavailable,
                &[
                    "08000", "08001", "08003", "08004", "08006", "08P01", "25006", "40001", "40P01", "53000",
                    "53100", "53200", "53300", "53400", "57P01", "57P02", "57P03", "57P04", "57P05", "26000",
                    "42P05",
                ][..],
            ),
            (Class::TimedOut, &["25P03", "25P04", "55P03", "57014"]),
            (
                Class::Fault,
                &[
                    "0A000", "22001", "22003", "22P02", "22P05", "23001", "23502", "23503", "23505", "23514",
                    "25P02", "28P01", "3F000", "42501", "42601", "42703", "42804", "42883", "42P01", "42P18",
                    "54000", "55006", "58030", "P0001", "XX000", "XX001", "99999",
                ],
            ),
        ] {
            for code in codes {
                assert_eq!(Class::of_sqlstate(code), class, "{code}");
            }
        }
    }

    #[test]
    fn a_diesel_error_is_classified_by_its_kind_and_then_by_its_message_and_else_it_is_a_fault() {
        use DatabaseErrorKind as Kind;
        let class = |kind, message: &str| {
            let error = QueryError::DatabaseError(kind, Box::new(message.to_owned()));
            class_of(&DatabaseError::query("testing", error))
        };
        for (start, code) in MESSAGES {
            assert_ne!(Class::of_sqlstate(code), Class::Fault, "{start}: it would be a fault without a rule");
            assert_eq!(class(Kind::Unknown, start), Class::of_sqlstate(code), "{start}");
        }
        for message in
            ["prepared statement \"s1\" does not exist", "prepared statement \"s1\" already exists"]
        {
            assert_eq!(class(Kind::Unknown, message), Class::Unavailable, "{message}");
        }
        for message in ["relation \"runs\" does not exist", ""] {
            assert_eq!(class(Kind::Unknown, message), Class::Fault, "{message}");
        }
        for message in CONNECTION_LOST {
            assert_eq!(class(Kind::UnableToSendCommand, message), Class::Unavailable, "{message}");
        }
        assert_eq!(class(Kind::UnableToSendCommand, "error encoding message to server"), Class::Fault);
        let message = "no partition of relation \"run_journal\" found for row";
        assert_eq!(class(Kind::CheckViolation, message), Class::Unavailable);
        assert_eq!(class(Kind::SerializationFailure, "x"), Class::Unavailable);
        assert_eq!(class(Kind::ReadOnlyTransaction, "x"), Class::Unavailable);
        assert_eq!(class(Kind::ClosedConnection, "x"), Class::Unavailable);
        for kind in
            [Kind::UniqueViolation, Kind::ForeignKeyViolation, Kind::NotNullViolation, Kind::CheckViolation]
        {
            assert_eq!(class(kind, "deadlock detected"), Class::Fault, "{kind:?}");
        }
        for (error, expected) in [
            (QueryError::BrokenTransactionManager, Class::Unavailable),
            (QueryError::NotFound, Class::Fault),
            (QueryError::SerializationError("x".into()), Class::Fault),
        ] {
            assert_eq!(class_of(&DatabaseError::query("testing", error)), expected);
        }
    }

    #[test]
    fn each_port_gets_an_error_of_the_same_class() {
        use gathering_auth::StoreError as OfAccounts;
        use gathering_control::ControlError as OfControl;
        use gathering_dag_engine::StoreError as OfRuns;
        let error = |class| DatabaseError::of(class, "testing", "cause".into());
        for class in [Class::Unavailable, Class::TimedOut, Class::Fault] {
            let of_runs = match OfRuns::from(error(class)) {
                OfRuns::Unavailable(_) => Class::Unavailable,
                OfRuns::TimedOut(_) => Class::TimedOut,
                _ => Class::Fault,
            };
            let of_accounts = match OfAccounts::from(error(class)) {
                OfAccounts::Unavailable(_) => Class::Unavailable,
                OfAccounts::TimedOut(_) => Class::TimedOut,
                _ => Class::Fault,
            };
            let of_control = |error| match error {
                OfControl::Unavailable(_) => Class::Unavailable,
                OfControl::TimedOut(_) => Class::TimedOut,
                _ => Class::Fault,
            };
            let of_control = [of_control(error(class).into()), of_control(OfRuns::from(error(class)).into())];
            assert_eq!((of_runs, of_accounts, of_control), (class, class, [class, class]));
        }
    }

    #[test]
    fn the_text_of_a_failure_tells_each_cause_once_down_to_the_innermost() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Layer {
            text: &'static str,
            #[source]
            source: Option<Box<Layer>>,
        }
        let layer = |text, source: Option<Layer>| Layer { text, source: source.map(Box::new) };
        let innermost = layer("password authentication failed", None);
        let cause = layer("db error", Some(layer("FATAL: password authentication failed", Some(innermost))));
        assert_eq!(
            DatabaseError::connection("connecting", cause).to_string(),
            "the database is unavailable while connecting: FATAL: password authentication failed"
        );
    }
}
