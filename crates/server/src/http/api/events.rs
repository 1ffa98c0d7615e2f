//! The log of events: posted to, read in pages, followed as a stream or over a WebSocket.

pub(crate) mod post;
pub(crate) mod read;
pub(crate) mod socket;
mod stream;
mod view;
mod watch;

pub(crate) use watch::Watches;
