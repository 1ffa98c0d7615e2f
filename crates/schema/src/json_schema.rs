//! Compiled JSON Schemas, and the messages for violations.

use std::fmt;

use gathering_domain::{Pointer, Problem, Problems};
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

use crate::bounds::{self, OutOfBounds};
use crate::{defaults, known_fields};

/// The maximum number of violations in one report, which keeps the answer small.
pub const MAX_PROBLEMS: usize = 100;

/// The maximum size of a schema as compact JSON, in bytes.
pub const MAX_SCHEMA_BYTES: usize = 256 * 1024;

/// A compiled JSON Schema (2020-12 unless it says otherwise).
pub struct JsonSchema {
    source: Value,
    validator: Validator,
    /// Whether only the value as a whole is reported.
    is_branching: bool,
}

/// An invalid JSON Schema.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSchema {
    /// It is no JSON Schema, or it refers to another document.
    #[error("invalid JSON Schema: {0}")]
    Invalid(String),
    /// A value could take too long to check.
    #[error(transparent)]
    OutOfBounds(#[from] OutOfBounds),
}

impl JsonSchema {
    /// Compiles `schema`. Patterns are regular expressions of the `regex` crate, which take linear time: look-around and
    /// back-references are invalid. The work for a value is bounded.
    ///
    /// # Errors
    /// [`InvalidSchema`] if it is invalid, refers to another document, or is out of bounds.
    pub fn compile(schema: &Value) -> Result<Self, InvalidSchema> {
        bounds::check(schema)?;
        let options = jsonschema::options().offline().with_pattern_options(PatternOptions::regex());
        let validator = options.build(schema).map_err(|error| InvalidSchema::Invalid(error.to_string()))?;
        Ok(Self { source: schema.clone(), validator, is_branching: bounds::is_branching(schema) })
    }

    /// The schema as it was written.
    pub const fn source(&self) -> &Value {
        &self.source
    }

    /// Fills the fields that `value` leaves out: with the `default` that `properties` give them, or else with their `const`.
    /// Fields of objects that are there are filled as well; what is there stays as it is, also if it is null. A default
    /// below `anyOf`, `oneOf`, `if` or `items` has no effect, as what applies there depends on the value.
    #[must_use]
    pub fn fill(&self, mut value: Value) -> Value {
        defaults::fill(&self.source, &mut value);
        value
    }

    /// Why no valid value has this field, as far as the schema tells; `None` if one may have it. `path` is the names that
    /// lead to the field, and `root` the name of the whole value in the message.
    pub fn unknown_field(&self, root: &str, path: &[String]) -> Option<String> {
        known_fields::unknown(&self.source, root, path)
    }

    /// Checks `value` and reports every invalid location, at most 100. A schema that refers to itself in more than one way
    /// for the same value reports the value as a whole.
    ///
    /// # Errors
    /// Every problem, ordered by location.
    pub fn check(&self, value: &Value) -> Result<(), Problems> {
        if self.validator.is_valid(value) {
            return Ok(());
        }
        if self.is_branching {
            let message =
                "does not match the schema, which refers to itself in too many ways to name the place";
            return Err(Problems::one(Pointer::root(), message));
        }
        let mut found: Vec<Problem> =
            self.validator.iter_errors(value).flat_map(problems_of).take(MAX_PROBLEMS).collect();
        found.sort();
        found.dedup();
        let mut problems = Problems::new();
        for problem in found {
            problems.add(problem.pointer, problem.message);
        }
        problems.into_result()
    }
}

impl fmt::Debug for JsonSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonSchema").finish_non_exhaustive()
    }
}

fn problems_of(error: ValidationError<'_>) -> Vec<Problem> {
    let place = Pointer::from(error.instance_path().as_str().to_owned());
    let at = |pointer: Pointer, message: String| Problem { pointer, message };
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            vec![at(place.join(name), "is required".to_owned())]
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let unknown = |name: &String| at(place.join(name), "is unknown here".to_owned());
            unexpected.iter().map(unknown).collect()
        }
        kind => {
            let message = words_for(kind).unwrap_or_else(|| error.masked().to_string());
            vec![at(place, message)]
        }
    }
}

