//! What goes wrong between this crate and PostgreSQL, and how it is told to the ports.

use diesel::result::{DatabaseErrorKind, Error as QueryError};

use crate::db::connect::InvalidDatabaseUrl;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The settings cannot be used: nothing was tried.
    #[error("the database URL cannot be used")]
    InvalidUrl(#[source] InvalidDatabaseUrl),
    /// The database cannot be reached, is too busy, or went away: whether the last statement took place is unknown.
    /// Later it may do.
    #[error("the database is not available while {doing}")]
    Unavailable {
        /// What was tried.
        doing: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The schema that `search_path` names first does not exist.
    #[error(
        "no schema on the connection's search_path exists: create it, or mend `options` of the database URL"
    )]
    NoSchema,
    /// Something that must be there is not; nothing was changed.
    #[error("{what} does not exist")]
    Missing {
        /// What.
        what: &'static str,
    },
    /// Another row has this name already, or something still needs the row; nothing was changed.
    #[error("{what} conflicts with what is stored")]
    Conflict {
        /// What.
        what: &'static str,
    },
    /// What is stored makes no sense, or the database refused a statement that it should know: a person has to look.
    #[error("{what} in the database is corrupt")]
    Corrupt {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
}

impl DatabaseError {
    /// A failure of the session itself.
    pub(crate) fn session(doing: &'static str, source: impl Into<Cause>) -> Self {
        Self::Unavailable { doing, source: source.into() }
    }

    /// A stored value that no domain type accepts.
    pub(crate) fn corrupt(what: &'static str, source: impl Into<Cause>) -> Self {
        Self::Corrupt { what, source: source.into() }
    }

    /// What a failed statement means, where no particular refusal was expected.
    pub(crate) fn query(doing: &'static str, source: QueryError) -> Self {
        match source {
            QueryError::DatabaseError(
                DatabaseErrorKind::CheckViolation | DatabaseErrorKind::NotNullViolation,
                _,
            )
            | QueryError::DeserializationError(_)
            | QueryError::SerializationError(_)
            | QueryError::QueryBuilderError(_) => Self::Corrupt { what: doing, source: source.into() },
            _ => Self::Unavailable { doing, source: source.into() },
        }
    }
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
    /// A row with these values is there.
    Unique,
    /// What the row refers to is not there.
    ForeignKey,
}

impl From<DatabaseError> for gathering_dag_engine::StoreError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Missing { what } => Self::Missing { what: what.to_owned() },
            DatabaseError::Corrupt { what, source } => Self::Corrupt { what: what.to_owned(), source },
            other => Self::Unavailable(Box::new(other)),
        }
    }
}

impl From<DatabaseError> for gathering_auth::StoreError {
    fn from(error: DatabaseError) -> Self {
        match error {
            corrupt @ DatabaseError::Corrupt { .. } => Self::Corrupt(Box::new(corrupt)),
            other => Self::Unavailable(Box::new(other)),
        }
    }
}
