//! Requests as both generations send them: read, and checked before anything is done.

use serde_json::{Value, json};

use super::error::{HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR};
use super::reply::McpReply;
use crate::http::decoded_header;
use crate::message::RpcError;
use crate::protocol::{LEGACY_VERSIONS, MODERN_VERSION, UNSUPPORTED_VERSION};

/// What HTTP says beside a message. On a pipe there is nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct McpHeaders<'a> {
    /// Whether the message came over HTTP.
    pub is_http: bool,
    /// `MCP-Protocol-Version`.
    pub protocol_version: Option<&'a str>,
    /// `Mcp-Method`.
    pub method: Option<&'a str>,
    /// `Mcp-Name`.
    pub name: Option<&'a str>,
    /// `Mcp-Session-Id`. There are no sessions here.
    pub session: Option<&'a str>,
}

/// A request that may be answered.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: Value,
    pub(super) method: String,
    pub(super) params: Value,
    /// Whether it is one since 2026-07-28.
    pub(super) is_modern: bool,
}

/// A message of a client.
pub(super) enum Incoming {
    Request(Request),
    /// A notification, or an answer: nothing was asked.
    Nothing,
}

/// Reads a message.
///
/// # Errors
/// The answer that refuses it.
pub(super) fn read(body: &[u8], headers: &McpHeaders<'_>) -> Result<Incoming, Box<McpReply>> {
    let refuse = |status, id: &Value, code, message: &str| {
        Box::new(McpReply::refused(status, id, &RpcError::new(code, message)))
    };
    let Ok(message) = serde_json::from_slice::<Value>(body) else {
        return Err(refuse(400, &Value::Null, PARSE_ERROR, "Parse error"));
    };
    let Value::Object(mut fields) = message else {
        let message = "Invalid request: one JSON-RPC message is expected, and no batch";
        return Err(refuse(400, &Value::Null, INVALID_REQUEST, message));
    };
    if fields.get("jsonrpc") != Some(&json!("2.0")) {
        let message = "Invalid request: `jsonrpc` must be \"2.0\"";
        return Err(refuse(400, &Value::Null, INVALID_REQUEST, message));
    }
    let id = fields.remove("id");
    let Some(Value::String(method)) = fields.remove("method") else {
        if fields.contains_key("result") || fields.contains_key("error") {
            return Ok(Incoming::Nothing);
        }
        return Err(refuse(400, &Value::Null, INVALID_REQUEST, "Invalid request: `method` is missing"));
    };
    let Some(id) = id else { return Ok(Incoming::Nothing) };
    if !(id.is_string() || id.is_i64() || id.is_u64()) {
        return Err(refuse(
            400,
            &Value::Null,
            INVALID_REQUEST,
            "Invalid request: `id` must be a text or a whole number",
        ));
    }
    if headers.session.is_some() {
        // An id of another server, or of a time when there were sessions: the client has to begin again.
        return Err(refuse(404, &id, INVALID_REQUEST, "Session not found: this server has no sessions"));
    }
    let params = fields.remove("params").unwrap_or_else(|| json!({}));
    if !params.is_object() {
        return Err(refuse(400, &id, INVALID_PARAMS, "`params` must be an object"));
    }
    let is_modern =
        version_of(&params, headers).map_err(|error| Box::new(McpReply::refused(400, &id, &error)))?;
    let request = Request { id, method, params, is_modern };
    if is_modern && headers.is_http {
        check_headers(&request, headers)
            .map_err(|message| refuse(400, &request.id, HEADER_MISMATCH, &message))?;
    }
    Ok(Incoming::Request(request))
}

/// Whether the request is one since 2026-07-28: it says so itself.
fn version_of(params: &Value, headers: &McpHeaders<'_>) -> Result<bool, RpcError> {
    let said = params.pointer("/_meta/io.modelcontextprotocol~1protocolVersion").and_then(Value::as_str);
    match (said, headers.protocol_version) {
        (Some(MODERN_VERSION), _) => Ok(true),
        (Some(other), _) => Err(unsupported(other)),
        (None, Some(MODERN_VERSION)) => Err(RpcError::new(
            INVALID_PARAMS,
            "`params._meta` must have `io.modelcontextprotocol/protocolVersion` and `io.modelcontextprotocol/clientCapabilities`",
        )),
        (None, Some(version)) if !LEGACY_VERSIONS.contains(&version) => Err(unsupported(version)),
        (None, _) => Ok(false),
    }
}

fn unsupported(requested: &str) -> RpcError {
    let mut supported = vec![MODERN_VERSION];
    supported.extend(LEGACY_VERSIONS);
    let requested: String = requested.chars().take(32).collect();
    let data = json!({"supported": supported, "requested": requested});
    RpcError { data, ..RpcError::new(UNSUPPORTED_VERSION, "Unsupported protocol version") }
}

/// Middleboxes route by the headers, so they must say what the body says.
fn check_headers(request: &Request, headers: &McpHeaders<'_>) -> Result<(), String> {
    if headers.protocol_version != Some(MODERN_VERSION) {
        return Err(format!("the header MCP-Protocol-Version must be {MODERN_VERSION}, as in the body"));
    }
    if headers.method != Some(request.method.as_str()) {
        return Err("the header Mcp-Method must be the method of the body".to_owned());
    }
    let Some(named) = named_parameter(&request.method) else { return Ok(()) };
    match (headers.name.and_then(decoded_header), request.params[named].as_str()) {
        (Some(header), Some(name)) if header == name => Ok(()),
        (_, Some(_)) => Err(format!("the header Mcp-Name must be `params.{named}` of the body")),
        (_, None) => Ok(()),
    }
}

/// The parameter that the header `Mcp-Name` repeats.
pub(crate) fn named_parameter(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" => Some("uri"),
        "tasks/get" | "tasks/update" | "tasks/cancel" => Some("taskId"),
        _ => None,
    }
}

impl Request {
    /// The text of a parameter.
    ///
    /// # Errors
    /// If it is missing.
    pub(super) fn text(&self, name: &str) -> Result<&str, RpcError> {
        let text = self.params[name].as_str();
        text.ok_or_else(|| {
            RpcError::new(INVALID_PARAMS, &format!("`params.{name}` is missing: it must be a text"))
        })
    }

    /// The cursor of a list.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.params["cursor"].as_str()
    }
}
