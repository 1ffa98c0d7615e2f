//! I1 to I5, as far as they are the engine's, with what goes wrong planned and time virtual.
//!
//! - I1 a node's result is recorded exactly once per attempt, and a succeeded node never executes again;
//! - I2 no two instances execute the same run at the same time;
//! - I3 a node starts only when every predecessor is resolved and durably recorded;
//! - I4 an accepted run reaches a terminal state, whatever crashes;
//! - I5 a terminal run never changes, and nothing of it still executes.
//!
//! I6 is the scheduler's and I7 the database's. What holds beyond them is checked as well: the outcome is the one that the
//! plain rules give, effects follow their class, and what is not idempotent is not repeated.

mod any_graph;
mod crash_points;
mod support;

/// Whether to take the time that it takes: `GATHERING_TEST_SOAK=full`.
fn is_soak() -> bool {
    std::env::var("GATHERING_TEST_SOAK").is_ok_and(|value| value == "full")
}
