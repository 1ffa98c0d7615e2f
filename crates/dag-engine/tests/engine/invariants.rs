//! I1 to I5, as far as they are the engine's, with planned faults and under virtual time.
//!
//! - I1 a node's result is recorded exactly once per attempt, and a succeeded node never executes again;
//! - I2 no two instances execute the same run at the same time;
//! - I3 a node starts only when every predecessor is resolved and durably recorded;
//! - I4 an accepted run reaches a terminal state, whatever crashes;
//! - I5 a terminal run never changes, and nothing of it still executes.
//!
//! I6 is the scheduler's and I7 the database's. The tests also check that the outcome follows the plain rules, that
//! effects follow their class, and that no node with `idempotent: false` is repeated.

mod any_graph;
mod crash_points;
mod support;

/// Whether to search at full length: `GATHERING_TEST_SOAK=full`.
fn is_soak() -> bool {
    std::env::var("GATHERING_TEST_SOAK").is_ok_and(|value| value == "full")
}
