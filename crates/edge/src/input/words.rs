//! The words for a violation of a schema: what the value must be, never what it was.

use gathering_domain::{Pointer, Problem};
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;

use super::schema::{Compiled, has_type};
use crate::values::ONE_LINE;

/// The problems of one violation.
pub(super) fn problems_of(error: &ValidationError<'_>, schema: &Compiled) -> Vec<Problem> {
    let place = Pointer::from(error.instance_path().as_str().to_owned());
    let steps: Vec<String> = place.as_str().split('/').skip(1).map(unescaped).collect();
    let here = schema.at(steps.iter().map(String::as_str));
    let is_at_root = steps.is_empty();
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            let field = here.and_then(|here| schema.below(here, name));
            vec![Problem { pointer: place.join(name), message: missing(field) }]
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let message = unknown(here);
            let problem =
                |name: &String| Problem { pointer: place.join(name.as_str()), message: message.clone() };
            unexpected.iter().map(problem).collect()
        }
        // A value that may be null: what matters is why it is not the other choice.
        ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context }
            if !error.instance().is_null() =>
        {
            let others = context.iter().filter(|errors| !errors.iter().any(|error| demands_null(error)));
            others.flatten().flat_map(|error| problems_of(error, schema)).collect()
        }
        _ if error.instance().is_null() && !is_at_root => {
            vec![Problem { pointer: place, message: missing(here) }]
        }
        _ => vec![Problem { pointer: place, message: format!("must be {}", describe(here)) }],
    }
}

fn demands_null(error: &ValidationError<'_>) -> bool {
    matches!(error.kind(), ValidationErrorKind::Type { kind: TypeKind::Single(JsonType::Null) })
}

/// A step of a JSON pointer (RFC 6901).
fn unescaped(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

fn missing(schema: Option<&Value>) -> String {
    format!("is missing: it must be {}", describe(schema))
}

fn unknown(schema: Option<&Value>) -> String {
    let fields = schema.and_then(|schema| schema["properties"].as_object());
    let names: Vec<&str> = fields.into_iter().flat_map(|fields| fields.keys()).map(String::as_str).collect();
    match names.as_slice() {
        [] => "is unknown: there are no fields here".to_owned(),
        names => format!("is unknown: the fields are {}", names.join(", ")),
    }
}

/// What a value with this schema is, as the rest of "must be …".
fn describe(schema: Option<&Value>) -> String {
    let Some(schema) = schema else { return "present".to_owned() };
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        return format!("one of {}", words.join(", "));
    }
    let is = |name| has_type(schema, name);
    if is("string") {
        return describe_text(schema);
    }
    let bounds = |least: &str, most: &str| (bound(schema, least), bound(schema, most));
    match () {
        () if is("boolean") => "true or false".to_owned(),
        () if is("integer") => within("a whole number", "", bounds("minimum", "maximum")),
        () if is("number") => within("a number", "", bounds("minimum", "maximum")),
        () if is("array") => match bounds("minItems", "maxItems") {
            (None, None) => "a list".to_owned(),
            bounds => within("a list of", " items", bounds).replacen("of from ", "of ", 1),
        },
        () if is("object") => "an object".to_owned(),
        () => "present".to_owned(),
    }
}

fn describe_text(schema: &Value) -> String {
    match schema["format"].as_str() {
        Some("date-time") => return "a time such as 2026-11-23T08:30:00Z (RFC 3339)".to_owned(),
        Some("uuid") => return "a UUID".to_owned(),
        _ => {}
    }
    let is_line = schema["pattern"] == ONE_LINE;
    match (bound(schema, "minLength"), bound(schema, "maxLength")) {
        (least, Some(most)) if is_line => {
            let least = least.unwrap_or_else(|| "1".to_owned());
            format!("a text of {least} to {most} characters, none of them a control character")
        }
        (Some(_), None) => "a string that is not empty".to_owned(),
        (_, Some(most)) => format!("a text of at most {most} characters"),
        (None, None) => "a string".to_owned(),
    }
}

fn bound(schema: &Value, keyword: &str) -> Option<String> {
    schema[keyword].as_number().map(|number| number.to_string())
}

fn within(what: &str, unit: &str, bounds: (Option<String>, Option<String>)) -> String {
    match bounds {
        (None, None) => what.to_owned(),
        (Some(least), None) => format!("{what} from {least}{unit}"),
        (None, Some(most)) => format!("{what} up to {most}{unit}"),
        (Some(least), Some(most)) => format!("{what} from {least} to {most}{unit}"),
    }
}
