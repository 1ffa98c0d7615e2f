//! Stored JSON values: one that cannot be read affects nothing but itself.

use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::pg::{Pg, PgValue};
use diesel::sql_types::Json;
use serde_json::{Value, json};

/// A stored value, or why it cannot be read: it is nested deeper than a parser follows.
#[derive(Debug, FromSqlRow)]
pub(crate) struct StoredJson(pub(crate) Result<Value, serde_json::Error>);

impl FromSql<Json, Pg> for StoredJson {
    fn from_sql(stored: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(serde_json::from_slice(stored.as_bytes())))
    }
}

/// For callers that only show it.
impl From<StoredJson> for Value {
    fn from(stored: StoredJson) -> Self {
        stored.0.unwrap_or_else(|error| json!({ "unreadable": error.to_string() }))
    }
}
