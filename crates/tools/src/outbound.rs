//! Outgoing HTTP that reaches public addresses only, unless the operator allows more.
//!
//! Owns which addresses may be reached and how a request gets there. Never knows what is asked for.

mod client;
mod error;
mod network;
mod request;
mod resolver;

pub use client::Outbound;
pub use error::OutboundError;
pub use network::{InvalidNetwork, Network, OutboundPolicy};
pub use request::{OutboundRequest, OutboundResponse};
