//! Schedules: due times, what becomes of each, and the loop that fires them.
//!
//! Owns the rules that turn a trigger and a moment into the next due time ([`Trigger`]), and a schedule and a moment into
//! the entries of its ledger ([`plan`]): pure functions. [`Firing`] sleeps until something is due. Never knows what a fire
//! starts, nor where schedules are kept: that is behind the port [`FireStore`].

mod calendar;
mod cron;
mod days;
mod dst;
mod expression;
mod field;
mod firing;
mod plan;
mod policy;
mod recurrence;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod timetable;
mod trigger;
mod zone;
mod zone_data;

pub use calendar::{CalendarError, MAX_CALENDAR_BYTES, days_of_calendar};
pub use cron::Cron;
pub use days::{DayList, Days};
pub use dst::{Dst, Occurrence};
pub use firing::{FireError, FireStore, Firing, Round};
pub use plan::{
    Due, DueEntry, FireOutcome, MAX_CAUGHT_UP, ON_TIME, Plan, Progress, plan, plan_events, plan_resumption,
};
pub use policy::{CatchUp, Overlap, SkipReason};
pub use recurrence::Recurrence;
pub use timetable::{MAX_JITTER_SECONDS, Next, Timetable};
pub use trigger::{EventPattern, Interval, Trigger};
pub use zone::Zone;
pub use zone_data::{UnknownZone, ZoneData, ZoneSource};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
