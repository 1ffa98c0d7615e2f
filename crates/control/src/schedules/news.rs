//! What schedules tell in the log of events, beside the events of their runs.

use chrono::{DateTime, Utc};
use gathering_scheduler::SkipReason;
use serde_json::{Value, json};

use super::{PauseReason, Schedule, ScheduleStep};

/// What happened to a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleNews {
    /// Somebody created it.
    Created,
    /// Somebody changed what it is.
    Changed,
    /// Somebody deleted it.
    Deleted,
    /// It fires no more.
    Paused(PauseReason),
    /// It fires again.
    Resumed,
    /// Due times started nothing, for a reason that nobody decided on.
    Skipped {
        /// Why.
        reason: SkipReason,
        /// The first of them, in UTC.
        first: DateTime<Utc>,
        /// The last of them, in UTC.
        last: DateTime<Utc>,
    },
}

impl ScheduleNews {
    /// The type of the event.
    pub const fn event_type(self) -> &'static str {
        match self {
            Self::Created => "schedule.created",
            Self::Changed => "schedule.changed",
            Self::Deleted => "schedule.deleted",
            Self::Paused(_) => "schedule.paused",
            Self::Resumed => "schedule.resumed",
            Self::Skipped { .. } => "schedule.skipped",
        }
    }

    /// The data of the event.
    pub fn data(self, schedule: &Schedule) -> Value {
        let mut data = json!({ "name": schedule.name });
        match self {
            Self::Created | Self::Changed | Self::Deleted | Self::Resumed => {}
            Self::Paused(reason) => {
                data["reason"] = json!(reason.as_str());
                data["failures_in_a_row"] = json!(schedule.n_failures);
            }
            Self::Skipped { reason, first, last } => {
                data["reason"] = json!(reason.as_str());
                data["due_at"] = json!(first);
                data["until"] = json!(last);
            }
        }
        data
    }
}

impl ScheduleStep {
    /// Tells of the due times that were to fire and did not, once for each reason. What events bring about is not told: a
    /// schedule that fires for this would tell for ever.
    pub(super) fn tell_skipped(&mut self) {
        if self.schedule.timetable.trigger.events().is_some() {
            return;
        }
        for told in [SkipReason::Missed, SkipReason::NotStartable, SkipReason::Bound] {
            let of_reason = self.entries.iter().filter(|new| new.entry.outcome.reason() == Some(told));
            let (mut first, mut last) = (None, None);
            for entry in of_reason.map(|new| &new.entry) {
                first = Some(first.map_or(entry.due.at, |first: DateTime<Utc>| first.min(entry.due.at)));
                last = last.max(Some(entry.until.unwrap_or(entry.due.at)));
            }
            if let (Some(first), Some(last)) = (first, last) {
                self.news.push(ScheduleNews::Skipped { reason: told, first, last });
            }
        }
    }
}
