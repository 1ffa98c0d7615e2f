//! Pins: the definitions of tools that the operator has accepted.
//!
//! A server can describe its tools differently every day, and a model follows descriptions. So a tool is callable only
//! while it is what was accepted; what is new or different waits for a person.

use std::collections::BTreeMap;
use std::fmt;

use gathering_domain::Digest;
use serde_json::Value;

use crate::definition::ToolDefinition;

/// Which definitions are accepted.
#[derive(Debug, Clone)]
pub enum ToolPins {
    /// Whatever the server says, today and tomorrow: for programs whose operator wrote the server.
    AcceptAll,
    /// These, by the server's names. Any other tool waits.
    Only(BTreeMap<String, ToolDefinition>),
}

impl Default for ToolPins {
    /// Every tool waits.
    fn default() -> Self {
        Self::Only(BTreeMap::new())
    }
}

/// How a server's tools differ from the pins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolChanges {
    /// Tools that are not pinned.
    pub added: Vec<String>,
    /// Pinned tools that the server does not have any more.
    pub removed: Vec<String>,
    /// Pinned tools that the server describes differently.
    pub changed: Vec<ToolChange>,
}

impl ToolChanges {
    /// Whether every tool is what was pinned.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// How a tool differs from its pin.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolChange {
    /// The tool, by the server's name.
    pub tool: String,
    /// What differs, at least one field.
    pub fields: Vec<FieldChange>,
}

impl fmt::Display for ToolChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<&str> = self.fields.iter().map(|change| change.field.as_str()).collect();
        f.write_str(&fields.join(", "))
    }
}

/// A field of a definition that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldChange {
    /// Such as `description` or `inputSchema`.
    pub field: String,
    /// What was pinned.
    pub old: Option<Value>,
    /// What the server says now.
    pub new: Option<Value>,
}

/// How `definition` relates to the pins.
pub(crate) enum Pinned {
    Same,
    New,
    Changed(ToolChange),
}

impl ToolPins {
    pub(crate) fn compare(&self, definition: &ToolDefinition) -> Pinned {
        let Self::Only(pins) = self else { return Pinned::Same };
        let Some(pin) = pins.get(definition.name()) else { return Pinned::New };
        if pin.digest() == definition.digest() {
            return Pinned::Same;
        }
        Pinned::Changed(ToolChange { tool: definition.name().to_owned(), fields: pin.changes(definition) })
    }

    /// What tells these pins from others; `None` if everything is accepted.
    pub(crate) fn digest(&self) -> Option<Digest> {
        let Self::Only(pins) = self else { return None };
        let pins: BTreeMap<&String, &Value> =
            pins.iter().map(|(name, definition)| (name, definition.as_json())).collect();
        Some(Digest::of_json(&serde_json::json!(pins)))
    }

    /// The names of pinned tools.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let pins = match self {
            Self::AcceptAll => None,
            Self::Only(pins) => Some(pins.keys().map(String::as_str)),
        };
        pins.into_iter().flatten()
    }
}
