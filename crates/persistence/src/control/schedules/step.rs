//! Steps of schedules: locked, decided by a rule of `gathering-control`, written, all in one transaction.
//!
//! The schedule is locked first, and what the rule depends on is read by later statements: what the statement saw that
//! waited for the lock may be older. The end of a run locks no schedule, so a step that cancels runs cannot meet it.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::dsl::not;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{
    ControlError, FireRule, LockedSchedule, Schedule, ScheduleStep, ScheduledAction, StepRule,
};
use gathering_domain::ScheduleId;
use gathering_scheduler::Round;
use uuid::Uuid;

use super::{Row, StoredProgress, Written, events, ledger, news, refused, runs};
use crate::control::pipelines::{self, PipelineToLock};
use crate::control::projects::hidden_projects;
use crate::db::clock::clock_timestamp;
use crate::db::error::Aborted;
use crate::db::schema::{projects, schedules};
use crate::runs::transitions::cancel::cancel_runs;
use crate::runs::transitions::wake_ups::WakeUps;

/// A schedule that cannot be read is tried again after this time.
const UNREADABLE: &str = "1 hour";

/// Applies a rule to one schedule; answers with the schedule afterwards.
pub(crate) async fn one(
    mut conn: &AsyncPgConnection,
    id: ScheduleId,
    fired: Option<(DateTime<Utc>, DateTime<Utc>)>,
    is_change: bool,
    rule: &StepRule<'_>,
) -> Result<(Schedule, WakeUps), Aborted<ControlError>> {
    let row: Option<Row> = schedules::table
        .find(id.as_uuid())
        .select(Row::as_select())
        .for_no_key_update()
        .first(&mut conn)
        .await
        .optional()?;
    let row = row.ok_or(Aborted::Refused(ControlError::NotFound))?;
    let schedule = Schedule::try_from(row).map_err(refused)?;
    // After the lock: two steps of a schedule have different times.
    let now: DateTime<Utc> = diesel::select(clock_timestamp()).get_result(&mut conn).await?;
    let (fired, ranges) = match fired {
        Some(range) => ledger::load_fired(conn, id.as_uuid(), range).await?,
        None => Default::default(),
    };
    let log_end = if is_change { events::last_taken(conn).await? } else { 0 };
    let mut locked = with_context(conn, vec![schedule]).await?;
    let Some(locked) = locked.pop() else { return Err(Aborted::Refused(ControlError::NotFound)) };
    let mut step =
        rule(LockedSchedule { fired, ranges, log_end, ..locked }, now).map_err(Aborted::Refused)?;
    if is_change {
        step.schedule.updated_at = now;
        diesel::update(schedules::table.find(id.as_uuid()))
            .set((Written::of(&step.schedule), schedules::updated_at.eq(now)))
            .execute(&mut conn)
            .await?;
    }
    let steps = [step];
    let wake_ups = write(conn, &steps).await?;
    let [step] = steps;
    Ok((step.schedule, wake_ups))
}

/// Applies a rule to at most `limit` schedules that are due, or, if none is, to some of which a run has ended: what is due
/// does not wait for that.
pub(crate) async fn due(
    mut conn: &AsyncPgConnection,
    limit: usize,
    rule: &FireRule<'_>,
) -> Result<(Round, WakeUps), Aborted<ControlError>> {
    let now: DateTime<Utc> = diesel::select(clock_timestamp()).get_result(&mut conn).await?;
    let mut found = lock_due(conn, now, limit).await?;
    let is_due = !found.is_empty();
    if !is_due {
        found = lock_ended(conn, limit).await?;
    }
    let n_found = found.len();
    let locked = with_context(conn, readable(conn, found).await?).await?;
    let n_locked = locked.len();
    let steps: Vec<_> = locked.into_iter().filter_map(|locked| rule(locked, now)).collect();
    let wake_ups = write(conn, &steps).await?;
    // What was due comes first; the next round asks for the rest, and when more is due.
    let next_in = if is_due { Some(Duration::ZERO) } else { next_in(conn).await? };
    // Those that the rule left for another round are due still.
    let is_full = is_due || n_found >= limit || steps.len() < n_locked;
    Ok((Round { n_schedules: steps.len(), is_full, next_in }, wake_ups))
}

/// Locks schedules whose time has come.
async fn lock_due(mut conn: &AsyncPgConnection, now: DateTime<Utc>, limit: usize) -> QueryResult<Vec<Row>> {
    schedules::table
        .filter(schedules::look_at.le(now).and(not(schedules::project_id.eq_any(hidden_projects()))))
        .order(schedules::look_at)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(Row::as_select())
        .for_no_key_update()
        .skip_locked()
        .load(&mut conn)
        .await
}

