//! Firing schedules for the events of the log: one transaction reads a part of it, writes the steps of the schedules that
//! it concerns, and how far it came.
//!
//! The events are read before the schedules: one that was posted after a schedule was created meets it.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use diesel::dsl::{max, min, not};
use diesel::prelude::*;
use diesel::sql_types::{Array, Json, Nullable, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{
    Cause, ControlError, EventRule, EventSeq, LockedSchedule, LoggedEvent, MAX_CAUSES, MatchRound, Schedule,
};
use gathering_domain::ScheduleId;
use serde_json::Value;
use uuid::Uuid;

use super::{Row, step};
use crate::control::projects::hidden_projects;
use crate::db::clock::clock_timestamp;
use crate::db::error::{Aborted, DatabaseError};
use crate::db::schema::{event_matching, events, schedules};
use crate::events::EventRow;
use crate::runs::transitions::wake_ups::WakeUps;

/// The events of the server about runs, whose subject is the run.
const OF_RUNS: &str = "run.";

/// A part of the log.
pub(crate) struct LogPart {
    /// No schedule fires for an event up to here.
    pub(crate) since: EventSeq,
    /// The log is settled up to here.
    pub(crate) until: EventSeq,
    /// Retention may have deleted events up to here.
    pub(crate) pruned_until: EventSeq,
    /// How many events are read at once.
    pub(crate) limit: usize,
}

/// The place after which a schedule fires for events; `None` if none does.
pub(crate) async fn first_wanted(mut conn: &AsyncPgConnection) -> Result<Option<EventSeq>, DatabaseError> {
    schedules::table
        .filter(schedules::events_after.is_not_null())
        .select(min(schedules::events_after))
        .get_result(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("looking for event schedules", error))
}

/// The last place of the log that is taken, as far as this transaction sees.
pub(crate) async fn last_taken(mut conn: &AsyncPgConnection) -> QueryResult<EventSeq> {
    let last: Option<i64> = events::table.select(max(events::seq)).get_result(&mut conn).await?;
    Ok(last.unwrap_or(0))
}

/// Goes on through this part of the log, unless another transaction does.
pub(crate) async fn go_on(
    mut conn: &AsyncPgConnection,
    part: LogPart,
    rule: &EventRule<'_>,
) -> Result<(MatchRound, WakeUps), Aborted<ControlError>> {
    let matched_until: Option<i64> = event_matching::table
        .select(event_matching::matched_until)
        .for_no_key_update()
        .skip_locked()
        .first(&mut conn)
        .await
        .optional()?;
    let Some(matched_until) = matched_until else { return Ok((MatchRound::Locked, WakeUps::default())) };
    let after = matched_until.max(part.since);
    if after >= part.until {
        return Ok((MatchRound::ToTheEnd, WakeUps::default()));
    }
    if after < part.pruned_until {
        tracing::warn!(
            "events up to {} may have been deleted before schedules fired for them: no instance ran for long",
            part.pruned_until
        );
    }
    let mut found = load_events(conn, after, &part).await?;
    let is_full = found.len() == part.limit;
    let mut until = found.last().filter(|_| is_full).map_or(part.until, |event| event.seq);
    let mut wanted = choose(conn, &found).await?;
    if let Some(end) = bounded_end(&wanted) {
        until = end;
        found.retain(|event| event.seq <= end);
        wanted.retain(|_, seqs| {
            seqs.retain(|seq| *seq <= end);
            !seqs.is_empty()
        });
    }
    let wake_ups = fire(conn, found, wanted, rule).await?;
    diesel::update(event_matching::table)
        .set(event_matching::matched_until.eq(until))
        .execute(&mut conn)
        .await?;
    let round = if until < part.until { MatchRound::Part } else { MatchRound::ToTheEnd };
    Ok((round, wake_ups))
}

/// The events of projects with schedules that fire for events.
async fn load_events(
    mut conn: &AsyncPgConnection,
    after: EventSeq,
    part: &LogPart,
) -> QueryResult<Vec<LoggedEvent>> {
    let projects = schedules::table
        .filter(schedules::events_after.is_not_null())
        .select(schedules::project_id.nullable());
    let rows: Vec<EventRow> = events::table
        .filter(events::seq.gt(after).and(events::seq.le(part.until)))
        .filter(events::project_id.eq_any(projects))
        .order(events::seq)
        .limit(i64::try_from(part.limit).unwrap_or(i64::MAX))
        .select(EventRow::as_select())
        .load(&mut conn)
        .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// The schedules that fire for some of these events, in the order of their ids, each with the places of these.
async fn choose(
    mut conn: &AsyncPgConnection,
    found: &[LoggedEvent],
) -> QueryResult<BTreeMap<Uuid, Vec<EventSeq>>> {
    let projects: HashSet<Uuid> = found.iter().filter_map(|event| Some(event.project?.as_uuid())).collect();
    if projects.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<Row> = schedules::table
        .filter(schedules::project_id.eq_any(projects).and(schedules::events_after.is_not_null()))
        .filter(not(schedules::project_id.eq_any(hidden_projects())))
        .select(Row::as_select())
        .load(&mut conn)
        .await?;
    let mut wanted = BTreeMap::new();
    for row in rows {
        let id = row.id();
        match Schedule::try_from(row) {
            Ok(schedule) => {
                let seqs: Vec<_> =
                    schedule.fires_for(found.iter()).into_iter().map(|event| event.seq).collect();
                if !seqs.is_empty() {
                    wanted.insert(id, seqs);
                }
            }
            Err(error) => {
                tracing::error!(schedule.id = %id, error = %error, "schedule {id} cannot be read: {error}");
            }
        }
        // Each evaluates expressions.
        tokio::task::yield_now().await;
    }
    Ok(wanted)
}

/// The place where the round ends if too many schedules fire; at least one event is taken.
fn bounded_end(wanted: &BTreeMap<Uuid, Vec<EventSeq>>) -> Option<EventSeq> {
    let mut of_events: BTreeMap<EventSeq, usize> = BTreeMap::new();
    for seq in wanted.values().flatten() {
        *of_events.entry(*seq).or_default() += 1;
    }
    let mut n_causes = 0;
    let mut end = None;
    for (seq, n) in of_events {
        n_causes += n;
        if n_causes > MAX_CAUSES && end.is_some() {
            return end;
        }
        end = Some(seq);
    }
    None
}

/// Locks the schedules and writes their steps.
async fn fire(
    mut conn: &AsyncPgConnection,
    found: Vec<LoggedEvent>,
    mut wanted: BTreeMap<Uuid, Vec<EventSeq>>,
    rule: &EventRule<'_>,
) -> Result<WakeUps, Aborted<ControlError>> {
    if wanted.is_empty() {
        return Ok(WakeUps::default());
    }
    let seqs: HashSet<EventSeq> = wanted.values().flatten().copied().collect();
    let found = found.into_iter().filter(|event| seqs.contains(&event.seq)).collect();
    let causes = with_chains(conn, found).await?;
    let ids: Vec<Uuid> = wanted.keys().copied().collect();
    let rows: Vec<Row> = schedules::table
        .filter(schedules::id.eq_any(ids))
        .order(schedules::id)
        .select(Row::as_select())
        .for_no_key_update()
        .load(&mut conn)
        .await?;
    let now: DateTime<Utc> = diesel::select(clock_timestamp()).get_result(&mut conn).await?;
    let locked = step::with_context(conn, step::readable(conn, rows).await?).await?;
    let with_causes = locked.into_iter().map(|locked| {
        let seqs = wanted.remove(&locked.schedule.id.as_uuid()).unwrap_or_default();
        let causes = seqs.iter().filter_map(|seq| causes.get(seq).cloned()).collect();
        LockedSchedule { causes, ..locked }
    });
    let steps: Vec<_> = with_causes.map(|locked| rule(locked, now)).collect();
    step::write(conn, &steps).await
}

/// The events at these places, as causes; without those that were deleted.
pub(crate) async fn load_causes(
    mut conn: &AsyncPgConnection,
    seqs: &[EventSeq],
) -> QueryResult<HashMap<EventSeq, Cause>> {
    if seqs.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<EventRow> =
        events::table.filter(events::seq.eq_any(seqs)).select(EventRow::as_select()).load(&mut conn).await?;
    with_chains(conn, rows.into_iter().map(Into::into).collect()).await
}

/// The chain of a run is that of the run at its root: one that nobody started, or, where a failure of a run started it, that
/// of the run that failed.
const CHAINS: &str = "
    WITH RECURSIVE up AS (
        SELECT id AS subject, 0 AS level, parent_run_id, trigger FROM runs WHERE id = ANY ($1)
        UNION ALL
        SELECT up.subject, up.level + 1, runs.parent_run_id, runs.trigger
        FROM up JOIN runs ON runs.id = coalesce(up.parent_run_id,
            CASE WHEN up.trigger ->> 'type' = 'schedule_failure' THEN (up.trigger ->> 'run_id')::uuid END)
        WHERE up.level < 100
    )
    SELECT DISTINCT ON (subject) subject, trigger -> 'caused_by' AS caused_by FROM up ORDER BY subject, level DESC";

#[derive(QueryableByName)]
struct Chain {
    #[diesel(sql_type = SqlUuid)]
    subject: Uuid,
    #[diesel(sql_type = Nullable<Json>)]
    caused_by: Option<Value>,
}

/// The events with the schedules that led to them.
async fn with_chains(
    mut conn: &AsyncPgConnection,
    found: Vec<LoggedEvent>,
) -> QueryResult<HashMap<EventSeq, Cause>> {
    let run_of = |event: &LoggedEvent| -> Option<Uuid> {
        let subject = event.subject.as_ref().filter(|_| event.event_type.starts_with(OF_RUNS))?;
        subject.parse().ok()
    };
    let runs: Vec<Uuid> = found.iter().filter_map(run_of).collect();
    let chains: Vec<Chain> = match runs.is_empty() {
        true => Vec::new(),
        false => diesel::sql_query(CHAINS).bind::<Array<SqlUuid>, _>(runs).load(&mut conn).await?,
    };
    let chains: HashMap<Uuid, Vec<ScheduleId>> = chains
        .into_iter()
        .filter_map(|chain| Some((chain.subject, serde_json::from_value(chain.caused_by?).ok()?)))
        .collect();
    let cause = |event: LoggedEvent| {
        let caused_by = run_of(&event).and_then(|run| chains.get(&run).cloned()).unwrap_or_default();
        (event.seq, Cause { event, caused_by })
    };
    Ok(found.into_iter().map(cause).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_ends_before_it_starts_too_much_but_takes_one_event() {
        let of = |n_schedules: u128, seqs: &[EventSeq]| {
            (0..n_schedules).map(|id| (Uuid::from_u128(id), seqs.to_vec())).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(bounded_end(&of(10, &[1, 2, 3])), None);
        assert_eq!(bounded_end(&of(1000, &[4, 7, 9])), Some(7));
        assert_eq!(bounded_end(&of(5000, &[4, 7, 9])), Some(4));
        assert_eq!(bounded_end(&of(5000, &[4])), None);
    }
}
