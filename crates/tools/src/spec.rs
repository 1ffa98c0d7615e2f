//! The description of a tool.
//!
//! Owns what people, models and the engine read about a tool. Never knows how a tool works.

use std::fmt;

use gathering_domain::EffectClass;
use serde_json::Value;

/// A tool's name, purpose, parameters and effect class.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// Its name, unique in a toolbox: 1 to 64 characters of `a-z A-Z 0-9 _ -`, as model providers require.
    pub name: String,
    /// What it does and when to use it, for people and models.
    pub description: String,
    /// The JSON Schema (2020-12) of its parameters, an object. References to other documents are rejected.
    pub parameters: Value,
    /// What repeating a call may do.
    pub class: EffectClass,
    /// The tool's origin.
    pub source: ToolSource,
}

/// The origin of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolSource {
    /// The tool is part of the program.
    BuiltIn,
    /// The MCP server of this name offers the tool.
    Mcp(String),
}

impl fmt::Display for ToolSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ToolSource::BuiltIn => f.write_str("builtin"),
            ToolSource::Mcp(server) => write!(f, "mcp:{server}"),
        }
    }
}
