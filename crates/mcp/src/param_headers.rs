//! The parameters that a tool wants to see in headers, too: those that its schema marks with `x-mcp-header`.
//!
//! Owns which marks are valid, and what the headers of a call are. Never knows how a request is sent.

use std::collections::BTreeMap;

use gathering_domain::{Pointer, Problems};
use serde_json::{Map, Value};

/// The mark, whose value is the last part of the header's name.
const MARK: &str = "x-mcp-header";

/// The first part of the header's name.
const PREFIX: &str = "mcp-param-";

/// The largest integer, and without its sign the smallest, that every implementation reads as it was written.
const MAX_INTEGER: i64 = (1 << 53) - 1;

/// Keywords whose value is a schema, or a list of schemas.
const SCHEMAS: [&str; 16] = [
    "items",
    "prefixItems",
    "additionalItems",
    "unevaluatedItems",
    "contains",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "contentSchema",
    "not",
    "if",
    "then",
    "else",
    "allOf",
    "anyOf",
    "oneOf",
];

/// Keywords whose value has a schema under each name.
const NAMED_SCHEMAS: [&str; 5] =
    ["patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions"];

/// The marked parameters of a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ParamHeaders(Vec<ParamHeader>);

/// A marked parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ParamHeader {
    name: String,
    /// Where it is in the arguments.
    pointer: Pointer,
}

impl ParamHeaders {
    /// Reads the marks of a schema.
    ///
    /// # Errors
    /// The first mark that is not valid, and why.
    pub(crate) fn read(schema: &Value) -> Result<Self, String> {
        let mut found = Found::default();
        if let Value::Object(schema) = schema {
            found.visit(schema, Some(&Pointer::root()))?;
        }
        Ok(Self(found.headers))
    }

    /// The headers of a call with these arguments, which fit the schema: names and values. A parameter that is missing
    /// or `null` has none.
    ///
    /// # Errors
    /// Integers that other implementations would read as others.
    pub(crate) fn of_call(&self, arguments: &Value) -> Result<Vec<(String, String)>, Problems> {
        let (mut headers, mut problems) = (Vec::new(), Problems::new());
        for ParamHeader { name, pointer } in &self.0 {
            let text = match arguments.pointer(pointer.as_str()) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Bool(value)) => value.to_string(),
                Some(value @ Value::Number(_)) => match whole(value) {
                    Some(number) => number.to_string(),
                    None => {
                        let message = format!(
                            "is sent as a header, so it must be from -{MAX_INTEGER} to {MAX_INTEGER}"
                        );
                        problems.add(pointer.clone(), message);
                        continue;
                    }
                },
                _ => continue,
            };
            headers.push((name.clone(), text));
        }
        if problems.is_empty() { Ok(headers) } else { Err(problems) }
    }
}

/// The marks that were found so far.
#[derive(Default)]
struct Found {
    headers: Vec<ParamHeader>,
    /// The places of the names, in lower case: case does not distinguish headers.
    places: BTreeMap<String, Pointer>,
}

impl Found {
    /// Visits a schema. `place` is that of the parameter which it describes, if it is one for certain.
    fn visit(&mut self, schema: &Map<String, Value>, place: Option<&Pointer>) -> Result<(), String> {
        if let Some(mark) = schema.get(MARK) {
            self.take(mark, schema, place.filter(|place| **place != Pointer::root()))?;
        }
        for (keyword, value) in schema {
            match (keyword.as_str(), value) {
                ("properties", Value::Object(properties)) => {
                    for (name, property) in properties {
                        let place = place.map(|place| place.join(name));
                        self.visit_value(property, place.as_ref())?;
                    }
                }
                (keyword, Value::Object(named)) if NAMED_SCHEMAS.contains(&keyword) => {
                    named.values().try_for_each(|schema| self.visit_value(schema, None))?;
                }
                (keyword, Value::Array(several)) if SCHEMAS.contains(&keyword) => {
                    several.iter().try_for_each(|schema| self.visit_value(schema, None))?;
                }
                (keyword, schema) if SCHEMAS.contains(&keyword) => self.visit_value(schema, None)?,
                // What else there is holds no schemas: a default, an example, words for people.
                _ => {}
            }
        }
        Ok(())
    }

    fn visit_value(&mut self, schema: &Value, place: Option<&Pointer>) -> Result<(), String> {
        schema.as_object().map_or(Ok(()), |schema| self.visit(schema, place))
    }

