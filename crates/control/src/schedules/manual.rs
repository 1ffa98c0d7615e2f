//! What a person does to a schedule: pause, resume, trigger, backfill.

use std::collections::BTreeSet;
use std::iter::successors;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use gathering_auth::Caller;
use gathering_domain::{Pointer, Problems, RunId, ScheduleId, UserId};
use gathering_scheduler::{DueEntry, FireOutcome, MAX_CAUGHT_UP, SkipReason, plan_resumption};

use super::fire::{progress, settle, take};
use super::{
    LedgerEntry, LockedSchedule, PauseReason, Schedule, ScheduleControl, ScheduleNews, ScheduleStep,
};
use crate::ControlError;
use crate::access::{Scoped, right};

/// The due times that a person wants to have fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackfillRange {
    /// The first moment, in UTC.
    pub from: DateTime<Utc>,
    /// The last moment, in UTC.
    pub to: DateTime<Utc>,
}

impl ScheduleControl {
    /// Pauses a schedule: it fires no more until it is resumed. Its runs go on. Repeats: safe.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn pause(&self, caller: &Caller, schedule: ScheduleId) -> Result<Schedule, ControlError> {
        let found = self.find::<right::Run>(caller, schedule).await?;
        let rule = |locked: LockedSchedule, _| {
            let mut step = ScheduleStep::of(locked.schedule);
            if step.schedule.pause.is_none() {
                step.schedule.pause = Some(PauseReason::Request);
                step.news.push(ScheduleNews::Paused(PauseReason::Request));
            }
            Ok(step)
        };
        self.store.act_on_schedule(&found, None, &rule).await
    }

    /// Resumes a schedule that is paused. What has become due meanwhile is entered as skipped. Repeats: safe.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn resume(&self, caller: &Caller, schedule: ScheduleId) -> Result<Schedule, ControlError> {
        let found = self.find::<right::Run>(caller, schedule).await?;
        let rule = |locked: LockedSchedule, now| {
            let is_paused = locked.schedule.pause.is_some();
            Ok(if is_paused { resumed(&locked, now) } else { ScheduleStep::of(locked.schedule) })
        };
        self.store.act_on_schedule(&found, None, &rule).await
    }

    /// Fires a schedule now, whether or not it is paused and earlier runs have ended. The ledger has an entry for it; its
    /// due times stay as they are.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`]; [`Conflict::PipelineDisabled`], or
    /// [`Conflict::NotStartable`] if the pipeline is gone. After [`ControlError::Unavailable`] it is unknown whether it
    /// fired.
    ///
    /// [`Conflict::PipelineDisabled`]: crate::Conflict::PipelineDisabled
    /// [`Conflict::NotStartable`]: crate::Conflict::NotStartable
    pub async fn trigger(&self, caller: &Caller, schedule: ScheduleId) -> Result<RunId, ControlError> {
        let found = self.find::<right::Run>(caller, schedule).await?;
        let started = Mutex::new(None);
        let rule = |locked: LockedSchedule, now: DateTime<Utc>| {
            let run = locked.plan_run(now.into(), Some(caller.user)).map_err(not_startable)?;
            *started.lock().unwrap_or_else(PoisonError::into_inner) = Some(run.id);
            let mut step = ScheduleStep::of(locked.schedule);
            step.schedule.last_fire_at = Some(now);
            let entry = DueEntry { due: now.into(), until: None, outcome: FireOutcome::Started };
            step.entries.push(LedgerEntry { entry, run: Some(run) });
            Ok(step)
        };
        self.store.act_on_schedule(&found, None, &rule).await?;
        let started = started.into_inner().unwrap_or_else(PoisonError::into_inner);
        started.ok_or_else(|| ControlError::Broken("the rule of a trigger was not applied".into()))
    }

    /// Fires every due time of a range that has not fired, whether or not earlier runs have ended; answers with how many.
    /// Repeats: safe, each due time fires once.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`]; [`ControlError::Invalid`] for a range that is not in the
    /// past or has more than [`MAX_CAUGHT_UP`] due times, or a schedule that fires for events; the conflicts of [`trigger`](Self::trigger). After
    /// [`ControlError::Unavailable`] it is unknown whether they fired.
    pub async fn backfill(
        &self,
        caller: &Caller,
        schedule: ScheduleId,
        range: BackfillRange,
    ) -> Result<usize, ControlError> {
        let found: Scoped<Schedule, right::Run> = self.find(caller, schedule).await?;
        if range.to < range.from {
            return Err(invalid("to", "must not be before `from`"));
        }
        if found.timetable.trigger.events().is_some() {
            return Err(invalid("from", "a schedule that fires for events has no due times to backfill"));
        }
        let n_started = AtomicUsize::new(0);
        let rule = |locked: LockedSchedule, now: DateTime<Utc>| {
            let step = backfilled(&locked, range, now, caller.user)?;
            let n_runs = step.entries.iter().filter(|entry| entry.run.is_some()).count();
            n_started.store(n_runs, Ordering::Relaxed);
            Ok(step)
        };
        self.store.act_on_schedule(&found, Some((range.from, range.to)), &rule).await?;
        Ok(n_started.into_inner())
    }
}

