//! Transactions that end without effect.

use diesel::result::Error as QueryError;

use super::DatabaseError;

/// Why a transaction is rolled back: the database failed, or a rule refused what it was to do.
#[derive(Debug)]
pub(crate) enum Aborted<E> {
    /// A statement failed.
    Query(QueryError),
    /// A rule refused it, with the error that the caller gets.
    Refused(E),
}

impl<E> From<QueryError> for Aborted<E> {
    fn from(error: QueryError) -> Self {
        Self::Query(error)
    }
}

impl<E: From<DatabaseError>> Aborted<E> {
    /// The caller's error; `doing` says what a failed statement was for.
    pub(crate) fn into_error(self, doing: &'static str) -> E {
        match self {
            Self::Query(error) => DatabaseError::query(doing, error).into(),
            Self::Refused(error) => error,
        }
    }
}
