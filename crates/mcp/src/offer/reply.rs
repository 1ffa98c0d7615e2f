//! Answers, as both generations expect them.

use serde_json::{Value, json};

use super::error::METHOD_NOT_FOUND;
use super::request::Request;
use crate::message::RpcError;

/// The answer to a message: over HTTP with this status, on a pipe without it.
#[derive(Debug, Clone, PartialEq)]
pub struct McpReply {
    /// The HTTP status.
    pub status: u16,
    /// The message; none for what asks for nothing.
    pub body: Option<Value>,
}

impl McpReply {
    /// To a message that asks for nothing.
    pub(super) const fn accepted() -> Self {
        Self { status: 202, body: None }
    }

    pub(super) fn refused(status: u16, id: &Value, error: &RpcError) -> Self {
        let mut shown = json!({"code": error.code, "message": error.message});
        if !error.data.is_null() {
            shown["data"] = error.data.clone();
        }
        Self { status, body: Some(json!({"jsonrpc": "2.0", "id": id, "error": shown})) }
    }

    pub(super) fn of(request: &Request, outcome: Result<Value, RpcError>) -> Self {
        match outcome {
            Ok(mut result) => {
                if request.is_modern && result.get("resultType").is_none() {
                    result["resultType"] = json!("complete");
                }
                Self {
                    status: 200,
                    body: Some(json!({"jsonrpc": "2.0", "id": request.id, "result": result})),
                }
            }
            Err(error) => {
                // Since 2026-07-28 an unknown method is told from a lost session by its status.
                let status = if request.is_modern && error.code == METHOD_NOT_FOUND { 404 } else { 200 };
                Self::refused(status, &request.id, &error)
            }
        }
    }
}

/// What a list says since 2026-07-28 of how long it may be kept: not at all, as it depends on the caller.
pub(super) fn listed(request: &Request, mut list: Value) -> Value {
    if request.is_modern {
        list["ttlMs"] = json!(0);
        list["cacheScope"] = json!("private");
    }
    list
}
