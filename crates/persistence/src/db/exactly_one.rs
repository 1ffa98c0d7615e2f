//! The single row that a writing statement returns.

use diesel::QueryResult;

/// The only row, or `NotFound`. For what writes outside of a transaction, instead of `get_result`, which is content with the
/// row itself: PostgreSQL makes it before it commits, and a server that is shut down at once sends what it has, so the row
/// may be there and the commit not. All results are there only after the commit.
pub(crate) fn exactly_one<T>(rows: Vec<T>) -> QueryResult<T> {
    rows.into_iter().next().ok_or(diesel::result::Error::NotFound)
}
