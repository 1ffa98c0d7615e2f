//! Schedules whose days come from calendars.

use std::collections::BTreeMap;

use diesel::dsl::not;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{Calendars, Schedule};
use gathering_domain::{ProjectId, ScheduleId};
use gathering_scheduler::DayList;
use serde_json::Value;

use super::{Row, Written};
use crate::control::projects::hidden_projects;
use crate::db::error::DatabaseError;
use crate::db::schema::schedules;

/// At most `limit` schedules whose days come from files, by id, after this one: those of this project (absent: of any). One
/// that cannot be read is logged and left out.
pub(crate) async fn list(
    mut conn: &AsyncPgConnection,
    project: Option<ProjectId>,
    after: Option<ScheduleId>,
    limit: usize,
) -> Result<Vec<Schedule>, DatabaseError> {
    let mut query = schedules::table
        .filter(schedules::calendars.is_not_null())
        .filter(not(schedules::project_id.eq_any(hidden_projects())))
        .into_boxed();
    if let Some(project) = project {
        query = query.filter(schedules::project_id.eq(project.as_uuid()));
    }
    if let Some(after) = after {
        query = query.filter(schedules::id.gt(after.as_uuid()));
    }
    let rows: Vec<Row> = query
        .order(schedules::id)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(Row::as_select())
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing schedules with calendars", error))?;
    let readable = |row: Row| {
        let id = row.id();
        let log = |error: &DatabaseError| {
            tracing::error!(schedule.id = %id, error = %error, "schedule {id} cannot be read: {error}");
        };
        Schedule::try_from(row).inspect_err(log).ok()
    };
    Ok(rows.into_iter().filter_map(readable).collect())
}

/// Writes what people write of a schedule, where the server itself has changed that.
pub(crate) async fn rewrite(mut conn: &AsyncPgConnection, schedule: &Schedule) -> QueryResult<()> {
    diesel::update(schedules::table.find(schedule.id.as_uuid()))
        .set(Written::of(schedule))
        .execute(&mut conn)
        .await
        .map(|_n_rows| ())
}

/// The files by their list.
pub(super) fn files_of(stored: Option<Value>) -> BTreeMap<DayList, String> {
    let file = |list: DayList| Some((list, stored.as_ref()?.get(list.as_str())?.as_str()?.to_owned()));
    DayList::ALL.into_iter().filter_map(file).collect()
}

/// As [`files_of`] reads them.
pub(super) fn stored(calendars: &Calendars) -> Option<Value> {
    let files = calendars.files.iter().map(|(list, file)| (list.as_str(), file.as_str()));
    (!calendars.files.is_empty()).then(|| files.collect())
}
