//! What an attempt may do, and for how long: claims, effects and their ledger, failures, timeouts, maps. Under virtual time.

mod bench;
mod budgets;
mod cancelled;
mod decided;
mod fail_fast;
mod failures;
mod fencing;
mod ledger;
mod limits;
mod maps;
mod permits;
mod reruns;
mod retries;
mod reuse;
mod skips;
