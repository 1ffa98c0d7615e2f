//! The HTTP API: its routes, what every answer has, and the server that answers.
//!
//! Owns the contract with the callers: paths, shapes, errors. Decides nothing: a handler parses, authorizes, calls one
//! function and renders a view that lives beside it.

mod api_keys;
mod audit;
mod auth;
mod body;
mod budgets;
mod caller;
mod conditions;
mod connections;
mod envelope;
mod files;
mod health;
mod limits;
mod members;
mod metrics;
mod openapi;
mod outline;
mod page;
mod pipelines;
mod problem;
mod projects;
mod query;
mod run_view;
mod runs;
mod server;
mod state;
mod stream;
mod system;
#[cfg(test)]
mod tests;
mod users;

pub(crate) use limits::Limits;
pub(crate) use metrics::Metrics;
pub(crate) use openapi::openapi_text;
pub(crate) use server::{Server, ServerSettings};
pub(crate) use state::{AppState, Readiness};
pub(crate) use stream::Streams;
