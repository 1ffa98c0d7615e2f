//! This crate on a real PostgreSQL, each test in a schema of its own. One program: they share what they begin with.
#![expect(clippy::unwrap_used, clippy::panic, reason = "what fails here fails a test")]

mod accounts;
mod breakers;
mod budgets;
mod children;
mod committed;
mod common;
mod connections;
mod control;
mod decisions;
mod deletions;
mod events;
mod failures;
mod fair;
mod hooks;
mod journal;
mod maintenance;
mod migrations;
mod node_permits;
mod pages;
mod partitions;
mod permits;
mod plans;
mod projects;
mod recovery;
mod reruns;
mod retention;
mod runs;
mod sessions;
mod statistics;
mod transitions;
mod wake_ups;
