//! The audit record: added to, read, never changed.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_auth::{AuditEvent, AuditFilter, AuditKind, AuditRecord, Origin};
use gathering_domain::{AuditEventId, UserId};
use serde_json::Value;
use uuid::Uuid;

use crate::db::error::DatabaseError;
use crate::db::schema::audit_events;

/// How far the clock that made an event's id may be from the database's, which says when the event was: further than
/// any time zone taken for another.
const CLOCK_SLACK: TimeDelta = TimeDelta::hours(24);

/// Adds an event; within whatever transaction the connection is in.
pub(crate) async fn insert(mut conn: &AsyncPgConnection, event: &AuditEvent) -> QueryResult<()> {
    diesel::insert_into(audit_events::table)
        .values((
            audit_events::id.eq(AuditEventId::new().as_uuid()),
            audit_events::user_id.eq(event.user.map(UserId::as_uuid)),
            audit_events::type_.eq(event.kind.as_str()),
            audit_events::address.eq(event.origin.address.map(|address| address.to_string())),
            audit_events::request_id.eq(event.origin.request_id.map(|id| id.as_uuid())),
            audit_events::detail.eq(&event.detail),
        ))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// At most `limit` events, the newest first.
pub(crate) async fn list(
    mut conn: &AsyncPgConnection,
    filter: &AuditFilter,
    limit: usize,
) -> Result<Vec<AuditRecord>, DatabaseError> {
    let rows: Vec<Row> = filtered(filter)
        .order(audit_events::id.desc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(Row::as_select())
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing audit events", error))?;
    rows.into_iter().map(AuditRecord::try_from).collect()
}

/// Every index here ends with the id, so times also bound the id: whatever else is asked for, a page of long ago is
/// found without reading what came after.
fn filtered(filter: &AuditFilter) -> audit_events::BoxedQuery<'static, Pg> {
    let mut query = audit_events::table.into_boxed();
    if let Some(user) = filter.user {
        query = query.filter(audit_events::user_id.eq(user.as_uuid()));
    }
    if let Some(kind) = filter.kind {
        query = query.filter(audit_events::type_.eq(kind.as_str()));
    }
    if let Some(from) = filter.from {
        let from = from.max(DateTime::UNIX_EPOCH);
        query =
            query.filter(audit_events::at.ge(from).and(audit_events::id.ge(id_floor(from - CLOCK_SLACK))));
    }
    if let Some(to) = filter.to {
        let to = to.max(DateTime::UNIX_EPOCH);
        let id = id_floor(to.checked_add_signed(CLOCK_SLACK).unwrap_or(to));
        query = query.filter(audit_events::at.lt(to).and(audit_events::id.lt(id)));
    }
    if let Some(before) = filter.before {
        query = query.filter(audit_events::id.lt(before.as_uuid()));
    }
    query
}

/// The smallest UUIDv7 of a time; of one before 1970 or after 10889 the smallest or greatest of all.
fn id_floor(at: DateTime<Utc>) -> Uuid {
    const LATEST: u64 = (1 << 48) - 1;
    let millis = u64::try_from(at.timestamp_millis()).unwrap_or(0);
    if millis > LATEST {
        Uuid::max()
    } else {
        uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = audit_events)]
struct Row {
    id: Uuid,
    user_id: Option<Uuid>,
    type_: String,
    address: Option<String>,
    request_id: Option<Uuid>,
    detail: Value,
    at: DateTime<Utc>,
}

impl TryFrom<Row> for AuditRecord {
    type Error = DatabaseError;

    fn try_from(row: Row) -> Result<Self, DatabaseError> {
        let kind: AuditKind = row
            .type_
            .parse()
            .map_err(|error: String| DatabaseError::corrupt("the kind of an audit event", error))?;
        let address = row.address.map(|address| address.parse()).transpose().map_err(
            |error: std::net::AddrParseError| DatabaseError::corrupt("the address of an audit event", error),
        )?;
        let origin = Origin { address, request_id: row.request_id.map(Into::into) };
        let event = AuditEvent { kind, user: row.user_id.map(Into::into), origin, detail: row.detail };
        Ok(Self { id: row.id.into(), event, at: row.at })
    }
}
