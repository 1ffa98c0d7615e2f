//! The HTTP edge: what every request passes before and after its handler.
//!
//! A program declares its endpoints in one table of [`route::Route`]s: method, path, access, rate-limit tier, body
//! limit, handler. Routing, authentication, limits and the OpenAPI document are made of it, and [`server::Server`]
//! serves it. This crate knows callers and problems, but none of the nouns of the API.

pub mod authority;
pub mod body;
pub mod caller;
pub mod conditions;
pub mod connections;
pub mod envelope;
pub mod gate;
pub mod idempotency;
pub mod input;
pub mod limits;
pub mod metrics;
pub mod openapi;
pub mod page;
pub mod prefer;
pub mod problem;
pub mod query;
pub mod ranges;
pub mod readiness;
pub mod route;
pub mod server;
pub mod upload;
pub mod values;

#[cfg(test)]
mod tests;

// For `enum_schemas!`.
#[doc(hidden)]
pub use utoipa;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
