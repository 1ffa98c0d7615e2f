//! A row of the log.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use gathering_control::LoggedEvent;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::db::schema::events;
use crate::db::stored_json::StoredJson;

/// The attribute that has the subject of a posted event: the column has room for ids only.
pub(super) const SUBJECT: &str = "subject";

#[derive(Queryable, Selectable)]
#[diesel(table_name = events)]
pub(crate) struct Row {
    seq: i64,
    project_id: Option<Uuid>,
    type_: String,
    id: Option<Uuid>,
    key: Option<String>,
    source: Option<String>,
    subject: Option<Uuid>,
    attributes: Option<StoredJson>,
    data: StoredJson,
    at: DateTime<Utc>,
}

impl From<Row> for LoggedEvent {
    fn from(row: Row) -> Self {
        let mut attributes = match row.attributes.map(Value::from) {
            Some(Value::Object(attributes)) => attributes,
            _ => Map::new(),
        };
        let posted = attributes.remove(SUBJECT).and_then(|subject| subject.as_str().map(str::to_owned));
        Self {
            seq: row.seq,
            project: row.project_id.map(Into::into),
            event_type: row.type_,
            id: row.id,
            key: row.key,
            source: row.source,
            subject: posted.or_else(|| row.subject.map(|id| id.to_string())),
            attributes,
            data: row.data.into(),
            at: row.at,
        }
    }
}
