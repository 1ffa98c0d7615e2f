//! The schemas of parameters and answers, as simple as servers need them.
//!
//! Some servers make a grammar of a schema, and refuse the whole request for a keyword that they do not know (llama.cpp
//! for a pattern with `\d`). So they are told less: a simple schema accepts whatever the whole one does, and what the model
//! sends is checked against the whole one.

mod pattern;
mod plain;

use serde_json::{Map, Value, json};

/// Schemas within schemas, references included. Deeper ones allow everything.
const MAX_DEPTH: usize = 24;
/// Schemas in all. Further ones allow everything.
const MAX_SCHEMAS: usize = 2000;

/// A schema with none of these allows everything, whatever else it says.
const SHAPES: [&str; 7] = ["type", "enum", "const", "anyOf", "properties", "items", "pattern"];

/// The simplified schema of an answer; `None` if it allows everything. The same for the same schema.
pub(super) fn of_answer(schema: &Value) -> Option<Value> {
    let simple = Simplifier::of(schema);
    (!simple.is_empty()).then_some(Value::Object(simple))
}

/// The simplified schema of the parameters of a tool, which are an object. The same for the same schema.
pub(super) fn of_parameters(schema: &Value) -> Value {
    let mut object = Simplifier::of(schema);
    object.entry("type").or_insert_with(|| json!("object"));
    if object["type"] == "object" {
        object.entry("properties").or_insert_with(|| json!({}));
    }
    Value::Object(object)
}

struct Simplifier<'a> {
    root: &'a Value,
    n_schemas: usize,
    /// The references that the schema is within, and an empty one for each other step down.
    inside: Vec<&'a str>,
}

impl<'a> Simplifier<'a> {
    fn of(schema: &'a Value) -> Map<String, Value> {
        Self { root: schema, n_schemas: 0, inside: vec!["#"] }.schema(schema).unwrap_or_default()
    }

    /// The schema below this one; `None` if nothing is valid.
    fn below(&mut self, schema: &'a Value, reference: &'a str) -> Option<Value> {
        if self.inside.len() >= MAX_DEPTH || self.n_schemas >= MAX_SCHEMAS {
            return Some(json!({}));
        }
        self.n_schemas += 1;
        self.inside.push(reference);
        let simple = self.schema(schema);
        self.inside.pop();
        simple.map(Value::Object)
    }

    fn schema(&mut self, schema: &'a Value) -> Option<Map<String, Value>> {
        let Value::Object(schema) = schema else {
            return (*schema != Value::Bool(false)).then(Map::new);
        };
        let mut simple = Map::new();
        for (keyword, value) in schema {
            if let Some(value) = self.keyword(keyword, value) {
                simple.insert(keyword.clone(), value);
            }
        }
        // Choices that are told in part may look alike, so that more than one of them fits.
        if let Some(choices) = simple.remove("oneOf") {
            simple.entry("anyOf").or_insert(choices);
        }
        if schema.contains_key("patternProperties") {
            simple.remove("additionalProperties");
        }
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            add(&mut simple, self.referenced(target)?);
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            add(&mut simple, self.below(part, "")?);
        }
        plain::drop_contradictions(&mut simple);
        let has_shape = SHAPES.iter().any(|shape| simple.contains_key(*shape));
        Some(if has_shape { simple } else { Map::new() })
    }

    /// What is left of a keyword.
    fn keyword(&mut self, keyword: &str, value: &'a Value) -> Option<Value> {
        match (keyword, value) {
            ("properties", Value::Object(properties)) => {
                let simple = properties
                    .iter()
                    .filter_map(|(name, property)| Some((name.clone(), self.below(property, "")?)));
                Some(Value::Object(simple.collect()))
            }
            ("items", Value::Object(_) | Value::Bool(true)) => self.below(value, ""),
            ("anyOf" | "oneOf", Value::Array(choices)) => {
                let simple = choices.iter().filter_map(|choice| self.below(choice, ""));
                let simple: Vec<Value> = simple.collect();
                (!simple.is_empty()).then_some(Value::Array(simple))
            }
            ("additionalProperties", Value::Bool(_)) => Some(value.clone()),
            _ => plain::keyword(keyword, value),
        }
    }

    /// The schema that a reference names: one that allows everything if it is within itself, or elsewhere.
    fn referenced(&mut self, reference: &'a str) -> Option<Value> {
        let target = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
        match target {
            Some(target) if !self.inside.contains(&reference) => self.below(target, reference),
            _ => Some(json!({})),
        }
    }
}