/// The step that fires what has not fired of a range.
pub(super) fn backfilled(
    locked: &LockedSchedule,
    range: BackfillRange,
    now: DateTime<Utc>,
    by: UserId,
) -> Result<ScheduleStep, ControlError> {
    if range.to > now {
        return Err(invalid("to", "must not be in the future"));
    }
    locked.plan_run(now.into(), Some(by)).map_err(not_startable)?;
    let due = missing(&locked.schedule, range, &locked.fired)?;
    let mut step = ScheduleStep::of(locked.schedule.clone());
    step.schedule.last_fire_at = if due.is_empty() { step.schedule.last_fire_at } else { Some(now) };
    // An entry that stands for many begins with a due time: if that one fires, another begins it.
    for (first, until) in &locked.ranges {
        let rest = due_after(&locked.schedule, *first).take_while(|at| at <= until);
        if due.contains(first)
            && let Some(due_at) = rest.into_iter().find(|at| !due.contains(at) && !locked.fired.contains(at))
        {
            let outcome = FireOutcome::Skipped(SkipReason::Bound);
            let entry = DueEntry { due: due_at.into(), until: Some(*until), outcome };
            step.entries.push(LedgerEntry { entry, run: None });
        }
    }
    step.entries.extend(due.iter().map(|at| locked.start((*at).into(), FireOutcome::CaughtUp, Some(by))));
    Ok(step)
}

/// The due times after `after`, whatever their number.
fn due_after(schedule: &Schedule, after: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> + '_ {
    let next = |after: &DateTime<Utc>| schedule.timetable.next_due(0, *after).map(|next| next.due_at);
    successors(next(&after), next)
}

/// The due times of the range that have not fired.
fn missing(
    schedule: &Schedule,
    range: BackfillRange,
    fired: &BTreeSet<DateTime<Utc>>,
) -> Result<Vec<DateTime<Utc>>, ControlError> {
    let before = schedule.timetable.before(range.from, schedule.passed_at);
    let due = due_after(schedule, before).take_while(|at| *at <= range.to);
    let due: Vec<_> = due.take(MAX_CAUGHT_UP + 1).collect();
    if due.len() > MAX_CAUGHT_UP {
        let message = format!("the range has more than {MAX_CAUGHT_UP} due times: take a shorter one");
        return Err(invalid("to", message));
    }
    Ok(due.into_iter().filter(|at| !fired.contains(at)).collect())
}

/// The step that resumes a paused schedule.
pub(super) fn resumed(locked: &LockedSchedule, now: DateTime<Utc>) -> ScheduleStep {
    let mut step = ScheduleStep::of(locked.schedule.clone());
    let open = settle(locked, &mut step);
    let planned = plan_resumption(&step.schedule.timetable, &progress(&step, &open), now);
    take(locked, &mut step, &planned, now);
    step.schedule.pause = None;
    step.schedule.n_failures = 0;
    step.news.push(ScheduleNews::Resumed);
    step
}

fn not_startable(error: ControlError) -> ControlError {
    match error {
        ControlError::NotFound | ControlError::Invalid(_) => crate::Conflict::NotStartable.into(),
        other => other,
    }
}

fn invalid(field: &str, message: impl Into<String>) -> ControlError {
    ControlError::Invalid(Problems::one(Pointer::root().join(field), message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gathering_scheduler::{Timetable, Trigger};
    use serde_json::json;

    #[test]
    fn an_interval_is_backfilled_in_its_rhythm() {
        let trigger =
            Trigger::parse(&json!({ "type": "interval", "seconds": 3600 }), &Pointer::root()).unwrap();
        let timetable = Timetable::new(trigger);
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let passed = at("2026-01-05T10:20:00Z");
        let before = timetable.before(at("2026-01-01T00:00:00Z"), passed);
        assert_eq!(timetable.trigger.next_after(before), Some(at("2026-01-01T00:20:00Z")));
        let before = timetable.before(at("2026-01-01T00:20:00Z"), passed);
        assert_eq!(timetable.trigger.next_after(before), Some(at("2026-01-01T00:20:00Z")));
    }
}
