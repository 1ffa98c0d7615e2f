//! Which fields a valid value can have, as far as a schema names them.

use serde_json::{Map, Value};

/// Keywords beside which `properties` does not name all fields.
const OPEN: &[&str] = &[
    "$ref",
    "$dynamicRef",
    "allOf",
    "anyOf",
    "oneOf",
    "if",
    "then",
    "else",
    "dependentSchemas",
    "patternProperties",
];

/// How many names a message lists.
const MAX_NAMES: usize = 20;

/// Why no valid value is expected to have the field at `path`; `None` if one may have it. `root` is the name of the value
/// in the message.
///
/// An object whose schema has `properties` is taken to have no others, though JSON Schema allows them: who reads a field
/// that the schema does not name has most often misspelled it. `additionalProperties: true` allows others.
pub(crate) fn unknown(schema: &Value, root: &str, path: &[String]) -> Option<String> {
    let mut schema = schema;
    for (depth, name) in path.iter().enumerate() {
        let fields = closed_fields(schema)?;
        let Some(field) = fields.get(name) else {
            let place = path[..depth].iter().fold(root.to_owned(), |place, name| format!("{place}.{name}"));
            let mut known: Vec<&str> = fields.keys().map(String::as_str).collect();
            known.sort_unstable();
            known.truncate(MAX_NAMES);
            let more = if fields.len() > MAX_NAMES { " and more" } else { "" };
            return Some(match known.as_slice() {
                [] => format!("the schema names no fields of `{place}`, so no `{name}`"),
                known => {
                    format!("the schema names no `{name}` in `{place}`: it has {}{more}", known.join(", "))
                }
            });
        };
        schema = field;
    }
    None
}

/// The fields of an object with this schema, if the schema names them all.
fn closed_fields(schema: &Value) -> Option<&Map<String, Value>> {
    let keywords = schema.as_object()?;
    if OPEN.iter().any(|keyword| keywords.contains_key(*keyword)) {
        return None;
    }
    let additional = ["additionalProperties", "unevaluatedProperties"];
    if additional
        .iter()
        .filter_map(|keyword| keywords.get(*keyword))
        .any(|value| *value != Value::Bool(false))
    {
        return None;
    }
    keywords.get("properties")?.as_object()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn unknown_at(schema: &Value, path: &str) -> Option<String> {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        unknown(schema, "input", &path)
    }

    #[test]
    fn a_misspelled_field_is_named_with_those_that_there_are() {
        let schema = json!({"properties": {
            "name": {"type": "string"},
            "limits": {"properties": {"words": {}}},
            "none": {"properties": {}},
        }});
        for path in ["name", "limits", "limits.words", "name.length", "limits.words.anything"] {
            assert_eq!(unknown_at(&schema, path), None, "{path}");
        }
        for (path, message) in [
            ("nmae", "the schema names no `nmae` in `input`: it has limits, name, none"),
            ("limits.wrods", "the schema names no `wrods` in `input.limits`: it has words"),
            ("none.x", "the schema names no fields of `input.none`, so no `x`"),
        ] {
            assert_eq!(unknown_at(&schema, path).as_deref(), Some(message));
        }
    }

    #[test]
    fn a_schema_that_leaves_other_fields_open_knows_no_unknown_ones() {
        let named = json!({"name": {}});
        for schema in [
            json!(true),
            json!({}),
            json!({"type": "object"}),
            json!({"properties": named, "additionalProperties": true}),
            json!({"properties": named, "additionalProperties": {"type": "string"}}),
            json!({"properties": named, "patternProperties": {"^x": {}}}),
            json!({"properties": named, "anyOf": [{"properties": {"other": {}}}]}),
        ] {
            assert_eq!(unknown_at(&schema, "other"), None, "{schema}");
        }
        let closed = json!({"properties": named, "additionalProperties": false});
        assert!(unknown_at(&closed, "other").is_some());
    }
}