/// Locks schedules of which a run has ended.
async fn lock_ended(mut conn: &AsyncPgConnection, limit: usize) -> QueryResult<Vec<Row>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let ended: Vec<Ended> = diesel::sql_query(ENDED).bind::<BigInt, _>(limit).load(&mut conn).await?;
    if ended.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = ended.into_iter().map(|ended| ended.schedule_id).collect();
    schedules::table
        .filter(schedules::id.eq_any(ids).and(not(schedules::project_id.eq_any(hidden_projects()))))
        .select(Row::as_select())
        .for_no_key_update()
        .skip_locked()
        .load(&mut conn)
        .await
}

/// The schedules of these rows. One that cannot be read is logged, and tried again later: it must not keep the others from
/// firing.
pub(super) async fn readable(conn: &AsyncPgConnection, rows: Vec<Row>) -> QueryResult<Vec<Schedule>> {
    let mut readable = Vec::with_capacity(rows.len());
    for row in rows {
        let id = row.id();
        match Schedule::try_from(row) {
            Ok(schedule) => readable.push(schedule),
            Err(error) => {
                tracing::error!(schedule.id = %id, error = %error, "schedule {id} cannot be read: {error}");
                postpone(conn, id).await?;
            }
        }
    }
    Ok(readable)
}

/// Schedules with a fire whose run has ended, or is gone, and whose entry does not say so yet.
const ENDED: &str = "
    SELECT DISTINCT fires.schedule_id FROM (
        SELECT schedule_id, run_id FROM schedule_fires WHERE run_id IS NOT NULL AND run_state IS NULL
    ) AS fires LEFT JOIN runs ON runs.id = fires.run_id
    WHERE runs.ended_at IS NOT NULL OR runs.id IS NULL LIMIT $1";

#[derive(QueryableByName)]
struct Ended {
    #[diesel(sql_type = SqlUuid)]
    schedule_id: Uuid,
}

async fn postpone(mut conn: &AsyncPgConnection, id: Uuid) -> QueryResult<()> {
    let sql = "UPDATE schedules SET look_at = now() + $2::interval WHERE id = $1 AND look_at IS NOT NULL";
    diesel::sql_query(sql)
        .bind::<SqlUuid, _>(id)
        .bind::<Text, _>(UNREADABLE)
        .execute(&mut conn)
        .await
        .map(|_| ())
}

/// Adds what the rules depend on. Projects and pipelines are kept from being hidden until the runs are there to be seen;
/// schedules of hidden projects are left out.
pub(super) async fn with_context(
    mut conn: &AsyncPgConnection,
    found: Vec<Schedule>,
) -> Result<Vec<LockedSchedule>, Aborted<ControlError>> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = found.iter().map(|schedule| schedule.id.as_uuid()).collect();
    let of: HashSet<Uuid> = found.iter().map(|schedule| schedule.project.as_uuid()).collect();
    let visible: HashSet<Uuid> = projects::table
        .filter(projects::id.eq_any(of).and(projects::deleting_at.is_null()))
        .order(projects::id)
        .select(projects::id)
        .for_key_share()
        .load(&mut conn)
        .await?
        .into_iter()
        .collect();
    let wanted: HashSet<PipelineToLock> = found.iter().filter_map(pipeline_to_lock).collect();
    let pipelines = pipelines::lock_for_start(conn, wanted).await.map_err(refused)?;
    let rules = pipelines::load_run_rules(conn, found.iter().filter_map(own_graph)).await?;
    let mut open = ledger::load_open(conn, &ids).await?;
    let queued: Vec<i64> = found.iter().filter_map(|schedule| schedule.queued?.event).collect();
    let queued = events::load_causes(conn, &queued).await?;
    let locked = found.into_iter().filter(|schedule| visible.contains(&schedule.project.as_uuid()));
    let locked = locked.map(|schedule| {
        let pipeline = pipeline_to_lock(&schedule).and_then(|wanted| pipelines.get(&wanted));
        LockedSchedule {
            open: open.remove(&schedule.id.as_uuid()).unwrap_or_default(),
            pipeline: pipeline.cloned(),
            action_timeout: own_graph(&schedule).and_then(|graph| rules.get(&graph)?.timeout),
            queued_cause: schedule.queued.and_then(|due| queued.get(&due.event?).cloned()),
            causes: Vec::new(),
            log_end: 0,
            fired: BTreeSet::new(),
            ranges: Vec::new(),
            schedule,
        }
    });
    Ok(locked.collect())
}

fn pipeline_to_lock(schedule: &Schedule) -> Option<PipelineToLock> {
    match &schedule.action {
        ScheduledAction::Pipeline { pipeline, version, .. } => {
            Some(PipelineToLock { pipeline: *pipeline, version: *version })
        }
        ScheduledAction::Node { .. } => None,
    }
}

