//! Due times of schedules: cron, interval, once, time zones and daylight saving.
//!
//! Owns the rules that turn a trigger and a moment into the next due time. Never knows a clock, a database or the
//! consequences of a fire: every function here is pure.

mod cron;
mod dst;
mod trigger;
mod zone;

pub use cron::Cron;
pub use dst::{Dst, Occurrence};
pub use trigger::{Interval, Trigger};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
