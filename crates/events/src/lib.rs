//! The in-process event bus: bounded, ordered per key, isolating slow subscribers.
//!
//! Owns the delivery of events from publishers to subscribers, within one process and in memory. Never knows what an
//! event means, and stores nothing: write what must survive to a database before you publish it here.

mod bus;
mod event;
mod recent;
mod subscription;

pub use bus::{Bus, BusCounts, BusService, BusSettings, PublishError, SubscribeError};
pub use event::{Event, Topics};
pub use subscription::{Delivery, Subscription};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
