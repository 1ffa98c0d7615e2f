//! The agent loop and the model clients.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests are tests")]

mod agent_loop;
mod connections;
mod faults;
mod openai;
mod output;
mod real_model;
mod streams;
mod support;
