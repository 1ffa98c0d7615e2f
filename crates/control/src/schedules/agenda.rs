//! What was due and what will be, over all schedules.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use chrono::{DateTime, Duration, Utc};
use gathering_auth::Caller;
use gathering_domain::{Pointer, Problems, ProjectId, ScheduleId, UserId};

use super::{Fire, Schedule, ScheduleControl};
use crate::ControlError;
use crate::access::visible_to;

/// The longest range: a quarter of a year.
const LONGEST: Duration = Duration::days(100);

/// How many schedules are read to say what will be due.
const MAX_SCHEDULES: usize = 1000;

/// How many due times are computed for one answer, also those before the range.
const MAX_COMPUTED: usize = 5000;

/// A part of time over the schedules that somebody may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgendaRange {
    /// Those of this project; of all that the caller sees if absent.
    pub project: Option<ProjectId>,
    /// The first moment, in UTC.
    pub from: DateTime<Utc>,
    /// The moment after the last one, in UTC.
    pub to: DateTime<Utc>,
}

/// Which schedules a store looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agenda {
    /// Only in the projects of this member; in all if absent.
    pub visible_to: Option<UserId>,
    /// The rest.
    pub range: AgendaRange,
}

/// An entry of the ledger of some schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgendaFire {
    /// The schedule.
    pub schedule: ScheduleId,
    /// Its name.
    pub name: String,
    /// The entry.
    pub fire: Fire,
}

/// A due time of some schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpcomingDue {
    /// The due time, in UTC.
    pub due_at: DateTime<Utc>,
    /// The schedule.
    pub schedule: ScheduleId,
    /// Its name.
    pub name: String,
}

/// A part of a list that may be too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut<T> {
    /// What is shown.
    pub items: Vec<T>,
    /// Whether there is more in the range.
    pub is_cut: bool,
}

impl ScheduleControl {
    /// At most `limit` entries of the ledgers of all schedules that the caller may see, with a due time in the range, the
    /// latest first.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] for a range that is empty or longer than 100 days; [`ControlError::Forbidden`] for an API
    /// key without the scope to read. Or the store's.
    pub async fn list_all_fires(
        &self,
        caller: &Caller,
        range: AgendaRange,
        limit: usize,
    ) -> Result<Cut<AgendaFire>, ControlError> {
        let agenda = Agenda { visible_to: visible_to(caller)?, range: range.checked()? };
        let mut items = self.store.list_all_fires(&agenda, limit.saturating_add(1)).await?;
        let is_cut = items.len() > limit;
        items.truncate(limit);
        Ok(Cut { items, is_cut })
    }

    /// At most `limit` of the next due times of all schedules that the caller may see, within the range, the earliest first.
    /// Those of paused schedules are left out.
    ///
    /// # Errors
    /// As [`list_all_fires`](Self::list_all_fires).
    pub async fn list_upcoming(
        &self,
        caller: &Caller,
        range: AgendaRange,
        limit: usize,
    ) -> Result<Cut<UpcomingDue>, ControlError> {
        let agenda = Agenda { visible_to: visible_to(caller)?, range: range.checked()? };
        let schedules = self.store.list_due_before(&agenda, MAX_SCHEDULES + 1).await?;
        Ok(upcoming(schedules, range, limit))
    }
}

impl AgendaRange {
    fn checked(self) -> Result<Self, ControlError> {
        let message = match self.to - self.from {
            length if length <= Duration::zero() => "must be after `from`",
            length if length > LONGEST => "must be at most 100 days after `from`",
            _ => return Ok(self),
        };
        Err(ControlError::Invalid(Problems::one(Pointer::root().join("to"), message)))
    }
}

