//! A server that listens to HTTP: one request a message, answered as JSON or as a stream of events.

mod auth;
mod headers;
mod link;
mod refusal;
mod reply;
mod sse;

pub(crate) use link::HttpLink;
