//! What a tool says of itself.
//!
//! Owns the description that people, models and the engine read. Never knows how a tool works.

use std::fmt;

use gathering_domain::EffectClass;
use serde_json::Value;

/// The most characters that a tool's name may have.
pub(crate) const MAX_NAME_LEN: usize = 64;

/// A tool's name, purpose, parameters and class of effect.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// Its name, unique in a toolbox: 1 to 64 characters of `a-z A-Z 0-9 _ -`, as model providers ask for.
    pub name: String,
    /// What it does and when to use it, in words for a person or a model.
    pub description: String,
    /// The JSON Schema (2020-12) of its parameters; an object. References to other documents are refused.
    pub parameters: Value,
    /// What repeating a call does.
    pub class: EffectClass,
    /// Where it comes from.
    pub source: ToolSource,
}

/// Where a tool comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolSource {
    /// It is part of the program.
    BuiltIn,
    /// It is offered by the MCP server of this name.
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
