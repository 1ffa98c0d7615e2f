//! Schedules whose days come from calendars.

use diesel::dsl::not;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{Calendars, Schedule};
use gathering_domain::{ProjectId, ScheduleId};
use gathering_scheduler::DayList;
use serde_json::{Map, Value, json};

use super::{Row, Written};
use crate::control::projects::hidden_projects;
use crate::db::error::DatabaseError;
use crate::db::schema::schedules;
use crate::db::stored_json::StoredJson;

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

/// The calendars of a row; none if nothing is stored.
pub(super) fn of_stored(stored: Option<StoredJson>) -> Calendars {
    let Some(stored) = stored.map(Value::from) else { return Calendars::default() };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let file = |list: DayList| Some((list, text(&stored["files"][list.as_str()])?));
    Calendars {
        files: DayList::ALL.into_iter().filter_map(file).collect(),
        read_at: text(&stored["read_at"]).and_then(|at| at.parse().ok()),
        problem: text(&stored["problem"]),
    }
}

/// As [`of_stored`] reads them.
pub(super) fn stored(calendars: &Calendars) -> Option<Value> {
    let Calendars { files, read_at, problem } = calendars;
    let files: Map<_, _> = files.iter().map(|(list, file)| (list.as_str().to_owned(), json!(file))).collect();
    (!files.is_empty()).then(|| json!({ "files": files, "read_at": read_at, "problem": problem }))
}
