//! What every request meets: its caller, its body and query, limits, conditions, pages, problems, the envelope.

pub(crate) mod body;
pub(crate) mod caller;
pub(crate) mod conditions;
pub(crate) mod connections;
pub(crate) mod envelope;
pub(crate) mod limits;
pub(crate) mod openapi;
pub(crate) mod page;
pub(crate) mod problem;
pub(crate) mod query;
