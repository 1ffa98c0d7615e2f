//! This crate on a real PostgreSQL, each test in a schema of its own. One program: they share what they begin with.
#![expect(clippy::unwrap_used, reason = "what fails here fails a test")]

mod accounts;
mod common;
mod events;
mod migrations;
mod runs;
mod sessions;
