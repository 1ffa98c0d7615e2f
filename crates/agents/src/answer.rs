//! Answers that are values: read from the text of a model, and checked.

use gathering_tools::JsonSchema;
use serde_json::Value;

/// How much of what is wrong with an answer the model is told.
const MAX_CHARS: usize = 2_000;

/// The value that an answer is, or what is wrong with it. Models put JSON into a block of code at times.
pub(crate) fn read(answer: &str, schema: &Value) -> Result<Value, String> {
    let value: Value =
        serde_json::from_str(without_fence(answer)).map_err(|error| format!("it is not JSON: {error}"))?;
    let schema = JsonSchema::compile(schema).map_err(|error| error.to_string())?;
    match schema.check(&value) {
        Ok(()) => Ok(value),
        Err(problems) => Err(problems.to_string().chars().take(MAX_CHARS).collect()),
    }
}

/// The content of a block of code that is the whole answer.
fn without_fence(answer: &str) -> &str {
    let trimmed = answer.trim();
    let Some(block) = trimmed.strip_prefix("```").and_then(|block| block.strip_suffix("```")) else {
        return trimmed;
    };
    block.strip_prefix("json").unwrap_or(block).trim()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_read_with_and_without_a_fence() {
        let schema = json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
        for answer in ["{\"n\": 1}", " {\"n\": 1}\n", "```json\n{\"n\": 1}\n```", "```\n{\"n\": 1}```"] {
            assert_eq!(read(answer, &schema), Ok(json!({"n": 1})), "{answer}");
        }
        let wrong = read("{\"n\": \"one\"}", &schema).unwrap_err();
        assert!(wrong.contains("/n") && wrong.contains("integer"), "{wrong}");
        assert!(read("one", &schema).unwrap_err().starts_with("it is not JSON"));
    }
}
