//! The HTTP API: its routes, what every answer has, and the server that answers.
//!
//! Owns the contract with the callers: paths, shapes, errors. Decides nothing: a handler parses, authorizes, calls one
//! function and renders a view that lives beside it.

mod api;
mod edge;
mod routes;
mod server;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use api::stream::Streams;
pub(crate) use edge::gate::Gate;
pub(crate) use edge::metrics::Metrics;
pub(crate) use server::{Server, ServerSettings, openapi_text};
pub(crate) use state::{AppState, Readiness};
