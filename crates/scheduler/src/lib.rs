//! Due times of schedules: cron, interval, once, time zones and daylight saving.
//!
//! Owns the rules that turn a trigger and a moment into the next due time. Never knows a clock, a database or the
//! consequences of a fire: every function here is pure.

mod cron;
mod dst;
mod expression;
mod field;
mod trigger;
mod zone;
mod zone_data;

pub use cron::Cron;
pub use dst::{Dst, Occurrence};
pub use trigger::{Interval, Trigger};
pub use zone::Zone;
pub use zone_data::{UnknownZone, ZoneData, ZoneSource};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