/// Our own messages for common violations. They never repeat the value.
fn words_for(kind: &ValidationErrorKind) -> Option<String> {
    Some(match kind {
        ValidationErrorKind::Type { kind: TypeKind::Single(one) } => format!("must be of type {one}"),
        ValidationErrorKind::Type { kind: TypeKind::Multiple(several) } => {
            let names: Vec<String> = several.iter().map(|one| one.to_string()).collect();
            format!("must be of type {}", names.join(" or "))
        }
        ValidationErrorKind::Enum { options } => {
            let options: Vec<String> = options.as_array()?.iter().map(Value::to_string).collect();
            format!("must be one of {}", options.join(", "))
        }
        ValidationErrorKind::Constant { expected_value } => format!("must be {expected_value}"),
        ValidationErrorKind::Minimum { limit } => format!("must be at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("must be at most {limit}"),
        ValidationErrorKind::MinLength { limit } => format!("must have at least {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("must have at most {limit} characters"),
        ValidationErrorKind::MinItems { limit } => format!("must have at least {limit} items"),
        ValidationErrorKind::MaxItems { limit } => format!("must have at most {limit} items"),
        ValidationErrorKind::Pattern { pattern } => format!("must match the pattern {pattern}"),
        ValidationErrorKind::Format { format } => format!("must have the format {format}"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: &Value, value: &Value) -> Vec<String> {
        let checked = JsonSchema::compile(schema).unwrap().check(value);
        checked.err().into_iter().flatten().map(|problem| problem.to_string()).collect()
    }

    #[test]
    fn every_invalid_location_is_reported_at_once() {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["url", "method"],
            "properties": {
                "url": {"type": "string", "minLength": 1},
                "method": {"enum": ["GET", "POST"]},
                "headers": {"type": "object", "additionalProperties": {"type": "string"}},
                "tags": {"type": "array", "items": {"type": ["string", "integer"]}}
            }
        });
        let value =
            json!({"method": "FETCH", "headers": {"a/b": 1}, "tags": ["x", 2, null], "urll": "", "z~": 1});
        assert_eq!(
            check(&schema, &value),
            [
                "/headers/a~1b: must be of type string",
                "/method: must be one of \"GET\", \"POST\"",
                "/tags/2: must be of type integer or string",
                "/url: is required",
                "/urll: is unknown here",
                "/z~0: is unknown here",
            ]
        );
        assert!(check(&schema, &json!({"method": "GET", "url": "x"})).is_empty());
    }

    #[test]
    fn a_problem_does_not_repeat_the_value() {
        let schema = json!({"not": {"type": "string"}});
        assert!(!check(&schema, &json!("s3cret"))[0].contains("s3cret"));
    }

    #[test]
    fn the_list_of_problems_is_bounded() {
        let many = Value::Array(vec![Value::Null; 10_000]);
        assert_eq!(check(&json!({"items": {"type": "string"}}), &many).len(), MAX_PROBLEMS);
    }

    #[test]
    fn a_schema_that_branches_checks_and_reports_the_value_as_a_whole() {
        let again = json!({"$ref": "#/$defs/a"});
        let either = json!([{"properties": {"x": again}, "required": ["y"]}, {"type": "null"}, {"type": "array", "items": again}]);
        let one_way = json!({"$defs": {"a": {"anyOf": either}}, "$ref": "#/$defs/a"});
        let both = json!({"properties": {"x": again}, "required": ["y"]});
        let branching = json!({"$defs": {"a": {"allOf": [both, both]}}, "$ref": "#/$defs/a"});
        let (right, wrong) = (json!({"y": 1, "x": {"y": 2}}), json!({"y": 1, "x": {}}));
        assert!(check(&one_way, &right).is_empty() && check(&branching, &right).is_empty());
        assert!(!check(&one_way, &wrong)[0].contains("too many ways"));
        assert!(check(&branching, &wrong)[0].contains("too many ways"));
    }

    #[test]
    fn a_pattern_is_linear_or_refused() {
        assert_eq!(
            check(&json!({"pattern": "^[a-z]+$"}), &json!("A")),
            ["/: must match the pattern ^[a-z]+$"]
        );
        assert!(JsonSchema::compile(&json!({"pattern": "(?=a)b"})).is_err());
    }

    #[test]
    fn a_reference_to_another_document_is_rejected() {
        let remote = json!({"$ref": "https://example.org/schema.json"});
        assert!(JsonSchema::compile(&remote).is_err());
        assert!(JsonSchema::compile(&json!({"$ref": "file:///etc/passwd"})).is_err());
        assert!(JsonSchema::compile(&json!({"type": "strin"})).is_err());
    }
}
