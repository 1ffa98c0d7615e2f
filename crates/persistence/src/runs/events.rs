//! The log of what matters outside a run: written by the transaction that causes it, read in order.

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl;
use gathering_domain::{ProjectId, UserId};
use serde_json::Value;
use uuid::Uuid;

use crate::cluster::wake::{Wake, WakeBus};
use crate::db::error::DatabaseError;
use crate::db::exactly_one::exactly_one;
use crate::db::pool::Pool;
use crate::db::schema::{events, project_members, projects};

/// Which events to read; an absent field does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of projects that this user is a member of.
    pub visible_to: Option<UserId>,
    /// Of this project.
    pub project: Option<ProjectId>,
    /// Of this type.
    pub event_type: Option<String>,
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    /// Its place in the log; places grow, with gaps.
    pub seq: i64,
    /// The project; absent if the event is of the whole installation.
    pub project: Option<ProjectId>,
    /// What happened, such as `run.succeeded`.
    pub event_type: String,
    /// The run, schedule, task or user that it is about.
    pub subject: Option<Uuid>,
    /// Its data.
    pub data: Value,
    /// When it was written, by the database's clock, in UTC.
    pub at: DateTime<Utc>,
}

/// The events of all projects. Cloning is cheap and shares the pool.
#[derive(Debug, Clone)]
pub struct Events {
    pool: Pool,
    wakes: WakeBus,
}

impl Events {
    /// The events in the database of `pool`; `wakes` wakes their readers.
    pub const fn new(pool: Pool, wakes: WakeBus) -> Self {
        Self { pool, wakes }
    }

    /// Writes an event in a transaction of its own. Answers with its place.
    ///
    /// # Errors
    /// [`DatabaseError::Missing`] if the project does not exist. [`DatabaseError::Unavailable`]: it may or may not be
    /// written.
    pub async fn append(
        &self,
        project: Option<ProjectId>,
        event_type: &str,
        data: &Value,
    ) -> Result<i64, DatabaseError> {
        let conn = self.pool.get().await?;
        let failed = |error| DatabaseError::query("writing an event", error);
        if let Some(project) = project {
            let exists = diesel::select(diesel::dsl::exists(projects::table.find(project.as_uuid())));
            if !exists.get_result::<bool>(&mut &*conn).await.map_err(failed)? {
                return Err(DatabaseError::Missing { what: "the project" });
            }
        }
        let seq = diesel::insert_into(events::table)
            .values((
                events::project_id.eq(project.map(ProjectId::as_uuid)),
                events::type_.eq(event_type),
                events::data.eq(data),
            ))
            .returning(events::seq)
            .get_results(&mut &*conn)
            .await
            .and_then(exactly_one)
            .map_err(failed)?;
        self.wakes.wake(Wake::Events);
        Ok(seq)
    }

    /// At most `limit` events after `after`, in order.
    ///
    /// No event is skipped: while an open transaction may still write an earlier event, later ones are held back.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`].
    pub async fn list(
        &self,
        filter: &EventFilter,
        after: i64,
        limit: usize,
    ) -> Result<Vec<EventRow>, DatabaseError> {
        let conn = self.pool.get().await?;
        let settled = events::xact.lt(sql::<BigInt>("pg_snapshot_xmin(pg_current_snapshot())::text::bigint"));
        let mut query = events::table.filter(events::seq.gt(after).and(settled)).into_boxed();
        if let Some(user) = filter.visible_to {
            let own = project_members::table
                .filter(project_members::user_id.eq(user.as_uuid()))
                .select(project_members::project_id.nullable());
            query = query.filter(events::project_id.eq_any(own));
        }
        if let Some(project) = filter.project {
            query = query.filter(events::project_id.eq(project.as_uuid()));
        }
        if let Some(event_type) = &filter.event_type {
            query = query.filter(events::type_.eq(event_type));
        }
        let rows: Vec<Row> = query
            .order(events::seq)
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .select(Row::as_select())
            .load(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("reading events", error))?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// The place of the last event that can be read, or 0. A reader that wants new events only begins here.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`].
    pub async fn last_seq(&self) -> Result<i64, DatabaseError> {
        let conn = self.pool.get().await?;
        let last: Option<i64> = events::table
            .filter(events::xact.lt(sql::<BigInt>("pg_snapshot_xmin(pg_current_snapshot())::text::bigint")))
            .order(events::seq.desc())
            .select(events::seq)
            .first(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("reading events", error))?;
        Ok(last.unwrap_or(0))
    }

    /// Deletes at most 10,000 events that are older than `before` (UTC). Answers with how many there were.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`]; none was deleted.
    pub async fn delete_before(&self, before: DateTime<Utc>) -> Result<usize, DatabaseError> {
        let conn = self.pool.get().await?;
        let failed = |error| DatabaseError::query("deleting old events", error);
        let old: Vec<i64> = events::table
            .filter(events::at.lt(before))
            .order(events::at)
            .limit(10_000)
            .select(events::seq)
            .load(&mut &*conn)
            .await
            .map_err(failed)?;
        diesel::delete(events::table.filter(events::seq.eq_any(old)))
            .execute(&mut &*conn)
            .await
            .map_err(failed)
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = events)]
struct Row {
    seq: i64,
    project_id: Option<Uuid>,
    type_: String,
    subject: Option<Uuid>,
    data: Value,
    at: DateTime<Utc>,
}

impl From<Row> for EventRow {
    fn from(row: Row) -> Self {
        Self {
            seq: row.seq,
            project: row.project_id.map(Into::into),
            event_type: row.type_,
            subject: row.subject,
            data: row.data,
            at: row.at,
        }
    }
}
