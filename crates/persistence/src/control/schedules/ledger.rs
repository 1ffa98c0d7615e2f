//! The ledger of due times.

use std::collections::{BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use diesel::dsl::not;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{Agenda, AgendaFire, AgendaRange, Fire, OpenFire, ScheduleStep};
use gathering_domain::{RunState, ScheduleId};
use gathering_scheduler::Due;
use uuid::Uuid;

use super::projects_of;
use crate::control::projects::hidden_projects;
use crate::db::all_runs::all_runs;
use crate::db::batches::delete_before;
use crate::db::error::DatabaseError;
use crate::db::pool::Pool;
use crate::db::schema::{schedule_fires, schedules};

/// An entry for no event.
const NO_EVENT: i64 = 0;

fn due_of(at: DateTime<Utc>, event_seq: i64) -> Due {
    Due { at, event: (event_seq != NO_EVENT).then_some(event_seq) }
}

/// At most `limit` entries, the latest first, before `before`.
pub(crate) async fn list(
    mut conn: &AsyncPgConnection,
    schedule: ScheduleId,
    before: Option<Due>,
    limit: usize,
) -> Result<Vec<Fire>, DatabaseError> {
    let mut query = schedule_fires::table
        .left_join(all_runs::table.on(schedule_fires::run_id.eq(all_runs::id.nullable())))
        .filter(schedule_fires::schedule_id.eq(schedule.as_uuid()))
        .into_boxed();
    if let Some(before) = before {
        let is_earlier = schedule_fires::due_at.lt(before.at);
        let is_of_that_moment = schedule_fires::due_at.eq(before.at);
        let is_before = schedule_fires::event_seq.lt(before.event.unwrap_or(NO_EVENT));
        // The first condition is one that the index can use.
        query = query
            .filter(schedule_fires::due_at.le(before.at))
            .filter(is_earlier.or(is_of_that_moment.and(is_before)));
    }
    let rows: Vec<(Row, Option<String>)> = query
        .order((schedule_fires::due_at.desc(), schedule_fires::event_seq.desc()))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((Row::as_select(), all_runs::state.nullable()))
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing the fires of a schedule", error))?;
    rows.into_iter().map(|(row, state)| row.shown(state)).collect()
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = schedule_fires)]
struct Row {
    due_at: DateTime<Utc>,
    event_seq: i64,
    until: Option<DateTime<Utc>>,
    outcome: String,
    reason: Option<String>,
    run_id: Option<Uuid>,
    run_state: Option<String>,
    fired_at: Option<DateTime<Utc>>,
}

impl Row {
    /// The run itself knows its state first; the ledger knows it longer.
    fn shown(self, of_run: Option<String>) -> Result<Fire, DatabaseError> {
        let state = of_run.or(self.run_state).map(|state| state.parse::<RunState>()).transpose();
        Ok(Fire {
            due_at: self.due_at,
            event: due_of(self.due_at, self.event_seq).event,
            until: self.until,
            outcome: self.outcome,
            reason: self.reason,
            run: self.run_id.map(Into::into),
            run_state: state.map_err(|error| DatabaseError::corrupt("the state of a run", error))?,
            fired_at: self.fired_at,
        })
    }
}

/// At most `limit` entries of all schedules of the agenda, the latest first.
pub(crate) async fn list_all(
    mut conn: &AsyncPgConnection,
    agenda: &Agenda,
    limit: usize,
) -> Result<Vec<AgendaFire>, DatabaseError> {
    let Agenda { visible_to, range: AgendaRange { project, from, to } } = *agenda;
    let mut query = schedule_fires::table
        .inner_join(schedules::table)
        .left_join(all_runs::table.on(schedule_fires::run_id.eq(all_runs::id.nullable())))
        .filter(schedule_fires::due_at.ge(from).and(schedule_fires::due_at.lt(to)))
        .filter(not(schedules::project_id.eq_any(hidden_projects())))
        .into_boxed();
    if let Some(user) = visible_to {
        query = query.filter(schedules::project_id.eq_any(projects_of(user)));
    }
    if let Some(project) = project {
        query = query.filter(schedules::project_id.eq(project.as_uuid()));
    }
    let rows: Vec<(Uuid, String, Row, Option<String>)> = query
        .order((schedule_fires::due_at.desc(), schedule_fires::event_seq.desc(), schedules::id.desc()))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((schedules::id, schedules::name, Row::as_select(), all_runs::state.nullable()))
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing the fires of all schedules", error))?;
    let item = |(id, name, row, state): (Uuid, _, Row, _)| {
        Ok(AgendaFire { schedule: id.into(), name, fire: row.shown(state)? })
    };
    rows.into_iter().map(item).collect()
}

