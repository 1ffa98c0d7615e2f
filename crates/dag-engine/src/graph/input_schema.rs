//! `input: {schema}` of a definition: what the input of its runs must be.

use std::sync::Arc;

use gathering_domain::{Pointer, Problems};
use gathering_schema::JsonSchema;
use serde_json::Value;

use crate::expression::Expression;
use crate::fields::{Fields, Shape};

/// What the input of a run must be. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct InputSchema(Arc<JsonSchema>);

impl PartialEq for InputSchema {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl InputSchema {
    /// The schema of a stored definition, which was valid once; `None` if the definition has none.
    ///
    /// # Errors
    /// What is wrong with it, by the rules of this version.
    pub fn of_definition(definition: &Value) -> Result<Option<Self>, Problems> {
        let mut problems = Problems::new();
        let schema = Self::read(definition, &mut problems);
        problems.into_result().map(|()| schema)
    }

    /// The schema of a definition that is being validated.
    pub(super) fn read(definition: &Value, problems: &mut Problems) -> Option<Self> {
        let input = definition.get("input").filter(|input| input.is_object())?;
        let at = Pointer::root().join("input");
        let mut fields = Fields::of(input, at.clone(), problems)?;
        let schema = fields.required("schema", Shape::Object);
        fields.finish();
        match JsonSchema::compile(schema?) {
            Ok(schema) => Some(Self(Arc::new(schema))),
            Err(error) => {
                problems.add(at.join("schema"), error.to_string());
                None
            }
        }
    }

    /// The schema as it was written.
    pub fn source(&self) -> &Value {
        self.0.source()
    }

    /// The input that a run gets: what `input` leaves out is filled with the defaults of the schema.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place in the input.
    pub fn complete(&self, input: Value) -> Result<Value, Problems> {
        let input = self.0.fill(input);
        self.0.check(&input).map(|()| input)
    }

    /// Names what an expression reads of the input though no input has it.
    pub(super) fn check_reads(&self, expression: &Expression, at: &Pointer, problems: &mut Problems) {
        for message in expression.input_paths().filter_map(|path| self.0.unknown_field("input", path)) {
            problems.add(at.clone(), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::graph::Graph;
    use crate::node_type::NodeSpecs;

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "topic": {"type": "string"},
                "limits": {"properties": {"words": {"default": 200}}},
                "items": {"type": "array"},
            },
            "required": ["topic"],
        })
    }

    fn problems_of(definition: Value) -> Vec<String> {
        let problems = Graph::validate(&definition, &NodeSpecs::builtin()).err();
        problems.into_iter().flatten().map(|problem| problem.to_string()).collect()
    }

    fn condition(expression: &str) -> Value {
        json!({"id": "a", "type": "condition", "config": {"expression": expression}})
    }

    #[test]
    fn a_graph_completes_and_checks_the_input_of_its_runs() {
        let definition = json!({"nodes": [{"id": "a", "type": "trigger"}], "input": {"schema": schema()}});
        let graph = Graph::validate(&definition, &NodeSpecs::builtin()).unwrap();
        let of_graph = graph.input_schema().unwrap();
        let of_definition = InputSchema::of_definition(&definition).unwrap().unwrap();
        for input in [of_graph, &of_definition] {
            let completed = input.complete(json!({"topic": "rivers", "limits": {}})).unwrap();
            assert_eq!(completed, json!({"topic": "rivers", "limits": {"words": 200}}));
            let problems = input.complete(json!({"items": 1})).unwrap_err();
            assert_eq!(problems.to_string(), "/items: must be of type array; /topic: is required");
        }
        assert!(InputSchema::of_definition(&json!({"nodes": []})).unwrap().is_none());
    }

    #[test]
    fn expressions_know_the_fields_of_the_input_wherever_they_are() {
        let right = "input.topic == 'x' && has(input.limits.words)";
        assert!(problems_of(json!({"nodes": [condition(right)], "input": {"schema": schema()}})).is_empty());
        let item = json!({"id": "b", "type": "condition", "config": {"expression": "input.c > 1"}});
        let map =
            json!({"id": "m", "type": "map", "config": {"items": "input.items", "graph": {"nodes": [item]}}});
        let definition = json!({
            "nodes": [condition("input.a == 1"), map],
            "edges": [{"from": "a", "to": "m", "when": "input.limits.b == 1"}],
            "output": "input.d",
            "input": {"schema": schema()},
        });
        let has = "it has items, limits, topic";
        assert_eq!(
            problems_of(definition),
            [
                format!(
                    "/nodes/1/config/graph/nodes/0/config/expression: the schema names no `c` in `input`: {has}"
                ),
                format!("/nodes/0/config/expression: the schema names no `a` in `input`: {has}"),
                "/edges/0/when: the schema names no `b` in `input.limits`: it has words".to_owned(),
                format!("/output: the schema names no `d` in `input`: {has}"),
            ]
        );
    }

    #[test]
    fn a_schema_that_is_none_is_a_problem_at_its_place() {
        for (input, expected) in [
            (json!({"schema": {"type": "strin"}}), "/input/schema: invalid JSON Schema"),
            (json!({"schema": {"$ref": "https://example.org/schema"}}), "/input/schema: invalid JSON Schema"),
            (json!({"schema": []}), "/input/schema: must be"),
            (json!({}), "/input/schema: is missing"),
            (json!({"schema": {}, "shema": {}}), "/input/shema: is not known here"),
            (json!([]), "/input: must be"),
        ] {
            let problems = problems_of(json!({"nodes": [condition("true")], "input": input}));
            assert!(problems.len() == 1 && problems[0].starts_with(expected), "{input}: {problems:?}");
        }
    }

    #[test]
    fn the_graph_of_an_item_has_no_input_of_its_own() {
        let graph = json!({"nodes": [condition("true")], "input": {"schema": {}}});
        let map = json!({"id": "m", "type": "map", "config": {"items": "[1]", "graph": graph}});
        let problems = problems_of(json!({"nodes": [map]}));
        assert!(problems[0].starts_with("/nodes/0/config/graph/input: "), "{problems:?}");
    }
}