/// The next due times of these schedules, which are in the order of what is due next.
fn upcoming(mut schedules: Vec<Schedule>, range: AgendaRange, limit: usize) -> Cut<UpcomingDue> {
    // Of those that are left out, the first is due then.
    let beyond = schedules.get(MAX_SCHEDULES).and_then(|left_out| Some(left_out.next?.due_at));
    schedules.truncate(MAX_SCHEDULES);
    let end = beyond.map_or(range.to, |beyond| beyond.min(range.to));
    let mut coming: BinaryHeap<_> = schedules
        .iter()
        .enumerate()
        .filter_map(|(number, schedule)| Some(Reverse((schedule.next?.due_at, number, 0_u32))))
        .collect();
    let mut items = Vec::new();
    let mut n_computed = 0;
    while let Some(Reverse((due_at, number, n_before))) = coming.pop() {
        if due_at >= end {
            break;
        }
        n_computed += 1;
        if n_computed > MAX_COMPUTED {
            return Cut { items, is_cut: true };
        }
        let schedule = &schedules[number];
        if due_at >= range.from {
            if items.len() == limit {
                return Cut { items, is_cut: true };
            }
            items.push(UpcomingDue { due_at, schedule: schedule.id, name: schedule.name.clone() });
        }
        let n_fires = schedule.n_fires.saturating_add(n_before).saturating_add(1);
        let has_more = schedule.timetable.max_fires.is_none_or(|max| n_fires < max);
        // What is before the range is passed at once, unless each due time counts.
        let after = match schedule.timetable.max_fires {
            None if due_at < range.from => schedule.timetable.before(range.from, due_at).max(due_at),
            _ => due_at,
        };
        let next = has_more.then(|| schedule.timetable.next_due(schedule.seed(), after)).flatten();
        coming.extend(next.map(|next| Reverse((next.due_at, number, n_before + 1))));
    }
    Cut { items, is_cut: beyond.is_some_and(|beyond| beyond < range.to) }
}

#[cfg(test)]
mod tests {
    use gathering_scheduler::{Timetable, Trigger};
    use serde_json::{Value, json};

    use super::super::ScheduleSpec;
    use super::super::{NewSchedule, OnFailure, ScheduledAction};
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-01-{text}Z").parse().unwrap()
    }

    fn schedule(name: &str, trigger: &Value, max_fires: Option<u32>) -> Schedule {
        let trigger = Trigger::parse(trigger, &Pointer::root()).unwrap();
        let spec = ScheduleSpec {
            name: name.to_owned(),
            timetable: Timetable { max_fires, ..Timetable::new(trigger) },
            calendars: super::super::Calendars::default(),
            action: ScheduledAction::Node {
                written: json!({ "action": "call_api" }),
                graph: gathering_domain::Digest::of(b"graph"),
            },
            on_failure: OnFailure::default(),
            enabled: true,
        };
        let new = NewSchedule { id: ScheduleId::new(), spec, once: None };
        new.of(ProjectId::new(), at("01T08:30:00"), 0).unwrap()
    }

    fn words(cut: &Cut<UpcomingDue>) -> Vec<String> {
        cut.items.iter().map(|due| format!("{} {}", due.due_at.format("%dT%H:%M"), due.name)).collect()
    }

    #[test]
    fn what_is_due_next_is_merged_and_cut_at_its_bounds() {
        let hourly = schedule("hourly", &json!({ "type": "cron", "expression": "0 * * * *" }), None);
        let twice = schedule("twice", &json!({ "type": "interval", "seconds": 1800 }), Some(2));
        let range = |from: &str, to: &str| AgendaRange { project: None, from: at(from), to: at(to) };
        let both = vec![hourly, twice];
        let cut = upcoming(both.clone(), range("01T08:30:00", "01T11:00:00"), 10);
        assert_eq!(words(&cut), ["01T09:00 hourly", "01T09:00 twice", "01T09:30 twice", "01T10:00 hourly"]);
        assert!(!cut.is_cut);
        let cut = upcoming(both.clone(), range("01T08:30:00", "02T00:00:00"), 3);
        assert_eq!((words(&cut).len(), cut.is_cut), (3, true));
        // Far ahead the first is computed at once, and the second has fired as often as it should.
        let cut = upcoming(both, range("20T00:30:00", "20T02:30:00"), 10);
        assert_eq!(words(&cut), ["20T01:00 hourly", "20T02:00 hourly"]);
    }

    #[test]
    fn an_interval_keeps_its_rhythm_far_ahead_and_too_much_is_cut() {
        let every = schedule("every", &json!({ "type": "interval", "seconds": 3600 }), None);
        let range = AgendaRange { project: None, from: at("20T00:00:00"), to: at("20T02:00:00") };
        assert_eq!(words(&upcoming(vec![every], range, 10)), ["20T00:30 every", "20T01:30 every"]);
        let often = schedule("often", &json!({ "type": "interval", "seconds": 1 }), Some(1_000_000));
        let cut = upcoming(vec![often], range, 10);
        assert_eq!((cut.items.len(), cut.is_cut), (0, true), "it would take too long");
    }
}
