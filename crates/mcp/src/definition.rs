//! A tool as its server describes it, and its digest.
//!
//! Owns which parts of the description matter: a change of any of them is a change of the tool.

use gathering_domain::Digest;
use serde_json::{Map, Value};

use crate::pins::FieldChange;

/// The parts of a definition that people and models rely on.
const FIELDS: [&str; 7] =
    ["name", "title", "description", "inputSchema", "outputSchema", "annotations", "execution"];

/// What a server says of a tool: the name, the descriptions, the schemas and the annotations.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolDefinition(Value);

impl ToolDefinition {
    /// Takes the parts that matter of an entry of the server's list. `None` if it has no name.
    pub fn read(entry: &Value) -> Option<Self> {
        entry.get("name")?.as_str()?;
        let part = |field: &str| {
            let value = entry.get(field).filter(|value| !value.is_null())?;
            Some((field.to_owned(), value.clone()))
        };
        Some(Self(Value::Object(FIELDS.iter().filter_map(|field| part(field)).collect::<Map<_, _>>())))
    }

    /// The digest of all parts. The order of keys does not matter.
    pub fn digest(&self) -> Digest {
        Digest::of_json(&self.0)
    }

    /// The definition as JSON, to be stored and read again.
    pub const fn as_json(&self) -> &Value {
        &self.0
    }

    /// The server's name for the tool.
    pub fn name(&self) -> &str {
        self.text("name").unwrap_or_default()
    }

    /// What it does, in the server's words.
    pub fn description(&self) -> &str {
        self.text("description").or_else(|| self.text("title")).unwrap_or_default()
    }

    /// The JSON Schema of its arguments; any object if the server names none.
    pub fn input_schema(&self) -> Value {
        self.0.get("inputSchema").cloned().unwrap_or_else(|| serde_json::json!({"type": "object"}))
    }

    /// The JSON Schema of its structured results.
    pub fn output_schema(&self) -> Option<&Value> {
        self.0.get("outputSchema")
    }

    /// Whether it can only be called as a task, which this client does not do.
    pub(crate) fn needs_task(&self) -> bool {
        self.0.pointer("/execution/taskSupport").is_some_and(|support| support == "required")
    }

    pub(crate) fn hint(&self, name: &str) -> Option<bool> {
        self.0.get("annotations")?.get(name)?.as_bool()
    }

    /// What is different in `new`.
    pub(crate) fn changes(&self, new: &Self) -> Vec<FieldChange> {
        let differs = |field: &&&str| self.0.get(**field) != new.0.get(**field);
        let change = |field: &&str| FieldChange {
            field: (*field).to_owned(),
            old: self.0.get(*field).cloned(),
            new: new.0.get(*field).cloned(),
        };
        FIELDS.iter().filter(differs).map(change).collect()
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field)?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(entry: &Value) -> ToolDefinition {
        ToolDefinition::read(entry).unwrap()
    }

    #[test]
    fn a_definition_is_the_same_until_a_part_changes_that_people_or_models_rely_on() {
        let first =
            read(&json!({"name": "a", "description": "b", "inputSchema": {"type": "object", "title": "c"}}));
        let reordered = json!({"inputSchema": {"title": "c", "type": "object"}, "description": "b", "name": "a",
                               "_meta": {"requests": 7}, "outputSchema": null});
        assert_eq!(first.digest(), read(&reordered).digest());
        for (field, value) in [
            ("description", json!("b, and sends it to everybody")),
            ("inputSchema", json!({"type": "object", "title": "d"})),
            ("outputSchema", json!({"type": "object"})),
            ("annotations", json!({"readOnlyHint": true})),
        ] {
            let mut changed = first.as_json().clone();
            changed[field] = value;
            let changed = read(&changed);
            assert_ne!(first.digest(), changed.digest(), "{field}");
            let fields: Vec<String> =
                first.changes(&changed).into_iter().map(|change| change.field).collect();
            assert_eq!(fields, [field]);
        }
    }

    #[test]
    fn a_definition_survives_its_storage() {
        let definition = read(&json!({"name": "a", "title": "A", "execution": {"taskSupport": "required"}}));
        assert_eq!(read(definition.as_json()), definition);
        assert_eq!(definition.description(), "A");
        assert_eq!(ToolDefinition::read(&json!({"description": "no name"})), None);
    }
}
