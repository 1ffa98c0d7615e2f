//! Helpers for tests of this crate and of programs that embed it: the store in memory with faults, virtual time, and
//! the cases that every implementation of a port must pass.

mod clock;
mod faults;
mod memory;
mod suite;

pub use clock::VirtualClock;
pub use faults::{Fault, Faults};
pub use memory::{MemoryStore, Place, StoredRun};
pub use suite::{
    PortsFixture, StoreFixture, breaker_cases, child_run_cases, decision_cases, permit_cases, planned_result,
    store_cases,
};