/// Schedule, due time, event, run and the state of the run.
type OpenRow = (Uuid, DateTime<Utc>, i64, Option<Uuid>, Option<String>);

/// The fires of these schedules whose runs were not known to have ended.
pub(crate) async fn load_open(
    mut conn: &AsyncPgConnection,
    schedules: &[Uuid],
) -> QueryResult<HashMap<Uuid, Vec<OpenFire>>> {
    let rows: Vec<OpenRow> = schedule_fires::table
        .left_join(all_runs::table.on(schedule_fires::run_id.eq(all_runs::id.nullable())))
        .filter(schedule_fires::schedule_id.eq_any(schedules))
        .filter(schedule_fires::run_id.is_not_null().and(schedule_fires::run_state.is_null()))
        .order((schedule_fires::due_at, schedule_fires::event_seq))
        .select((
            schedule_fires::schedule_id,
            schedule_fires::due_at,
            schedule_fires::event_seq,
            schedule_fires::run_id,
            all_runs::state.nullable(),
        ))
        .load(&mut conn)
        .await?;
    let mut open: HashMap<Uuid, Vec<OpenFire>> = HashMap::new();
    for (schedule, due_at, event_seq, run, state) in rows {
        let Some(run) = run else { continue };
        let state = state.and_then(|state| state.parse().ok());
        open.entry(schedule).or_default().push(OpenFire {
            due: due_of(due_at, event_seq),
            run: run.into(),
            state,
        });
    }
    Ok(open)
}

