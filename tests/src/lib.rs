//! What the end-to-end tests share: the real binary, a database for each test, a server, clients, a load of runs, a
//! pooler, a peer that records what it is asked, a mail server, programs
//! of other languages, what must never be found afterwards, and the search for secrets in what processes
//! write.
//!
//! Owns every process that it starts: none outlives its value. Never knows what a test promises.

mod binary;
mod client;
mod contradictions;
mod database;
mod definition;
mod footprint;
mod load;
mod mail_server;
mod metrics;
mod peer;
mod piped;
mod pooler;
mod process;
mod random;
mod raw;
mod routes;
mod scene;
mod secrets;
mod server;
mod several;
mod soak;
mod socket;
mod sse;
mod wait;

pub use binary::{binary, command, workspace_root};
pub use client::{Client, PASSWORD, Reply};
pub use contradictions::{check_journals, check_requests};
pub use database::Database;
pub use definition::{begin, call, pipeline};
pub use footprint::Footprint;
pub use gathering_test_packages::{node_modules, python};
pub use load::Load;
pub use mail_server::MailServer;
pub use metrics::Metrics;
pub use peer::{Answer, Peer, Request};
pub use piped::Piped;
pub use pooler::Pooler;
pub use process::{Ended, Process};
pub use random::Random;
pub use raw::{Raw, RawReply, head};
pub use routes::{ROUTES, Route, without_parameter_names};
pub use scene::Scene;
pub use secrets::{find_secret, known_secrets, note_secret, stored_forms};
pub use server::Server;
pub use several::{Several, all_succeeded, check_stored};
pub use soak::{is_full_soak, soak};
pub use socket::{Socket, SocketFrame};
pub use sse::{Sse, SseEvent};
pub use wait::wait_until;
