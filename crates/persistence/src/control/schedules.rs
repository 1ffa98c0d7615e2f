//! Schedules: their rows, found, listed, created, deleted.

pub(crate) mod calendars;
pub(crate) mod events;
pub(crate) mod ledger;
pub(crate) mod news;
pub(crate) mod runs;
pub(crate) mod step;

use chrono::{DateTime, Utc};
use diesel::dsl::not;
use diesel::prelude::*;
use diesel::sql_types::Timestamptz;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{
    Agenda, AgendaRange, ControlError, Creation, Found, NewSchedule, OnFailure, PauseReason, Schedule,
    ScheduleNews, ScheduledAction,
};
use gathering_domain::{Digest, Pointer, ProjectId, ScheduleId, UserId};
use gathering_scheduler::{Days, Due, Next, Timetable, Trigger};
use serde_json::Value;
use uuid::Uuid;

use crate::accounts::idempotency::{self, Claim, Kind};
use crate::control::projects::{hidden_projects, is_of_accounts, parse_role};
use crate::db::clock::clock_timestamp;
use crate::db::error::{Aborted, DatabaseError, Refusal, violated};
use crate::db::schema::{project_members, projects, schedules};
use crate::db::stored_json::StoredJson;

/// The schedule, and the role of this account in its project; nothing if the project is not one of accounts.
pub(crate) async fn find_as(
    mut conn: &AsyncPgConnection,
    id: ScheduleId,
    user: UserId,
) -> Result<Option<Found<Schedule>>, DatabaseError> {
    let membership = project_members::project_id
        .eq(schedules::project_id)
        .and(project_members::user_id.eq(user.as_uuid()));
    let row: Option<(Row, Option<String>)> = schedules::table
        .inner_join(projects::table)
        .left_join(project_members::table.on(membership))
        .filter(schedules::id.eq(id.as_uuid()).and(is_of_accounts()))
        .select((Row::as_select(), project_members::role.nullable()))
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for a schedule", error))?;
    row.map(|(row, role)| {
        let membership = role.map(|role| parse_role(&role)).transpose()?;
        Ok(Found { thing: row.try_into()?, membership })
    })
    .transpose()
}

