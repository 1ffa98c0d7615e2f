//! What a relay has to know of a message.

use serde_json::{Value, json};

use super::name_of;

const PARSE_ERROR: i64 = -32700;
const INTERNAL_ERROR: i64 = -32603;

/// A message of the client. Its text is passed on byte for byte.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// The id of an answer: null for what is no request that can be answered, absent where nothing is to be answered.
    pub(super) id: Option<Value>,
    /// Empty for a message without one.
    pub(super) method: String,
    /// The value for the header `Mcp-Name`.
    pub(super) name: Option<String>,
    /// Whether it is one since 2026-07-28.
    pub(super) is_modern: bool,
}

/// As the server reads it.
fn id_of_answer(message: &Value) -> Option<Value> {
    let is_request = message.get("method").is_some_and(Value::is_string);
    let asks_nothing = if is_request {
        message.get("id").is_none()
    } else {
        message.get("result").is_some() || message.get("error").is_some()
    };
    let may_be_id = |id: &&Value| is_request && (id.is_string() || id.is_i64() || id.is_u64());
    (!asks_nothing).then(|| message.get("id").filter(may_be_id).cloned().unwrap_or_default())
}

impl Message {
    /// Reads a message, and gives its text back.
    ///
    /// # Errors
    /// The answer to what is no JSON.
    pub(super) fn read(text: Vec<u8>) -> Result<(Self, String), Value> {
        let no_json = || json!({"jsonrpc": "2.0", "id": null, "error": {"code": PARSE_ERROR, "message": "Parse error"}});
        let text = String::from_utf8(text).map_err(|_| no_json())?;
        let read: Value = serde_json::from_str(&text).map_err(|_| no_json())?;
        let method = read["method"].as_str().unwrap_or_default().to_owned();
        let params = &read["params"];
        let version = params.pointer("/_meta/io.modelcontextprotocol~1protocolVersion");
        let message = Self {
            id: id_of_answer(&read),
            name: name_of(&method, params),
            is_modern: version.is_some_and(Value::is_string),
            method,
        };
        Ok((message, text))
    }

    /// The answer when the server gives none; `None` where nothing is to be answered.
    pub(super) fn error(&self, reason: &str) -> Option<Value> {
        let id = self.id.as_ref()?;
        Some(json!({"jsonrpc": "2.0", "id": id, "error": {"code": INTERNAL_ERROR, "message": reason}}))
    }
}
