//! What the end-to-end tests share: the real binary, a database for each test, a server, clients, a peer that records
//! what it is asked, and the search for secrets in what processes write.
//!
//! Owns every process that it starts: none outlives its value. Never knows what a test promises.

mod binary;
mod client;
mod database;
mod definition;
mod metrics;
mod peer;
mod process;
mod random;
mod raw;
mod routes;
mod scene;
mod secrets;
mod server;
mod wait;

pub use binary::{binary, command, workspace_root};
pub use client::{Client, PASSWORD, Reply};
pub use database::Database;
pub use definition::{begin, call, pipeline};
pub use metrics::Metrics;
pub use peer::{Answer, Peer, Request};
pub use process::{Ended, Process};
pub use random::Random;
pub use raw::{Raw, RawReply, head};
pub use routes::{ROUTES, Route, without_parameter_names};
pub use scene::Scene;
pub use secrets::{find_secret, known_secrets, note_secret, stored_forms};
pub use server::Server;
pub use wait::wait_until;
