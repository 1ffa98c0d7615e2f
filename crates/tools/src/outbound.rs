//! Outgoing HTTP that reaches only public addresses, unless the operator allows more.
//!
//! Owns the rules for addresses, and sends requests. Never knows their purpose.

mod client;
mod error;
mod hosts;
mod network;
mod request;
mod resolver;
mod stream;

pub use client::Outbound;
pub use error::{OutboundError, is_refusal};
pub use network::{InvalidNetwork, Network, OutboundPolicy};
pub use request::{OutboundRequest, OutboundResponse};
pub use stream::OutboundStream;
