//! A server that listens to HTTP: one request a message, answered as JSON or as a stream of events.

mod auth;
mod headers;
mod link;
mod refusal;
mod reply;
mod sse;

pub(crate) use headers::{ACCEPTED, decoded_header, header_text};
pub(crate) use link::HttpLink;
pub(crate) use sse::SseReader;
