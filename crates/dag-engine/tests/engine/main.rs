//! The engine from the outside, as an embedding program uses it, on stores in memory and in files. All of this is one
//! program: linking takes longer than most of these tests.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed check is a failed test")]

mod attempts;
mod breakers;
mod driving;
mod endings;
mod file_store;
mod idling;
mod invariants;
mod limits;
mod memory_store;
mod outages;
mod secrets;
mod validation;