/// Adds what another schema demands as well. What is there stays.
fn add(simple: &mut Map<String, Value>, other: Value) {
    let Value::Object(other) = other else { return };
    for (keyword, value) in other {
        match (simple.get_mut(&keyword), value) {
            (None, value) => {
                simple.insert(keyword, value);
            }
            (Some(Value::Object(known)), Value::Object(more)) if keyword == "properties" => {
                for (name, property) in more {
                    known.entry(name).or_insert(property);
                }
            }
            (Some(Value::Array(known)), Value::Array(more)) if keyword == "required" => {
                let new: Vec<Value> = more.into_iter().filter(|name| !known.contains(name)).collect();
                known.extend(new);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use gathering_tools::JsonSchema;

    use super::*;

    /// The schema of a property `x` of this schema, with these definitions.
    fn property(schema: &Value, definitions: &Value) -> Value {
        let whole = json!({"type": "object", "properties": {"x": schema}, "$defs": definitions});
        let simple = of_parameters(&whole);
        assert_eq!(simple, of_parameters(&whole));
        assert_eq!(simple.get("$defs"), None);
        simple["properties"]["x"].clone()
    }

    #[test]
    fn what_every_server_knows_stays() {
        let schema = json!({
            "type": "object", "description": "d", "required": ["a"], "additionalProperties": false,
            "properties": {
                "a": {"type": "string", "minLength": 1, "maxLength": 9, "pattern": "^[a-z]+\\.md$"},
                "b": {"type": ["integer", "null"], "minimum": 0, "maximum": 9},
                "c": {"type": "array", "items": {"enum": [1, "2"]}, "minItems": 1, "maxItems": 2},
                "d": {"anyOf": [{"const": 1}, {"type": "boolean"}]},
                "pattern": {"anyOf": [{"type": "null"}, {"type": "string"}]}
            }
        });
        assert_eq!(of_parameters(&schema), schema);
    }

    #[test]
    fn what_some_servers_refuse_is_left_out() {
        let none = json!({});
        for pattern in ["\\d+", "^\\d+$", "[a-z]+", "^a", "a$", "^a\\$", "^(?=a)a$", "^\\w$", "^\\u0041$"] {
            let schema = json!({"type": "string", "pattern": pattern, "format": "x", "title": "t"});
            assert_eq!(property(&schema, &none), json!({"type": "string"}), "{pattern}");
        }
        let map =
            json!({"type": "object", "additionalProperties": {"type": "string"}, "patternProperties": {}});
        assert_eq!(property(&map, &none), json!({"type": "object"}));
        for anything in [json!(true), json!({}), json!({"description": "d", "pattern": "\\d", "minimum": 1})]
        {
            assert_eq!(property(&anything, &none), json!({}), "{anything}");
        }
        assert_eq!(property(&json!(false), &none), Value::Null);
        let array = json!({"type": "array", "items": false, "prefixItems": [{"type": "string"}]});
        assert_eq!(property(&array, &none), json!({"type": "array"}));
        let choice = json!({"anyOf": [false, {"type": "string"}], "oneOf": [false]});
        assert_eq!(property(&choice, &none), json!({"anyOf": [{"type": "string"}]}));
    }

    #[test]
    fn bounds_that_nothing_is_between_are_left_out() {
        let schema = json!({
            "type": ["array", "number"], "minItems": 3, "maxItems": 3, "allOf": [{"minimum": 5}, {"maximum": 2}]
        });
        let expected = json!({"type": ["array", "number"], "minItems": 3, "maxItems": 3});
        assert_eq!(property(&schema, &json!({})), expected);
    }

    #[test]
    fn references_are_replaced_by_what_they_name() {
        let definitions = json!({
            "name": {"type": "string", "description": "A name."},
            "tree": {"type": "object", "properties": {"below": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}
        });
        let named = json!({"$ref": "#/$defs/name", "description": "His name."});
        assert_eq!(property(&named, &definitions), json!({"type": "string", "description": "His name."}));
        let all = json!({"allOf": [{"$ref": "#/$defs/name"}], "maxLength": 3});
        let expected = json!({"type": "string", "description": "A name.", "maxLength": 3});
        assert_eq!(property(&all, &definitions), expected);
        let tree = json!({"type": "object", "properties": {"below": {"type": "array", "items": {}}}});
        assert_eq!(property(&json!({"$ref": "#/$defs/tree"}), &definitions), tree);
        for elsewhere in ["#/$defs/none", "other.json", "#anchor", "#"] {
            assert_eq!(property(&json!({"$ref": elsewhere}), &definitions), json!({}), "{elsewhere}");
        }
    }

    /// What the whole schema accepts must be possible: some servers let the model write nothing else.
    #[test]
    fn a_simple_schema_accepts_what_the_whole_one_does() {
        let either =
            json!({"oneOf": [{"type": "string", "pattern": "a"}, {"type": "string", "pattern": "b"}]});
        let prefixed = json!({
            "type": "object", "patternProperties": {"^x-": {}}, "additionalProperties": false, "required": ["x-a"]
        });
        for (schema, value) in [
            (json!({"enum": ["low", "high"]}), json!("low")),
            (json!({"const": 1}), json!(1)),
            (json!({"type": "array", "items": {"type": "integer"}}), json!([1])),
            (json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), json!(null)),
            (either, json!("a")),
            (prefixed, json!({"x-a": 1})),
        ] {
            let accepts = |schema: &Value| JsonSchema::compile(schema).unwrap().check(&value).is_ok();
            let simple = of_answer(&schema).unwrap();
            assert!(accepts(&schema) && accepts(&simple), "{simple}");
        }
        for anything in [json!({"$ref": "#"}), json!({"description": "d"}), json!({"format": "date"})] {
            assert_eq!(of_answer(&anything), None, "{anything}");
        }
    }

    #[test]
    fn what_all_parts_demand_is_demanded_together() {
        let part = |name: &str| json!({"type": "object", "properties": {name: {"type": "string"}}, "required": [name]});
        let both = json!({"allOf": [part("a"), part("b"), part("a")]});
        let expected = json!({
            "type": "object", "required": ["a", "b"],
            "properties": {"a": {"type": "string"}, "b": {"type": "string"}}
        });
        assert_eq!(of_parameters(&both), expected);
    }

    #[test]
    fn a_schema_is_bounded_in_size_and_depth() {
        // Each definition names the next one ten times.
        let mut definitions = Map::new();
        for at in 0..30 {
            let next = json!({"$ref": format!("#/$defs/d{}", at + 1)});
            let properties: Map<String, Value> =
                (0..10).map(|name| (format!("p{name}"), next.clone())).collect();
            definitions.insert(format!("d{at}"), json!({"type": "object", "properties": properties}));
        }
        let simple = property(&json!({"$ref": "#/$defs/d0"}), &Value::Object(definitions));
        assert!(simple.to_string().len() < 100 * MAX_SCHEMAS, "{}", simple.to_string().len());
    }

    #[test]
    fn parameters_are_those_of_an_object() {
        for anything in [json!({}), json!(true), json!(null), json!({"type": "object"})] {
            assert_eq!(of_parameters(&anything), json!({"type": "object", "properties": {}}), "{anything}");
        }
    }
}
