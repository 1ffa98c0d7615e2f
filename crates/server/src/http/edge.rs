//! The plumbing of every request: route, caller, limits, body, query, conditions, pages, problems, envelope.

pub(crate) mod body;
pub(crate) mod caller;
pub(crate) mod conditions;
pub(crate) mod connections;
pub(crate) mod envelope;
pub(crate) mod gate;
pub(crate) mod idempotency;
pub(crate) mod input;
pub(crate) mod limits;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod page;
pub(crate) mod problem;
pub(crate) mod query;
pub(crate) mod route;
pub(crate) mod values;
