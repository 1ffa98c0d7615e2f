//! The names of mounted MCP servers, and of their tools.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes. It is part of the names of tools, which have 64.
const MAX_BYTES: usize = 24;

/// Ends the name of the server in the name of a tool.
const SEPARATOR: &str = "__";

/// The name of a mounted MCP server: 1 to 24 letters, digits, `-`, and single `_` between other characters.
///
/// Without `__` in it and `_` at its ends, the first `__` of a tool's name always ends the name of its server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct McpServerName(String);

/// A text that cannot name an MCP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of an MCP server has 1 to {MAX_BYTES} letters, digits, `-`, and single `_` between other characters"
)]
pub struct InvalidMcpServerName;

impl McpServerName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The server that a tool of this name belongs to; `None` if it cannot be one of a mounted server.
    pub fn of_tool(tool: &str) -> Option<Self> {
        tool.split_once(SEPARATOR)?.0.parse().ok()
    }
}

impl FromStr for McpServerName {
    type Err = InvalidMcpServerName;

    fn from_str(text: &str) -> Result<Self, InvalidMcpServerName> {
        let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let is_clear = !text.starts_with('_') && !text.ends_with('_') && !text.contains(SEPARATOR);
        if is_clear && (1..=MAX_BYTES).contains(&text.len()) && text.bytes().all(is_inside) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidMcpServerName)
        }
    }
}

impl TryFrom<String> for McpServerName {
    type Error = InvalidMcpServerName;

    fn try_from(text: String) -> Result<Self, InvalidMcpServerName> {
        text.parse()
    }
}

impl From<McpServerName> for String {
    fn from(name: McpServerName) -> Self {
        name.0
    }
}

impl fmt::Display for McpServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_server_leaves_no_doubt_where_it_ends() {
        for good in ["a", "files", "my-files_2", &"x".repeat(24)] {
            assert_eq!(good.parse::<McpServerName>().map(String::from).as_deref(), Ok(good));
        }
        for bad in ["", "_a", "a_", "a__b", "a b", "ä", &"x".repeat(25)] {
            assert_eq!(bad.parse::<McpServerName>(), Err(InvalidMcpServerName), "{bad}");
        }
    }

    #[test]
    fn the_name_of_a_tool_says_which_server_it_belongs_to() {
        let server = |tool: &str| McpServerName::of_tool(tool).map(String::from);
        assert_eq!(server("time__get_current_time").as_deref(), Some("time"));
        assert_eq!(server("a__b__c").as_deref(), Some("a"));
        for tool in ["read_file", "__x", "a b__c", ""] {
            assert_eq!(server(tool), None, "{tool}");
        }
    }
}
