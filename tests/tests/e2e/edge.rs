//! The HTTP edge: what every answer carries, slow and broken clients, rights that end, files, injections and limits.
//!
//! Most of the time is spent waiting for slow clients, beside which the rest runs.

mod answers;
mod authority;
mod clients;
mod files;
mod injection;
mod rate_limits;
mod traversal;
