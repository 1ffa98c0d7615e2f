//! Compiled JSON Schemas that report everything that is wrong with a value.
//!
//! Owns the messages for violations. Never follows a reference out of the schema.

use std::fmt;

use gathering_domain::{Pointer, Problem, Problems};
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

/// The maximum number of violations in one report, which keeps the answer small.
const MAX_PROBLEMS: usize = 100;

/// A compiled JSON Schema (2020-12 unless it says otherwise).
pub struct ParameterSchema {
    validator: Validator,
}

/// An invalid JSON Schema.
#[derive(Debug, thiserror::Error)]
#[error("invalid JSON Schema: {reason}")]
pub struct InvalidSchema {
    reason: String,
}

impl ParameterSchema {
    /// Compiles `schema`.
    ///
    /// # Errors
    /// [`InvalidSchema`] if it is invalid or refers to another document.
    pub fn compile(schema: &Value) -> Result<Self, InvalidSchema> {
        let built = jsonschema::options().offline().build(schema);
        let validator = built.map_err(|error| InvalidSchema { reason: error.to_string() })?;
        Ok(Self { validator })
    }

    /// Checks `value` and reports every invalid location, at most 100.
    ///
    /// # Errors
    /// Every problem, ordered by location.
    pub fn check(&self, value: &Value) -> Result<(), Problems> {
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

impl fmt::Debug for ParameterSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParameterSchema").finish_non_exhaustive()
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
        let checked = ParameterSchema::compile(schema).unwrap().check(value);
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
    fn a_reference_to_another_document_is_rejected() {
        let remote = json!({"$ref": "https://example.org/schema.json"});
        assert!(ParameterSchema::compile(&remote).is_err());
        assert!(ParameterSchema::compile(&json!({"$ref": "file:///etc/passwd"})).is_err());
        assert!(ParameterSchema::compile(&json!({"type": "strin"})).is_err());
    }
}
