//! What a schema fills into a value.

use serde_json::{Map, Value};

/// Fills the fields that objects leave out, as far down as `properties` lead.
pub(crate) fn fill(schema: &Value, value: &mut Value) {
    let (Some(properties), Value::Object(fields)) = (schema["properties"].as_object(), value) else { return };
    for (name, schema) in properties {
        fill_field(name, schema, fields);
    }
}

fn fill_field(name: &str, schema: &Value, fields: &mut Map<String, Value>) {
    if let Some(value) = fields.get_mut(name) {
        fill(schema, value);
    } else if let Some(value) = schema.get("default").or_else(|| schema.get("const")) {
        fields.insert(name.to_owned(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(mut value: Value) -> Value {
        let schema = json!({"properties": {
            "language": {"type": "string", "default": "en"},
            "version": {"const": 2},
            "both": {"const": 1, "default": 1},
            "limits": {"type": "object", "properties": {"words": {"default": 200}}},
            "style": {"type": "object", "properties": {"tone": {"default": "plain"}}, "default": {"tone": "dry"}},
            "topic": {"type": "string"},
        }});
        fill(&schema, &mut value);
        value
    }

    #[test]
    fn absent_fields_are_filled_and_present_ones_stay() {
        let all = json!({"language": "en", "version": 2, "both": 1, "style": {"tone": "dry"}});
        assert_eq!(filled(json!({})), all);
        let given = json!({"language": null, "version": 3, "both": 1, "limits": {}, "style": {}, "other": 1});
        let mut expected = given.clone();
        expected["limits"]["words"] = json!(200);
        expected["style"]["tone"] = json!("plain");
        assert_eq!(filled(given), expected);
    }

    #[test]
    fn a_value_that_is_no_object_stays_as_it_is() {
        for value in [json!(null), json!([{}]), json!("text")] {
            assert_eq!(filled(value.clone()), value);
        }
    }
}