/// At most `limit` schedules, the newest first, of projects that the user is a member of (absent: all) and of this
/// project (absent: any). `before` is the last of the previous page.
pub(crate) async fn list(
    mut conn: &AsyncPgConnection,
    visible_to: Option<UserId>,
    project: Option<ProjectId>,
    before: Option<ScheduleId>,
    limit: usize,
) -> Result<Vec<Schedule>, DatabaseError> {
    let mut query =
        schedules::table.filter(not(schedules::project_id.eq_any(hidden_projects()))).into_boxed();
    if let Some(user) = visible_to {
        query = query.filter(schedules::project_id.eq_any(projects_of(user)));
    }
    if let Some(project) = project {
        query = query.filter(schedules::project_id.eq(project.as_uuid()));
    }
    if let Some(before) = before {
        query = query.filter(schedules::id.lt(before.as_uuid()));
    }
    let rows: Vec<Row> = query
        .order(schedules::id.desc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(Row::as_select())
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing schedules", error))?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The projects that an account is a member of.
#[diesel::dsl::auto_type]
pub(crate) fn projects_of(user: UserId) -> _ {
    let id: Uuid = user.as_uuid();
    project_members::table.filter(project_members::user_id.eq(id)).select(project_members::project_id)
}

/// At most `limit` schedules of the agenda that are not paused and due before its end, the earliest first.
pub(crate) async fn list_due_before(
    mut conn: &AsyncPgConnection,
    agenda: &Agenda,
    limit: usize,
) -> Result<Vec<Schedule>, DatabaseError> {
    let Agenda { visible_to, range: AgendaRange { project, to, .. } } = *agenda;
    let mut query = schedules::table
        .filter(schedules::look_at.is_not_null().and(schedules::next_due_at.lt(to)))
        .filter(not(schedules::project_id.eq_any(hidden_projects())))
        .into_boxed();
    if let Some(user) = visible_to {
        query = query.filter(schedules::project_id.eq_any(projects_of(user)));
    }
    if let Some(project) = project {
        query = query.filter(schedules::project_id.eq(project.as_uuid()));
    }
    let rows: Vec<Row> = query
        .order((schedules::next_due_at, schedules::id))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(Row::as_select())
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing what is due", error))?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Creates a schedule, unless the request's idempotency key says otherwise.
pub(crate) async fn create(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    by: Option<UserId>,
    new: &NewSchedule,
) -> Result<Creation<Schedule>, Aborted<ControlError>> {
    if let Some(user) = by {
        match idempotency::claim(conn, user, Kind::Schedule, new.once.as_ref(), new.id.as_uuid()).await? {
            Claim::Granted => {}
            Claim::CreatedBefore(id) => {
                let earlier: Option<Row> = schedules::table
                    .filter(schedules::id.eq(id).and(schedules::project_id.eq(project.as_uuid())))
                    .select(Row::as_select())
                    .first(&mut conn)
                    .await
                    .optional()?;
                let earlier = earlier.map(Schedule::try_from).transpose().map_err(refused)?;
                return Ok(earlier.map_or(Creation::Deleted, Creation::Repeated));
            }
            Claim::OtherRequest => return Ok(Creation::OtherRequest),
        }
    }
    let now: DateTime<Utc> = diesel::select(clock_timestamp()).get_result(&mut conn).await?;
    let log_end = events::last_taken(conn).await?;
    let schedule = new.of(project, now, log_end).map_err(Aborted::Refused)?;
    let inserted = diesel::insert_into(schedules::table)
        .values((
            schedules::id.eq(schedule.id.as_uuid()),
            schedules::project_id.eq(project.as_uuid()),
            schedules::created_at.eq(now),
            schedules::updated_at.eq(now),
            Written::of(&schedule),
            StoredProgress::of(&schedule),
        ))
        .execute(&mut conn)
        .await;
    inserted.map_err(|error| match violated(&error, Refusal::ForeignKey) {
        Some("schedules_project_id_fkey") => Aborted::Refused(ControlError::NotFound),
        _ => Aborted::Query(error),
    })?;
    news::tell(conn, &[(&schedule, ScheduleNews::Created)]).await?;
    Ok(Creation::Created(schedule))
}

pub(crate) fn refused(error: DatabaseError) -> Aborted<ControlError> {
    Aborted::Refused(error.into())
}

/// Deletes the schedule with its ledger; answers with whether it was there.
pub(crate) async fn delete(mut conn: &AsyncPgConnection, schedule: &Schedule) -> QueryResult<bool> {
    let n_deleted = diesel::delete(schedules::table.find(schedule.id.as_uuid())).execute(&mut conn).await?;
    if n_deleted > 0 {
        news::tell(conn, &[(schedule, ScheduleNews::Deleted)]).await?;
    }
    Ok(n_deleted > 0)
}

/// Has the schedules planned anew whose due times were computed by another version of the time zones.
pub(crate) async fn renew_zone_data(
    mut conn: &AsyncPgConnection,
    version: &str,
) -> Result<usize, DatabaseError> {
    diesel::update(schedules::table)
        .filter(schedules::look_at.is_not_null().and(schedules::zone_data.ne(version)))
        .set(schedules::look_at.eq(diesel::dsl::now.into_sql::<Timestamptz>().nullable()))
        .execute(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("renewing due times", error))
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = schedules)]
pub(crate) struct Row {
    id: Uuid,
    project_id: Uuid,
    name: String,
    #[diesel(deserialize_as = StoredJson)]
    trigger: Value,
    #[diesel(deserialize_as = StoredJson)]
    action: Value,
    action_graph: Option<Vec<u8>>,
    #[diesel(deserialize_as = StoredJson)]
    days: Value,
    calendars: Option<StoredJson>,
    catch_up: String,
    overlap: String,
    jitter_seconds: i32,
    start_at: Option<DateTime<Utc>>,
    end_at: Option<DateTime<Utc>>,
    max_fires: Option<i32>,
    notify: Option<StoredJson>,
    notify_graph: Option<Vec<u8>>,
    pause_after: Option<i32>,
    paused_because: Option<String>,
    passed_at: DateTime<Utc>,
    queued_at: Option<DateTime<Utc>>,
    queued_event: Option<i64>,
    events_after: Option<i64>,
    next_due_at: Option<DateTime<Utc>>,
    next_fire_at: Option<DateTime<Utc>>,
    zone_data: String,
    n_fires: i32,
    n_failures: i32,
    last_fire_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl Row {
    pub(crate) const fn id(&self) -> Uuid {
        self.id
    }
}

impl TryFrom<Row> for Schedule {
    type Error = DatabaseError;

    fn try_from(row: Row) -> Result<Self, DatabaseError> {
        let what = "a schedule";
        let trigger = Trigger::parse(&row.trigger, &Pointer::root())
            .map_err(|error| DatabaseError::corrupt(what, error))?;
        let days = row.days.as_object().cloned().unwrap_or_default();
        let days =
            Days::of_stored(&days, &Pointer::root()).map_err(|error| DatabaseError::corrupt(what, error))?;
        let calendars = calendars::of_stored(row.calendars);
        let word = |error: &'static str| DatabaseError::corrupt(what, error);
        let digest = |stored: Option<Vec<u8>>| {
            let digest = stored.map(|stored| Digest::try_from(&*stored)).transpose();
            digest.map_err(|error| DatabaseError::corrupt(what, error))
        };
        let action = ScheduledAction::of_stored(row.action, digest(row.action_graph)?)
            .map_err(|error| DatabaseError::corrupt(what, error))?;
        let notify = row.notify.map(Value::from).zip(digest(row.notify_graph)?);
        let pause = row.paused_because.as_deref();
        let pause =
            pause.and_then(|word| PauseReason::ALL.into_iter().find(|reason| reason.as_str() == word));
        Ok(Self {
            id: row.id.into(),
            project: row.project_id.into(),
            name: row.name,
            timetable: Timetable {
                trigger,
                days,
                catch_up: row.catch_up.parse().map_err(word)?,
                overlap: row.overlap.parse().map_err(word)?,
                jitter_seconds: count(row.jitter_seconds),
                start_at: row.start_at,
                end_at: row.end_at,
                max_fires: row.max_fires.map(count),
            },
            calendars,
            action,
            on_failure: OnFailure { notify, pause_after: row.pause_after.map(count) },
            pause,
            passed_at: row.passed_at,
            queued: row.queued_at.map(|at| Due { at, event: row.queued_event }),
            events_after: row.events_after,
            next: row.next_due_at.zip(row.next_fire_at).map(|(due_at, fire_at)| Next { due_at, fire_at }),
            zone_data: row.zone_data,
            n_fires: count(row.n_fires),
            n_failures: count(row.n_failures),
            last_fire_at: row.last_fire_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

fn count(stored: i32) -> u32 {
    u32::try_from(stored).unwrap_or_default()
}

fn stored(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// What people write of a schedule.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = schedules, treat_none_as_null = true)]
pub(crate) struct Written {
    name: String,
    trigger: Value,
    action: Value,
    pipeline_id: Option<Uuid>,
    action_graph: Option<Vec<u8>>,
    days: Value,
    calendars: Option<Value>,
    catch_up: &'static str,
    overlap: &'static str,
    jitter_seconds: i32,
    start_at: Option<DateTime<Utc>>,
    end_at: Option<DateTime<Utc>>,
    max_fires: Option<i32>,
    notify: Option<Value>,
    notify_graph: Option<Vec<u8>>,
    pause_after: Option<i32>,
}

impl Written {
    pub(crate) fn of(schedule: &Schedule) -> Self {
        let Schedule { name, timetable, calendars, action, on_failure, .. } = schedule;
        let (notify, notify_graph) = on_failure.notify.clone().unzip();
        let action_graph = match action {
            ScheduledAction::Pipeline { .. } => None,
            ScheduledAction::Node { graph, .. } => Some(graph.as_bytes().to_vec()),
        };
        Self {
            name: name.clone(),
            trigger: timetable.trigger.to_json(),
            action: action.to_json(),
            pipeline_id: action.pipeline().map(|pipeline| pipeline.as_uuid()),
            action_graph,
            days: timetable.days.to_json(),
            calendars: calendars::stored(calendars),
            catch_up: timetable.catch_up.as_str(),
            overlap: timetable.overlap.as_str(),
            jitter_seconds: stored(timetable.jitter_seconds),
            start_at: timetable.start_at,
            end_at: timetable.end_at,
            max_fires: timetable.max_fires.map(stored),
            notify,
            notify_graph: notify_graph.map(|graph| graph.as_bytes().to_vec()),
            pause_after: on_failure.pause_after.map(stored),
        }
    }
}

/// Where a schedule stands.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = schedules, treat_none_as_null = true)]
pub(crate) struct StoredProgress {
    pub(super) paused_because: Option<&'static str>,
    pub(super) passed_at: DateTime<Utc>,
    pub(super) queued_at: Option<DateTime<Utc>>,
    pub(super) queued_event: Option<i64>,
    pub(super) events_after: Option<i64>,
    pub(super) next_due_at: Option<DateTime<Utc>>,
    pub(super) next_fire_at: Option<DateTime<Utc>>,
    pub(super) zone_data: String,
    pub(super) look_at: Option<DateTime<Utc>>,
    pub(super) n_fires: i32,
    pub(super) n_failures: i32,
    pub(super) last_fire_at: Option<DateTime<Utc>>,
}

impl StoredProgress {
    pub(crate) fn of(schedule: &Schedule) -> Self {
        Self {
            paused_because: schedule.pause.map(PauseReason::as_str),
            passed_at: schedule.passed_at,
            queued_at: schedule.queued.map(|due| due.at),
            queued_event: schedule.queued.and_then(|due| due.event),
            events_after: schedule.events_after,
            next_due_at: schedule.next.map(|next| next.due_at),
            next_fire_at: schedule.next.map(|next| next.fire_at),
            zone_data: schedule.zone_data.clone(),
            look_at: schedule.look_at(),
            n_fires: stored(schedule.n_fires),
            n_failures: stored(schedule.n_failures),
            last_fire_at: schedule.last_fire_at,
        }
    }
}
