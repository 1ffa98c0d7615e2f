//! The keywords without schemas below them, as far as every server takes them.
//!
//! Some schemas make a server that writes grammars of them use up the memory of its machine, or refuse the whole request.

use serde_json::{Map, Value, json};

use super::pattern;

const TYPES: [&str; 7] = ["string", "number", "integer", "boolean", "object", "array", "null"];
/// The largest length that is told. Some servers write a rule for each place, and refuse rather more than this.
pub(super) const MAX_LENGTH: u64 = 1000;
/// The largest number that is told: 2 to the power of 53, up to which every server reads the same number.
const MAX_NUMBER: f64 = 9_007_199_254_740_992.0;

/// Lower bounds and the upper ones that belong to them.
const BOUNDS: [[&str; 2]; 3] = [["minLength", "maxLength"], ["minItems", "maxItems"], ["minimum", "maximum"]];

/// What is left of a keyword.
pub(super) fn keyword(keyword: &str, value: &Value) -> Option<Value> {
    match keyword {
        "type" => types(value),
        "description" => value.is_string().then(|| value.clone()),
        "enum" => value.as_array().is_some_and(|values| !values.is_empty()).then(|| value.clone()),
        "const" => Some(value.clone()),
        "required" => {
            let names = value.as_array()?.iter().filter(|name| name.is_string());
            Some(names.cloned().collect())
        }
        "minLength" | "maxLength" | "minItems" | "maxItems" => length(value),
        "minimum" | "maximum" => {
            value.as_f64().filter(|number| number.abs() <= MAX_NUMBER).map(|_| value.clone())
        }
        "pattern" => value.as_str().filter(|text| pattern::is_simple(text)).map(Into::into),
        _ => None,
    }
}

/// Takes out bounds that nothing is between.
pub(super) fn drop_contradictions(schema: &mut Map<String, Value>) {
    for [least, most] in BOUNDS {
        let [from, to] = [least, most].map(|name| schema.get(name).and_then(Value::as_f64));
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            schema.remove(least);
            schema.remove(most);
        }
    }
}

fn types(value: &Value) -> Option<Value> {
    let is_known = |name: &&Value| name.as_str().is_some_and(|name| TYPES.contains(&name));
    let Value::Array(names) = value else { return Some(value).filter(is_known).cloned() };
    let known: Vec<Value> = names.iter().filter(is_known).cloned().collect();
    (!known.is_empty()).then_some(Value::Array(known))
}

/// `2.0` is a length in JSON Schema, and for some servers none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within the bounds")]
fn length(value: &Value) -> Option<Value> {
    let length = value.as_f64().filter(|length| length.fract() == 0.0 && *length >= 0.0)?;
    (length <= MAX_LENGTH as f64).then(|| json!(length as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyword_of_the_wrong_kind_is_left_out() {
        for (name, value) in [
            ("type", json!("file")),
            ("type", json!(["file"])),
            ("type", json!([])),
            ("type", json!(null)),
            ("description", json!(5)),
            ("enum", json!([])),
            ("enum", json!("a")),
            ("required", json!("a")),
            ("minLength", json!("5")),
            ("minLength", json!(-1)),
            ("maxLength", json!(2.5)),
            ("maxLength", json!(1001)),
            ("minItems", json!(null)),
            ("maxItems", json!(1001)),
            ("minimum", json!("1")),
            ("maximum", json!(9_007_199_254_740_994_u64)),
            ("format", json!("date")),
        ] {
            assert_eq!(keyword(name, &value), None, "{name}: {value}");
        }
    }

    #[test]
    fn a_keyword_is_told_as_far_as_it_is_understood() {
        for (name, value, told) in [
            ("type", json!(["string", "file", "null"]), json!(["string", "null"])),
            ("required", json!(["a", 1]), json!(["a"])),
            ("minLength", json!(2.0), json!(2)),
            ("maxItems", json!(1000), json!(1000)),
            ("minimum", json!(-0.5), json!(-0.5)),
            ("const", json!(null), json!(null)),
        ] {
            assert_eq!(keyword(name, &value), Some(told), "{name}: {value}");
        }
    }
}
