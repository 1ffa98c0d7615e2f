//! The audit record: added to, read, never changed.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_auth::{AuditEvent, AuditKind, Origin};
use gathering_domain::UserId;
use serde_json::Value;
use uuid::Uuid;

use crate::error::DatabaseError;
use crate::pool::Pool;
use crate::schema::audit_events;

/// Which events to list; what is absent does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// About this account.
    pub user: Option<UserId>,
    /// Of this kind.
    pub kind: Option<AuditKind>,
    /// Not before this time (UTC).
    pub from: Option<DateTime<Utc>>,
    /// Before this time (UTC).
    pub to: Option<DateTime<Utc>>,
    /// Older than this one: the last of the page before.
    pub before: Option<Uuid>,
}

/// An audit event as it was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    /// Its id; sorts by time.
    pub id: Uuid,
    /// What happened.
    pub event: AuditEvent,
    /// When, by the database's clock, in UTC.
    pub at: DateTime<Utc>,
}

/// Adds an event; within whatever transaction the connection is in.
pub(crate) async fn insert(mut conn: &AsyncPgConnection, event: &AuditEvent) -> QueryResult<()> {
    diesel::insert_into(audit_events::table)
        .values((
            audit_events::id.eq(Uuid::now_v7()),
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

/// At most `limit` events, the newest first. The id of the last is the next page's `before`.
///
/// # Errors
/// [`DatabaseError::Unavailable`] or [`DatabaseError::Corrupt`].
pub async fn list_audit_events(
    pool: &Pool,
    filter: &AuditFilter,
    limit: usize,
) -> Result<Vec<AuditRow>, DatabaseError> {
    let conn = pool.get().await?;
    let mut query = audit_events::table.into_boxed();
    if let Some(user) = filter.user {
        query = query.filter(audit_events::user_id.eq(user.as_uuid()));
    }
    if let Some(kind) = filter.kind {
        query = query.filter(audit_events::type_.eq(kind.as_str()));
    }
    if let Some(from) = filter.from {
        query = query.filter(audit_events::at.ge(from));
    }
    if let Some(to) = filter.to {
        query = query.filter(audit_events::at.lt(to));
    }
    if let Some(before) = filter.before {
        query = query.filter(audit_events::id.lt(before));
    }
    let rows: Vec<Row> = query
        .order(audit_events::id.desc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(Row::as_select())
        .load(&mut &*conn)
        .await
        .map_err(|error| DatabaseError::query("listing audit events", error))?;
    rows.into_iter().map(AuditRow::try_from).collect()
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

impl TryFrom<Row> for AuditRow {
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
        Ok(Self { id: row.id, event, at: row.at })
    }
}
