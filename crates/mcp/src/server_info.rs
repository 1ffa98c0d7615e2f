//! What a server says of itself.

use serde_json::Value;

use crate::message::shortened;
use crate::protocol::MODERN_VERSION;

/// The longest instructions that are kept, in bytes.
const MAX_INSTRUCTIONS: usize = 16 * 1024;

/// What a server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct McpServerInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version of the protocol that the connection speaks.
    pub protocol_version: String,
    /// What it wants models to know.
    pub instructions: Option<String>,
    /// Whether it has tools.
    pub has_tools: bool,
    /// Whether it tells when its tools change.
    pub tells_changes: bool,
    /// Whether it has a log for its clients.
    pub has_log: bool,
}

impl McpServerInfo {
    /// From the answer to `initialize`.
    pub(crate) fn initialized(result: &Value) -> Self {
        let version = text(result.get("protocolVersion"));
        Self::read(result, result.get("serverInfo"), version)
    }

    /// From the answer to `server/discover`.
    pub(crate) fn discovered(result: &Value) -> Self {
        let about = result.pointer("/_meta/io.modelcontextprotocol~1serverInfo");
        Self::read(result, about, MODERN_VERSION.to_owned())
    }

    fn read(result: &Value, about: Option<&Value>, protocol_version: String) -> Self {
        let tools = result.pointer("/capabilities/tools");
        let instructions = result.get("instructions").and_then(Value::as_str);
        Self {
            name: text(about.and_then(|about| about.get("name"))),
            version: text(about.and_then(|about| about.get("version"))),
            protocol_version,
            instructions: instructions.map(|text| shortened(text, MAX_INSTRUCTIONS)),
            has_tools: tools.is_some_and(Value::is_object),
            tells_changes: tools.is_some_and(|tools| tools["listChanged"] == true),
            has_log: result.pointer("/capabilities/logging").is_some_and(Value::is_object),
        }
    }
}

fn text(value: Option<&Value>) -> String {
    shortened(value.and_then(Value::as_str).unwrap_or_default(), 256)
}