/// The due times of a schedule between these two that have fired, or wait to; and the entries that each stand for many.
pub(crate) async fn load_fired(
    mut conn: &AsyncPgConnection,
    schedule: Uuid,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> QueryResult<(BTreeSet<DateTime<Utc>>, Vec<(DateTime<Utc>, DateTime<Utc>)>)> {
    let entries: Vec<(DateTime<Utc>, Option<DateTime<Utc>>)> = schedule_fires::table
        .filter(schedule_fires::schedule_id.eq(schedule).and(schedule_fires::due_at.between(from, to)))
        .filter(schedule_fires::outcome.ne("skipped").or(schedule_fires::until.is_not_null()))
        .select((schedule_fires::due_at, schedule_fires::until))
        .load(&mut conn)
        .await?;
    let fired = entries.iter().filter(|(_, until)| until.is_none()).map(|(due_at, _)| *due_at).collect();
    let ranges = entries.iter().filter_map(|(first, until)| Some((*first, (*until)?))).collect();
    Ok((fired, ranges))
}

/// An entry replaces that of a due time that has not fired, and never that of one that has (I6).
const ENTER: &str = "
    INSERT INTO schedule_fires AS fires (schedule_id, due_at, event_seq, until, outcome, reason, run_id, fired_at)
    SELECT schedule_id, due_at, event_seq, until, outcome, reason, run_id,
        CASE WHEN run_id IS NOT NULL THEN clock_timestamp() END
    FROM unnest($1, $2, $3, $4, $5, $6, $7)
        AS entry (schedule_id, due_at, event_seq, until, outcome, reason, run_id)
    ON CONFLICT (schedule_id, due_at, event_seq) DO UPDATE SET until = excluded.until, outcome = excluded.outcome,
        reason = excluded.reason, run_id = excluded.run_id, fired_at = excluded.fired_at
    WHERE fires.run_id IS NULL AND (excluded.run_id IS NOT NULL OR fires.outcome = 'queued')
    RETURNING run_id";

#[derive(QueryableByName)]
struct Entered {
    #[diesel(sql_type = Nullable<SqlUuid>)]
    run_id: Option<Uuid>,
}

/// Writes the entries of these steps; answers with the runs that are in the ledger now, and so are to be accepted.
pub(crate) async fn enter(
    mut conn: &AsyncPgConnection,
    steps: &[ScheduleStep],
) -> QueryResult<HashSet<Uuid>> {
    let of_steps = || steps.iter().flat_map(|step| step.entries.iter().map(move |entry| (step, entry)));
    if of_steps().next().is_none() {
        return Ok(HashSet::new());
    }
    let ids: Vec<Uuid> = of_steps().map(|(step, _)| step.schedule.id.as_uuid()).collect();
    let due: Vec<DateTime<Utc>> = of_steps().map(|(_, entered)| entered.entry.due.at).collect();
    let events: Vec<i64> =
        of_steps().map(|(_, entered)| entered.entry.due.event.unwrap_or(NO_EVENT)).collect();
    let until: Vec<Option<DateTime<Utc>>> = of_steps().map(|(_, entered)| entered.entry.until).collect();
    let outcomes: Vec<&str> = of_steps().map(|(_, entered)| entered.entry.outcome.as_str()).collect();
    let reason = |entered: &gathering_control::LedgerEntry| entered.entry.outcome.reason();
    let reasons: Vec<Option<&str>> =
        of_steps().map(|(_, entered)| reason(entered).map(|reason| reason.as_str())).collect();
    let runs: Vec<Option<Uuid>> =
        of_steps().map(|(_, entered)| entered.run.as_ref().map(|run| run.id.as_uuid())).collect();
    let entered: Vec<Entered> = diesel::sql_query(ENTER)
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Array<Timestamptz>, _>(due)
        .bind::<Array<BigInt>, _>(events)
        .bind::<Array<Nullable<Timestamptz>>, _>(until)
        .bind::<Array<Text>, _>(outcomes)
        .bind::<Array<Nullable<Text>>, _>(reasons)
        .bind::<Array<Nullable<SqlUuid>>, _>(runs)
        .load(&mut conn)
        .await?;
    Ok(entered.into_iter().filter_map(|entered| entered.run_id).collect())
}

/// Writes how the runs ended that these steps know of.
pub(crate) async fn settle(mut conn: &AsyncPgConnection, steps: &[ScheduleStep]) -> QueryResult<()> {
    let of_steps = || steps.iter().flat_map(|step| step.settled.iter().map(move |settled| (step, settled)));
    if of_steps().next().is_none() {
        return Ok(());
    }
    let ids: Vec<Uuid> = of_steps().map(|(step, _)| step.schedule.id.as_uuid()).collect();
    let due: Vec<DateTime<Utc>> = of_steps().map(|(_, (due, _))| due.at).collect();
    let events: Vec<i64> = of_steps().map(|(_, (due, _))| due.event.unwrap_or(NO_EVENT)).collect();
    let states: Vec<&str> = of_steps().map(|(_, (_, state))| state.as_str()).collect();
    let sql = "
        UPDATE schedule_fires SET run_state = settled.state
        FROM unnest($1, $2, $3, $4) AS settled (schedule_id, due_at, event_seq, state)
        WHERE schedule_fires.schedule_id = settled.schedule_id AND schedule_fires.due_at = settled.due_at
            AND schedule_fires.event_seq = settled.event_seq";
    diesel::sql_query(sql)
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Array<Timestamptz>, _>(due)
        .bind::<Array<BigInt>, _>(events)
        .bind::<Array<Text>, _>(states)
        .execute(&mut conn)
        .await
        .map(|_n_rows| ())
}

/// Deletes at most `limit` entries of the schedules of a project; answers with how many.
pub(crate) async fn delete_some_of_project(
    mut conn: &AsyncPgConnection,
    project: Uuid,
    limit: i64,
) -> QueryResult<usize> {
    let sql = "
        DELETE FROM schedule_fires WHERE ctid = ANY (ARRAY(
            SELECT fires.ctid FROM schedule_fires AS fires JOIN schedules ON schedules.id = fires.schedule_id
            WHERE schedules.project_id = $1 LIMIT $2))";
    diesel::sql_query(sql).bind::<SqlUuid, _>(project).bind::<BigInt, _>(limit).execute(&mut conn).await
}

/// Deletes the entries of due times before `before`, in batches; answers with how many. What waits, and what runs, stays.
///
/// Repeats: safe, also on several instances at once. Cancel: safe.
///
/// # Errors
/// [`DatabaseError::Unavailable`], [`DatabaseError::TimedOut`] or [`DatabaseError::Fault`]; repeating goes on from there.
pub async fn prune_schedule_fires(pool: &Pool, before: DateTime<Utc>) -> Result<usize, DatabaseError> {
    let sql = "
        DELETE FROM schedule_fires WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM schedule_fires
            WHERE due_at < $1 AND (run_id IS NULL OR run_state IS NOT NULL) AND outcome <> 'queued'
            LIMIT $2 FOR UPDATE SKIP LOCKED))";
    delete_before(pool, "deleting old fires of schedules", sql, before).await
}
