//! Configs that hold `${{ }}`: a check must pass over what is computed when the node runs.

use gathering_dag_engine::Fields;
use gathering_domain::{Pointer, Problems};
use serde_json::Value;

/// Whether a text holds `${{ }}`, so that its value is unknown before the node runs.
pub(crate) fn is_computed_text(text: &str) -> bool {
    text.match_indices("${{").any(|(at, _)| !text[..at].ends_with('$'))
}

/// Whether any part of a value is computed.
fn is_computed(value: &Value) -> bool {
    match value {
        Value::String(text) => is_computed_text(text),
        Value::Array(items) => items.iter().any(is_computed),
        Value::Object(fields) => fields.values().any(is_computed),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Adds the problems of `value`, the content of the field `name`, except those that a computed part may still resolve.
pub(crate) fn add_problems_below(config: &mut Fields<'_>, name: &str, value: &Value, found: Problems) {
    add_problems_at(config, &config.place(name), value, found);
}

/// Adds the problems of `value`, fields of the config, except those that a computed part may still resolve.
pub(crate) fn add_problems(config: &mut Fields<'_>, value: &Value, found: Problems) {
    add_problems_at(config, &config.at().clone(), value, found);
}

fn add_problems_at(config: &mut Fields<'_>, at: &Pointer, value: &Value, found: Problems) {
    for problem in found {
        if !value.pointer(problem.pointer.as_str()).is_some_and(is_computed) {
            let place = Pointer::from(format!("{at}{}", problem.pointer));
            config.problems().add(place, problem.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_an_unescaped_opening_makes_a_text_computed() {
        assert!(is_computed_text("a ${{ input.x }}"));
        assert!(!is_computed_text("a $${{ input.x }}"));
        assert!(is_computed(&json!({"a": [1, "${{ 2 }}"]})));
        assert!(!is_computed(&json!({"a": [1, "{{ 2 }}"]})));
    }
}
