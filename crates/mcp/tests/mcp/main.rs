//! Mounted servers: a scripted one that misbehaves, and official ones.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests are tests")]

mod calls;
mod catalogue;
mod generations;
mod http;
mod http_server;
mod lifecycle;
mod offered;
mod official;
mod param_headers;
mod pool;
mod programs;
mod questions;
mod relayed;
mod support;
mod told;
