//! `tool: {name, description}` of a definition: the pipeline as a tool of models.

use gathering_domain::{MAX_TOOL_NAME, Pointer, Problems, is_tool_name};
use serde_json::Value;

use super::InputSchema;
use crate::fields::{Fields, Shape};

/// The longest description, in characters.
const MAX_DESCRIPTION: usize = 4000;

/// What a definition says of itself as a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOffer {
    /// Its name: 1 to 64 characters of `a-z A-Z 0-9 _ -`.
    pub name: String,
    /// What it does and when to use it.
    pub description: Option<String>,
}

impl ToolOffer {
    /// What a valid definition, or the field `tool` of one, says.
    pub fn of_field(tool: &Value) -> Option<Self> {
        let name = tool.get("name")?.as_str()?.to_owned();
        let description = tool.get("description").and_then(Value::as_str).map(str::to_owned);
        Some(Self { name, description })
    }

    /// Names what is wrong with it.
    pub(super) fn check(definition: &Value, input: Option<&InputSchema>, problems: &mut Problems) {
        let Some(tool) = definition.get("tool").filter(|tool| tool.is_object()) else { return };
        let at = Pointer::root().join("tool");
        let Some(mut fields) = Fields::of(tool, at, problems) else { return };
        let name = fields.required("name", Shape::Text).and_then(Value::as_str);
        if name.is_some_and(|name| !is_tool_name(name)) {
            fields.problem("name", format!("must be 1 to {MAX_TOOL_NAME} letters, digits, `_` or `-`"));
        }
        let description = fields.optional("description", Shape::Text).and_then(Value::as_str);
        if description.is_some_and(|text| text.chars().count() > MAX_DESCRIPTION) {
            fields.problem("description", format!("must have at most {MAX_DESCRIPTION} characters"));
        }
        fields.finish();
        if input.is_some_and(|input| input.source()["type"] != "object") {
            let message = "must be of type `object`, as the arguments of a tool are";
            problems.add(Pointer::root().join("input").join("schema").join("type"), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::graph::Graph;
    use crate::node_type::NodeSpecs;

    fn problems_of(tool: Value, schema: Option<Value>) -> Vec<String> {
        let mut definition = json!({"nodes": [{"id": "a", "type": "trigger"}], "tool": tool});
        if let Some(schema) = schema {
            definition["input"] = json!({ "schema": schema });
        }
        let problems = Graph::validate(&definition, &NodeSpecs::builtin()).err();
        problems.into_iter().flatten().map(|problem| problem.to_string()).collect()
    }

    #[test]
    fn a_pipeline_is_a_tool_with_a_name_and_an_input_that_is_an_object() {
        assert!(problems_of(json!({"name": "sum-up_2", "description": "Sums up"}), None).is_empty());
        assert!(problems_of(json!({"name": "a"}), Some(json!({"type": "object"}))).is_empty());
        for (tool, schema, expected) in [
            (json!({}), None, "/tool/name: is missing"),
            (json!({"name": "sum up"}), None, "/tool/name: must be 1 to 64"),
            (json!({"name": "x".repeat(65)}), None, "/tool/name: must be 1 to 64"),
            (json!({"name": "a", "title": "A"}), None, "/tool/title: is not known here"),
            (json!({"name": "a", "description": "x".repeat(4001)}), None, "/tool/description: must have"),
            (json!([]), None, "/tool: must be"),
            (
                json!({"name": "a"}),
                Some(json!({"type": "array"})),
                "/input/schema/type: must be of type `object`",
            ),
            (json!({"name": "a"}), Some(json!({})), "/input/schema/type: must be of type `object`"),
        ] {
            let problems = problems_of(tool.clone(), schema);
            assert!(problems.len() == 1 && problems[0].starts_with(expected), "{tool}: {problems:?}");
        }
    }

    #[test]
    fn an_offer_is_read_from_its_field() {
        let offer = ToolOffer::of_field(&json!({"name": "a", "description": "b"})).unwrap();
        assert_eq!((offer.name.as_str(), offer.description.as_deref()), ("a", Some("b")));
        assert_eq!(ToolOffer::of_field(&Value::Null), None);
    }
}
