//! What each command does, from its arguments to its exit code.

pub(crate) mod doctor;
pub(crate) mod mcp;
pub(crate) mod migrate;
pub(crate) mod openapi;
mod progress;
pub(crate) mod run;
pub(crate) mod serve;
mod signals;
pub(crate) mod user;
pub(crate) mod validate;