const fn own_graph(schedule: &Schedule) -> Option<gathering_domain::Digest> {
    match &schedule.action {
        ScheduledAction::Pipeline { .. } => None,
        ScheduledAction::Node { graph, .. } => Some(*graph),
    }
}

/// Writes steps: the ledger first, as only what it takes is started.
pub(super) async fn write(
    conn: &AsyncPgConnection,
    steps: &[ScheduleStep],
) -> Result<WakeUps, Aborted<ControlError>> {
    let mut wake_ups = WakeUps::default();
    if steps.is_empty() {
        return Ok(wake_ups);
    }
    ledger::settle(conn, steps).await?;
    let entered = ledger::enter(conn, steps).await?;
    if runs::accept(conn, steps, &entered).await? > 0 {
        wake_ups.add_claimable();
    }
    stand(conn, steps).await?;
    let mut told = Vec::new();
    for step in steps {
        told.extend(step.news.iter().map(|news| (&step.schedule, *news)));
    }
    if news::tell(conn, &told).await? > 0 {
        wake_ups.add_event();
    }
    let cancelled: Vec<Uuid> =
        steps.iter().flat_map(|step| step.cancelled.iter().map(|run| run.as_uuid())).collect();
    if !cancelled.is_empty() {
        wake_ups.extend(cancel_runs(conn, &cancelled).await?);
    }
    Ok(wake_ups)
}

/// Writes where the schedules of these steps stand.
async fn stand(mut conn: &AsyncPgConnection, steps: &[ScheduleStep]) -> QueryResult<()> {
    let standings: Vec<StoredProgress> =
        steps.iter().map(|step| StoredProgress::of(&step.schedule)).collect();
    let ids: Vec<Uuid> = steps.iter().map(|step| step.schedule.id.as_uuid()).collect();
    let column =
        |get: fn(&StoredProgress) -> Option<DateTime<Utc>>| standings.iter().map(get).collect::<Vec<_>>();
    let sql = "
        UPDATE schedules SET paused_because = stands.paused_because, passed_at = stands.passed_at,
            queued_at = stands.queued_at, next_due_at = stands.next_due_at, next_fire_at = stands.next_fire_at,
            look_at = stands.look_at, zone_data = stands.zone_data, n_fires = stands.n_fires, n_failures = stands.n_failures,
            last_fire_at = stands.last_fire_at, queued_event = stands.queued_event, events_after = stands.events_after
        FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS stands (id, paused_because, passed_at,
            queued_at, next_due_at, next_fire_at, look_at, n_fires, n_failures, last_fire_at, zone_data, queued_event,
            events_after)
        WHERE schedules.id = stands.id";
    diesel::sql_query(sql)
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Array<Nullable<Text>>, _>(standings.iter().map(|one| one.paused_because).collect::<Vec<_>>())
        .bind::<Array<Timestamptz>, _>(standings.iter().map(|one| one.passed_at).collect::<Vec<_>>())
        .bind::<Array<Nullable<Timestamptz>>, _>(column(|one| one.queued_at))
        .bind::<Array<Nullable<Timestamptz>>, _>(column(|one| one.next_due_at))
        .bind::<Array<Nullable<Timestamptz>>, _>(column(|one| one.next_fire_at))
        .bind::<Array<Nullable<Timestamptz>>, _>(column(|one| one.look_at))
        .bind::<Array<Integer>, _>(standings.iter().map(|one| one.n_fires).collect::<Vec<_>>())
        .bind::<Array<Integer>, _>(standings.iter().map(|one| one.n_failures).collect::<Vec<_>>())
        .bind::<Array<Nullable<Timestamptz>>, _>(column(|one| one.last_fire_at))
        .bind::<Array<Text>, _>(standings.iter().map(|one| one.zone_data.as_str()).collect::<Vec<_>>())
        .bind::<Array<Nullable<BigInt>>, _>(standings.iter().map(|one| one.queued_event).collect::<Vec<_>>())
        .bind::<Array<Nullable<BigInt>>, _>(standings.iter().map(|one| one.events_after).collect::<Vec<_>>())
        .execute(&mut conn)
        .await
        .map(|_n_rows| ())
}

/// How long until a schedule is due. Those of hidden projects never are.
async fn next_in(mut conn: &AsyncPgConnection) -> Result<Option<Duration>, Aborted<ControlError>> {
    let next: Option<(Option<DateTime<Utc>>, DateTime<Utc>)> = schedules::table
        .filter(schedules::look_at.is_not_null().and(not(schedules::project_id.eq_any(hidden_projects()))))
        .order(schedules::look_at)
        .select((schedules::look_at, clock_timestamp()))
        .first(&mut conn)
        .await
        .optional()?;
    let next = next.and_then(|(look_at, now)| Some((look_at? - now).to_std().unwrap_or(Duration::ZERO)));
    Ok(next)
}
