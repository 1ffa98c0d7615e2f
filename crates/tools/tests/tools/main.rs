//! Tools, outgoing requests and the workspace, against real files and a real server.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests are tests")]

mod builtin;
mod limits;
mod mail;
mod outbound;
mod support;
mod toolbox;
mod workspace;
