//! What the end-to-end tests share: the real binary, a database for each test, a server, a client, and a peer that
//! records what it is asked.
//!
//! Owns every process that it starts: none outlives its value. Never knows what a test promises.

mod binary;
mod client;
mod database;
mod definition;
mod peer;
mod process;
mod random;
mod server;
mod wait;

pub use binary::{binary, command, workspace_root};
pub use client::{Client, Reply};
pub use database::Database;
pub use definition::{begin, call, pipeline};
pub use peer::{Answer, Peer, Request};
pub use process::{Ended, Process};
pub use random::Random;
pub use server::Server;
pub use wait::wait_until;