    fn take(
        &mut self,
        mark: &Value,
        schema: &Map<String, Value>,
        place: Option<&Pointer>,
    ) -> Result<(), String> {
        let place =
            place.ok_or_else(|| format!("a mark `{mark}` stands where no parameter is certain to be"))?;
        let name = mark.as_str().filter(|name| is_token(name));
        let name = name.ok_or_else(|| format!("{place}: {mark} is no name for a header"))?;
        if !["string", "integer", "boolean"]
            .iter()
            .any(|kind| schema.get("type") == Some(&Value::from(*kind)))
        {
            return Err(format!("{place}: only a string, an integer or a boolean can be a header"));
        }
        let name = format!("{PREFIX}{}", name.to_ascii_lowercase());
        if let Some(other) = self.places.insert(name.clone(), place.clone()) {
            return Err(format!("{place}: {other} has the same header {mark}"));
        }
        self.headers.push(ParamHeader { name, pointer: place.clone() });
        Ok(())
    }
}

/// Whether it may be part of the name of a header (RFC 9110).
fn is_token(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

/// A whole number, however it is written, that every implementation reads in the same way.
fn whole(number: &Value) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "what does not fit is out of bounds, and 2.0 is 2")]
    let whole = |number: f64| (number.fract() == 0.0).then_some(number as i64);
    let number = number.as_i64().or_else(|| number.as_f64().and_then(whole))?;
    (-MAX_INTEGER..=MAX_INTEGER).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(properties: Value) -> Value {
        json!({"type": "object", "properties": properties})
    }

    fn marked(kind: &str, name: &str) -> Value {
        json!({"type": kind, "x-mcp-header": name})
    }

    #[test]
    fn marked_parameters_become_headers_and_missing_ones_none() {
        let nested = schema(json!({"a/b": marked("integer", "Limit")}));
        let schema = schema(json!({
            "region": marked("string", "Region"), "dry": marked("boolean", "X-Dry"), "options": nested,
            "n": marked("integer", "n"), "gone": marked("string", "Gone"), "none": marked("string", "None"), "plain": {},
            "x-mcp-header": {"type": "object", "default": {"x-mcp-header": ""}}}));
        let headers = ParamHeaders::read(&schema).unwrap();
        let arguments = json!({"region": "eu", "dry": false, "options": {"a/b": -7}, "n": 42.0, "none": null, "plain": 1});
        let mut sent = headers.of_call(&arguments).unwrap();
        sent.sort();
        let expected = [("dry", "false"), ("limit", "-7"), ("n", "42"), ("region", "eu")];
        let expected = expected.map(|(name, value)| (name.replace("dry", "x-dry"), value));
        let mut expected = expected.map(|(name, value)| (format!("mcp-param-{name}"), value.to_owned()));
        expected.sort();
        assert_eq!(sent, expected);
        assert_eq!(headers.of_call(&json!({"options": 3})).unwrap(), []);
    }

    #[test]
    fn an_integer_that_others_would_read_as_another_is_not_sent() {
        let headers = ParamHeaders::read(&schema(json!({"n": marked("integer", "N")}))).unwrap();
        for n in [json!(MAX_INTEGER), json!(-MAX_INTEGER), json!(1e15)] {
            assert!(headers.of_call(&json!({"n": n})).is_ok(), "{n}");
        }
        for n in [json!(MAX_INTEGER + 1), json!(-MAX_INTEGER - 1), json!(u64::MAX), json!(1e300)] {
            let problems = headers.of_call(&json!({"n": n})).unwrap_err().to_string();
            assert!(problems.starts_with("/n: is sent as a header"), "{problems}");
        }
    }

    #[test]
    fn a_mark_that_is_not_valid_is_named_with_its_place() {
        let string = || marked("string", "A");
        for (bad, why) in [
            (schema(json!({"a": marked("string", "")})), "/a: \"\" is no name for a header"),
            (schema(json!({"a": marked("string", "two words")})), "/a: \"two words\" is no name"),
            (schema(json!({"a": marked("string", "a\r\nb")})), "/a: \"a\\r\\nb\" is no name"),
            (schema(json!({"a": {"type": "string", "x-mcp-header": 7}})), "/a: 7 is no name"),
            (schema(json!({"a": marked("number", "A")})), "/a: only a string"),
            (schema(json!({"a": {"x-mcp-header": "A", "type": ["string", "null"]}})), "/a: only a string"),
            (schema(json!({"a": {"x-mcp-header": "A", "$ref": "#/$defs/a"}})), "/a: only a string"),
            (schema(json!({"a": string(), "b": marked("string", "a")})), "/b: /a has the same header \"a\""),
            (string(), "a mark `\"A\"` stands where"),
            (schema(json!({"a": {"type": "array", "items": string()}})), "a mark"),
            (schema(json!({"a": {"items": schema(json!({"b": string()}))}})), "a mark"),
            (json!({"anyOf": [schema(json!({"a": string()}))]}), "a mark"),
            (json!({"$defs": {"a": string()}}), "a mark"),
            (json!({"if": {}, "then": schema(json!({"a": string()}))}), "a mark"),
            (json!({"additionalProperties": string()}), "a mark"),
        ] {
            let found = ParamHeaders::read(&bad).unwrap_err();
            assert!(found.starts_with(why), "{bad}: {found}");
        }
    }
}
