//! The HTTP API: its routes, what every answer has, and the server that answers.
//!
//! Owns the contract with the callers: paths, shapes, errors. Decides nothing: a handler parses, authorizes, calls one
//! function and renders a view that lives beside it.

mod auth;
mod body;
mod caller;
mod envelope;
mod health;
mod openapi;
mod outline;
mod page;
mod pipelines;
mod problem;
mod query;
mod run_view;
mod runs;
mod server;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use openapi::openapi_text;
pub(crate) use server::{Server, ServerSettings};
pub(crate) use state::{AppState, Readiness};
