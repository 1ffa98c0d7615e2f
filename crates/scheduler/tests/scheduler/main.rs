//! Triggers and their due times.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod daylight_saving;
mod triggers;
