//! Answers whose status is no success. The status alone does not say what is wrong: servers answer 400 and 404 to a lost
//! session, and 404 also to an unknown method.

use crate::McpError;
use crate::message::{self, Message, RpcError, shortened};

/// The code for an unknown method.
const METHOD_NOT_FOUND: i64 = -32601;
/// The longest text of an answer that is repeated, in bytes.
const MAX_TEXT: usize = 512;

/// What an answer with this status and body means. `has_session`: whether the request named a session.
pub(super) fn read(status: u16, body: &[u8], has_session: bool) -> McpError {
    let error = match message::read(body).and_then(|mut found| found.pop()) {
        Some(Message::Response { outcome: Err(error), .. }) => Some(error),
        _ => None,
    };
    if has_session && is_lost_session(status, error.as_ref()) {
        return McpError::SessionLost;
    }
    match error {
        Some(error) => error.into(),
        None => {
            let text = String::from_utf8_lossy(body);
            McpError::Status { status, message: shortened(text.trim(), MAX_TEXT) }
        }
    }
}

fn is_lost_session(status: u16, error: Option<&RpcError>) -> bool {
    let names_session = |error: &RpcError| {
        let text = error.message.to_ascii_lowercase();
        text.contains("session") || text.contains("not initialized")
    };
    match status {
        404 => error.is_none_or(|error| error.code != METHOD_NOT_FOUND),
        400 => error.is_some_and(names_session),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(code: i64, message: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","error":{{"code":{code},"message":"{message}"}},"id":null}}"#)
    }

    #[test]
    fn a_lost_session_is_told_from_an_unknown_method_by_the_body() {
        let lost = |status, text: &str| matches!(read(status, text.as_bytes(), true), McpError::SessionLost);
        assert!(lost(400, &body(-32000, "Bad Request: No valid session ID provided")));
        assert!(lost(400, &body(-32000, "Bad Request: Server not initialized")));
        assert!(lost(404, &body(-32600, "Session not found")));
        assert!(lost(404, ""));
        assert!(!lost(404, &body(-32601, "Method not found")));
        assert!(!lost(400, &body(-32602, "Invalid params")));
        assert!(!lost(500, &body(-32603, "session store is down")));
        assert!(matches!(read(404, b"", false), McpError::Status { status: 404, .. }));
    }
}
