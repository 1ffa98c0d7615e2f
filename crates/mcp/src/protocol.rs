//! The two generations of the protocol, and what differs between them.

use serde_json::{Value, json};

/// The version whose requests say all that they need.
pub(crate) const MODERN_VERSION: &str = "2026-07-28";
/// The version that we offer in a handshake.
pub(crate) const LEGACY_VERSION: &str = "2025-11-25";
/// What servers may answer to the handshake: the tools of all these versions are called in the same way.
pub(crate) const LEGACY_VERSIONS: [&str; 4] = [LEGACY_VERSION, "2025-06-18", "2025-03-26", "2024-11-05"];
/// The error of a server that speaks no version that was asked for.
pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;

/// The error of a server that finds something else in the headers than in the message.
pub(crate) const HEADER_MISMATCH: i64 = -32020;

/// A generation of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Requests since 2026-07-28.
    Modern,
    /// Requests after a handshake, until 2025-11-25.
    Legacy,
}

/// What this client calls itself.
pub(crate) fn client_info() -> Value {
    json!({"name": "gathering", "version": env!("CARGO_PKG_VERSION")})
}

/// `params` with what each request says since 2026-07-28.
pub(crate) fn modern_params(mut params: Value, capabilities: &Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
        "io.modelcontextprotocol/clientInfo": client_info(),
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    });
    params
}
