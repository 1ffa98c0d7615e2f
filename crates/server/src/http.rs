//! The HTTP API: its routes, and the handlers that answer them.
//!
//! Owns the contract with the callers: paths, shapes, errors. Decides nothing: a handler parses, makes one call, and
//! renders a view that lives beside it. What every request passes before and after is `gathering-edge`.

mod api;
mod routes;
mod run_ends;
mod services;
#[cfg(test)]
mod tests;

pub(crate) use api::events::Watches;
pub(crate) use api::metrics::describe as describe_metrics;
pub(crate) use api::stream::Streams;
pub(crate) use routes::{ROUTES, document};
pub(crate) use run_ends::RunEnds;
pub(crate) use services::{MaxFileBytes, Services};
