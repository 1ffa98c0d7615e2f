//! Changing a schedule.

use chrono::{DateTime, Utc};
use gathering_auth::Caller;
use gathering_domain::ScheduleId;

use super::define::ScheduleSpec;
use super::{
    LockedSchedule, PauseReason, Schedule, ScheduleControl, ScheduleNews, ScheduleStep, SubmittedSchedule,
    manual,
};
use crate::ControlError;
use crate::access::right;

/// How often a change is made of a schedule that somebody else changed meanwhile.
const ATTEMPTS: usize = 5;

impl ScheduleControl {
    /// Changes a schedule to what `change` makes of it. Another trigger, start or end counts due times anew from now; what
    /// has been entered in the ledger stays. To disable it is to pause it.
    ///
    /// Of two changes at once, one sees what the other has made: `change` may be called again.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`]; [`ControlError::Invalid`] with everything that is wrong.
    /// After [`ControlError::Unavailable`] it is unknown whether the schedule is changed.
    pub async fn change(
        &self,
        caller: &Caller,
        schedule: ScheduleId,
        change: impl Fn(&Schedule) -> SubmittedSchedule + Send + Sync,
    ) -> Result<Schedule, ControlError> {
        let mut attempts = ATTEMPTS;
        loop {
            let found = self.find::<right::Write>(caller, schedule).await?;
            let spec = self.check(caller, found.project, change(&found), Some(&found)).await?;
            let seen = SubmittedSchedule::of(&found);
            let rule = |locked: LockedSchedule, now| changed(locked, &seen, &spec, now);
            attempts -= 1;
            match self.store.change_schedule(&found, &rule).await {
                Err(ControlError::Outdated) if attempts > 0 => {}
                changed => return changed,
            }
        }
    }
}

/// The step to what `spec` says, which was made of the schedule as it was `seen`: a pause in between must not be undone.
pub(super) fn changed(
    locked: LockedSchedule,
    seen: &SubmittedSchedule,
    spec: &ScheduleSpec,
    now: DateTime<Utc>,
) -> Result<ScheduleStep, ControlError> {
    if SubmittedSchedule::of(&locked.schedule) != *seen {
        return Err(ControlError::Outdated);
    }
    let (is_paused, log_end) = (locked.schedule.pause.is_some(), locked.log_end);
    let counts_anew = {
        let (old, new) = (&locked.schedule.timetable, &spec.timetable);
        (&old.trigger, &old.days, old.start_at, old.end_at, old.max_fires)
            != (&new.trigger, &new.days, new.start_at, new.end_at, new.max_fires)
    };
    // With the same trigger, the events that have come are not passed over.
    let is_same_trigger = locked.schedule.timetable.trigger == spec.timetable.trigger;
    let unread = locked.schedule.events_after.filter(|_| is_same_trigger);
    let mut step = if spec.enabled && is_paused && !counts_anew {
        manual::resumed(&locked, now)
    } else {
        ScheduleStep::of(locked.schedule)
    };
    let ScheduleSpec { name, timetable, calendars, action, on_failure, enabled } = spec.clone();
    let schedule = &mut step.schedule;
    schedule.name = name;
    schedule.timetable = timetable;
    schedule.calendars = calendars.taken_at(now);
    schedule.action = action;
    schedule.on_failure = on_failure;
    if enabled && is_paused {
        schedule.n_failures = 0;
    }
    let was_told = step.news.contains(&ScheduleNews::Resumed);
    match (enabled, is_paused) {
        (true, true) if !was_told => step.news.push(ScheduleNews::Resumed),
        (false, false) => step.news.push(ScheduleNews::Paused(PauseReason::Request)),
        _ => {}
    }
    step.news.push(ScheduleNews::Changed);
    schedule.pause = match (enabled, schedule.pause) {
        (true, _) => None,
        (false, Some(reason)) => Some(reason),
        (false, None) => Some(PauseReason::Request),
    };
    if counts_anew {
        schedule.begin(now, unread.unwrap_or(log_end))?;
    } else if schedule.next.is_some() {
        // Another jitter fires at another moment.
        schedule.next = schedule.timetable.next_due(schedule.seed(), schedule.passed_at);
    }
    Ok(step)
}
