//! The messages of JSON-RPC 2.0, as both transports carry them.
//!
//! Owns how a message is read and written. Never knows what a method means.

use serde_json::{Map, Value, json};

/// The longest text of a server's error that is kept, in bytes.
const MAX_ERROR_TEXT: usize = 4096;

/// A message of the server.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    /// The answer to a request of ours.
    Response { id: Value, outcome: Result<Value, RpcError> },
    /// A request of the server.
    Request { id: Value, method: String, params: Value },
    /// A notification of the server.
    Notification { method: String, params: Value },
}

/// An error of JSON-RPC.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RpcError {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Value,
}

impl RpcError {
    pub(crate) fn new(code: i64, message: &str) -> Self {
        Self { code, message: message.to_owned(), data: Value::Null }
    }

    fn read(error: &Value) -> Self {
        let message = error.get("message").and_then(Value::as_str).unwrap_or("without a message");
        Self {
            code: error.get("code").and_then(Value::as_i64).unwrap_or_default(),
            message: shortened(message, MAX_ERROR_TEXT),
            data: error.get("data").cloned().unwrap_or_default(),
        }
    }
}

impl From<RpcError> for crate::McpError {
    fn from(error: RpcError) -> Self {
        Self::Rpc { code: error.code, message: error.message }
    }
}

/// The messages in `text`: one, or several in an array. `None` if it is not JSON-RPC.
pub(crate) fn read(text: &[u8]) -> Option<Vec<Message>> {
    match serde_json::from_slice(text).ok()? {
        Value::Array(several) => several.into_iter().map(read_one).collect(),
        one => Some(vec![read_one(one)?]),
    }
}

fn read_one(value: Value) -> Option<Message> {
    let Value::Object(mut fields) = value else { return None };
    let params = |fields: &mut Map<String, Value>| fields.remove("params").unwrap_or_default();
    match (fields.remove("method"), fields.remove("id")) {
        (Some(Value::String(method)), Some(id)) => {
            Some(Message::Request { id, method, params: params(&mut fields) })
        }
        (Some(Value::String(method)), None) => {
            Some(Message::Notification { method, params: params(&mut fields) })
        }
        (None, id) => {
            let outcome = match (fields.remove("result"), fields.remove("error")) {
                (_, Some(error)) if !error.is_null() => Err(RpcError::read(&error)),
                (Some(result), _) => Ok(result),
                (None, _) => return None,
            };
            Some(Message::Response { id: id.unwrap_or_default(), outcome })
        }
        _ => None,
    }
}

pub(crate) fn request(id: u64, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

pub(crate) fn notification(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

/// Our answer to a request of the server.
pub(crate) fn response(id: &Value, outcome: Result<Value, RpcError>) -> Value {
    match outcome {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": error.code, "message": error.message}})
        }
    }
}

/// The beginning of `text`, at most `limit` bytes.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(limit)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_message_is_read() {
        let one = |text: &str| read(text.as_bytes()).map(|mut found| found.remove(0));
        assert_eq!(
            one(r#"{"jsonrpc":"2.0","id":0,"method":"ping"}"#),
            Some(Message::Request { id: json!(0), method: "ping".to_owned(), params: Value::Null })
        );
        assert!(matches!(one(r#"{"method":"a","params":{}}"#), Some(Message::Notification { .. })));
        assert!(matches!(one(r#"{"id":1,"result":null}"#), Some(Message::Response { outcome: Ok(_), .. })));
        assert!(matches!(one(r#"{"error":{"code":-1,"message":"x"}}"#), Some(Message::Response { .. })));
        assert_eq!(read(br#"[{"id":1,"result":{}},{"method":"a"}]"#).map(|found| found.len()), Some(2));
    }

    #[test]
    fn anything_else_is_no_message() {
        for text in ["hello from print", "", "1", r#""text""#, "{}", r#"{"id":1}"#, r#"{"method":1}"#, "[1]"]
        {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
    }
}
