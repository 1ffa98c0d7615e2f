//! What a budget bounds, and how much of it.

use std::collections::BTreeMap;
use std::str::FromStr;

/// The largest amount of any resource: every JSON reader holds it exactly.
pub const MAX_AMOUNT: i64 = 1_000_000_000_000_000;

/// An amount of each resource; a resource that is absent is not meant.
pub type Amounts = BTreeMap<Resource, i64>;

/// Something that calls use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// The tokens that models read and write.
    Tokens,
    /// Calls of models.
    ModelCalls,
    /// Calls of tools.
    ToolCalls,
}

impl Resource {
    /// Every resource.
    pub const ALL: [Resource; 3] = [Resource::Tokens, Resource::ModelCalls, Resource::ToolCalls];

    /// Its name in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Resource::Tokens => "tokens",
            Resource::ModelCalls => "model_calls",
            Resource::ToolCalls => "tool_calls",
        }
    }
}

impl FromStr for Resource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Resource::ALL.into_iter().find(|resource| resource.as_str() == text);
        found.ok_or_else(|| format!("unknown budget resource `{text}`"))
    }
}
