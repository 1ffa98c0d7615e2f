//! What schedules tell in the log of events.

use diesel::sql_types::{Array, Json, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{Schedule, ScheduleNews};
use serde_json::Value;
use uuid::Uuid;

/// Appends the events; answers with how many.
pub(crate) async fn tell(
    mut conn: &AsyncPgConnection,
    news: &[(&Schedule, ScheduleNews)],
) -> diesel::QueryResult<usize> {
    let (mut projects, mut types, mut subjects, mut data) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (schedule, news) in news {
        projects.push(schedule.project.as_uuid());
        types.push(news.event_type());
        subjects.push(schedule.id.as_uuid());
        data.push(news.data(schedule));
    }
    if types.is_empty() {
        return Ok(0);
    }
    let sql = "INSERT INTO events (project_id, type, subject, data) SELECT * FROM unnest($1, $2, $3, $4)";
    diesel::sql_query(sql)
        .bind::<Array<SqlUuid>, Vec<Uuid>>(projects)
        .bind::<Array<Text>, Vec<&str>>(types)
        .bind::<Array<SqlUuid>, Vec<Uuid>>(subjects)
        .bind::<Array<Json>, Vec<Value>>(data)
        .execute(&mut conn)
        .await
}
