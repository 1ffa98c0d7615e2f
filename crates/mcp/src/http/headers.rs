//! The headers of a request.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gathering_domain::{ExposeSecret as _, Secret};
use gathering_tools::{OutboundError, OutboundRequest};
use serde_json::Value;

use crate::config::HttpEndpoint;
use crate::protocol::{Dialect, MODERN_VERSION};

/// Servers refuse a request that does not accept both.
pub(crate) const ACCEPTED: &str = "application/json, text/event-stream";
/// The time from sending a request to the head of its answer that no call exceeds; calls have their own limits.
const HEAD_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// What the server gave in the handshake of 2025-11-25.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HttpSession {
    pub(super) id: Option<String>,
    pub(super) version: String,
}

/// A request to the endpoint with what every request has.
pub(super) fn request_to(
    endpoint: &HttpEndpoint,
    method: &str,
    token: Option<&Secret>,
) -> Result<OutboundRequest, OutboundError> {
    let mut request = OutboundRequest::new(method, &endpoint.url)?.timeout(HEAD_TIMEOUT);
    for (name, value) in &endpoint.headers {
        request = request.header(name, value.expose_secret())?;
    }
    if let Some(token) = token {
        request = request.header("authorization", &format!("Bearer {}", token.expose_secret()))?;
    }
    // Streams have no bound; each message in them has.
    request.max_response_bytes(usize::MAX).header("accept", ACCEPTED)
}

/// Says again in headers what the message says, as 2026-07-28 asks, or names the session of 2025-11-25. `params` are the
/// parameters of the call that its tool wants to see there.
pub(super) fn with_protocol(
    request: OutboundRequest,
    dialect: Dialect,
    session: Option<&HttpSession>,
    message: &Value,
    params: &[(String, String)],
) -> Result<OutboundRequest, OutboundError> {
    match (dialect, session) {
        (Dialect::Modern, _) => {
            let method = message["method"].as_str().unwrap_or_default();
            let request =
                request.header("mcp-protocol-version", MODERN_VERSION)?.header("mcp-method", method)?;
            let request = match message["params"]["name"].as_str() {
                Some(name) => request.header("mcp-name", &header_text(name))?,
                None => request,
            };
            params
                .iter()
                .try_fold(request, |request, (name, value)| request.header(name, &header_text(value)))
        }
        (Dialect::Legacy, Some(session)) => with_session(request, session),
        (Dialect::Legacy, None) => Ok(request),
    }
}

pub(super) fn with_session(
    request: OutboundRequest,
    session: &HttpSession,
) -> Result<OutboundRequest, OutboundError> {
    let request = request.header("mcp-protocol-version", &session.version)?;
    match &session.id {
        Some(id) => request.header("mcp-session-id", id),
        None => Ok(request),
    }
}

/// Text that a header cannot carry is sent as Base64, in the form that 2026-07-28 defines.
pub(crate) fn header_text(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && text.trim() == text;
    if is_plain && !text.starts_with("=?base64?") {
        text.to_owned()
    } else {
        format!("=?base64?{}?=", BASE64.encode(text))
    }
}

/// The text of a header that may be encoded in that form; `None` if its Base64 is none, or is no text.
pub(crate) fn decoded_header(header: &str) -> Option<Cow<'_, str>> {
    let encoded = header.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?="));
    let Some(encoded) = encoded else { return Some(Cow::Borrowed(header)) };
    String::from_utf8(BASE64.decode(encoded).ok()?).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_from_the_header_that_carries_it() {
        for text in [
            "search",
            "gathering://projects/1/files/ä b.md",
            " padded ",
            "line\nfeed",
            "=?base64?literal?=",
            "",
        ] {
            let header = header_text(text);
            assert!(header.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{header}");
            assert_eq!(decoded_header(&header).as_deref(), Some(text));
        }
        assert_eq!(header_text("Hello, 世界"), "=?base64?SGVsbG8sIOS4lueVjA==?=");
        assert_eq!(decoded_header("=?base64?!?="), None);
    }
}
