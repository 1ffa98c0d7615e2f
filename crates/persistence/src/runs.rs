//! Runs: accepted, claimed, checkpointed, ended, recovered, listed, and their journals.

pub(crate) mod accept;
pub(crate) mod appends;
pub(crate) mod breakers;
pub(crate) mod children;
pub(crate) mod commit;
pub(crate) mod dead_instances;
pub(crate) mod decisions;
pub(crate) mod graphs;
pub(crate) mod in_state;
pub(crate) mod journal;
pub(crate) mod journal_page;
pub(crate) mod list;
pub(crate) mod local_runs;
pub(crate) mod maintenance;
pub(crate) mod next_available;
pub(crate) mod outcomes;
pub(crate) mod partitions;
pub(crate) mod permits;
pub(crate) mod retention;
pub(crate) mod row;
pub(crate) mod scan_window;
pub(crate) mod states;
pub(crate) mod store;
pub(crate) mod transitions;
