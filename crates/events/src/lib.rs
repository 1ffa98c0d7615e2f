//! The in-process event bus: bounded, ordered per key, isolating slow subscribers.
//!
//! Owns the way of an event from who publishes it to who subscribed, within one process and in memory. Never knows what
//! an event means, and keeps nothing: what must survive belongs in a database before it is published here.

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
