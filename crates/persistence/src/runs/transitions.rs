//! Every statement that changes the state of a run. `cargo xtask check tidy` refuses any in another file.
//!
//! | module | transition |
//! |---|---|
//! | [`insert`] | a run is accepted: queued |
//! | [`claim`] | queued or waiting, to running |
//! | [`release`] | running, to queued, waiting or a terminal state, with the last checkpoint of a claim |
//! | [`cancel`] | queued and never claimed, to cancelled |
//! | [`recover`] | running under an owner that is dead or does not drive it, to queued or failed |
//!
//! [`end`] has what every end of a run brings about. [`wake_ups`] has the wake-ups that a transition owes.

pub(crate) mod cancel;
pub(crate) mod claim;
pub(crate) mod end;
pub(crate) mod insert;
pub(crate) mod recover;
pub(crate) mod release;
pub(crate) mod wake_ups;
