//! Questions of servers to people (`elicitation/create`): how they are read, and how an answer is written.
//!
//! Owns the bounds of a question. Never knows who answers it.

use gathering_tools::{JsonSchema, QuestionRequest, ToolAnswer, ToolQuestion};
use serde_json::{Value, json};

use crate::hidden::Hidden;
use crate::message::{RpcError, shortened};

/// The longest message that a person gets to see, in bytes; a longer one is cut.
const MAX_MESSAGE: usize = 4 * 1024;

/// The largest schema of an answer, in bytes of JSON.
const MAX_SCHEMA: usize = 64 * 1024;

/// The longest address that a person is asked to open, in bytes.
const MAX_URL: usize = 2 * 1024;

const INVALID_PARAMS: i64 = -32602;

/// What a server asks, without what is hidden.
///
/// # Errors
/// Why nobody could answer that.
pub(crate) fn question(server: &str, params: &Value, hidden: &Hidden) -> Result<ToolQuestion, RpcError> {
    let request = match params.get("mode").and_then(Value::as_str).unwrap_or("form") {
        "form" => QuestionRequest::Form(form(params, hidden)?),
        "url" => QuestionRequest::Visit(hidden.hide(address(params)?)),
        _ => return Err(invalid("`mode` must be `form` or `url`")),
    };
    let message = params.get("message").and_then(Value::as_str).unwrap_or_default();
    // A part of a value that was cut would not be found.
    let message = shortened(&hidden.hide(message.to_owned()), MAX_MESSAGE);
    Ok(ToolQuestion { asked_by: server.to_owned(), message, request })
}

/// The schema of the answer. A server that only asks for a yes may leave it out.
fn form(params: &Value, hidden: &Hidden) -> Result<Value, RpcError> {
    let Some(schema) = params.get("requestedSchema").filter(|schema| !schema.is_null()) else {
        return Ok(json!({"type": "object", "properties": {}}));
    };
    let text = schema.to_string();
    if text.len() > MAX_SCHEMA {
        return Err(invalid("`requestedSchema` is too large"));
    }
    let schema: Value = serde_json::from_str(&hidden.hide(text)).unwrap_or_default();
    match JsonSchema::compile(&schema) {
        Ok(_) if schema.is_object() => Ok(schema),
        _ => Err(invalid("`requestedSchema` is not a usable JSON Schema")),
    }
}

/// The address is shown and never opened by us. A person should meet a web page behind it.
fn address(params: &Value) -> Result<String, RpcError> {
    let url = params.get("url").and_then(Value::as_str).unwrap_or_default();
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic());
    if is_web && is_plain && url.len() <= MAX_URL {
        Ok(url.to_owned())
    } else {
        Err(invalid("`url` must be an address of the web, of at most 2,048 ASCII characters without spaces"))
    }
}

/// The answer as the protocol has it.
pub(crate) fn result(answer: ToolAnswer, request: &QuestionRequest) -> Value {
    match (answer, request) {
        (ToolAnswer::Accepted(content), QuestionRequest::Form(_)) => {
            json!({"action": "accept", "content": content})
        }
        (ToolAnswer::Accepted(_), QuestionRequest::Visit(_)) => json!({"action": "accept"}),
        (ToolAnswer::Declined, _) => json!({"action": "decline"}),
        (ToolAnswer::Cancelled, _) => json!({"action": "cancel"}),
    }
}

fn invalid(message: &str) -> RpcError {
    RpcError::new(INVALID_PARAMS, message)
}

#[cfg(test)]
mod tests {
    use gathering_domain::Secret;

    use super::*;
    use crate::config::{McpServerConfig, McpTransport, StdioCommand};

    fn hidden() -> Hidden {
        let token = ("TOKEN".to_owned(), Secret::from("open sesame".to_owned()));
        let command = StdioCommand { env: [token].into(), ..StdioCommand::default() };
        Hidden::of(&McpServerConfig::new("dig", McpTransport::Stdio(command)))
    }

    fn read(params: &Value) -> Result<QuestionRequest, String> {
        question("dig", params, &hidden()).map(|question| question.request).map_err(|error| error.message)
    }

    #[test]
    fn a_form_has_a_schema_that_an_answer_can_be_checked_by() {
        let schema = json!({"type": "object", "properties": {"colour": {"type": "string"}}});
        assert_eq!(read(&json!({"requestedSchema": schema})), Ok(QuestionRequest::Form(schema.clone())));
        assert_eq!(
            read(&json!({"mode": "form", "message": "Sure?"})),
            Ok(QuestionRequest::Form(json!({"type": "object", "properties": {}})))
        );
        let large = json!({"type": "object", "description": "x".repeat(MAX_SCHEMA)});
        for wrong in [json!("object"), json!({"type": "colour"}), json!(true), large] {
            let refused = read(&json!({ "requestedSchema": wrong })).unwrap_err();
            assert!(refused.starts_with("`requestedSchema` is "), "{refused}");
        }
    }

    /// As Python's SDK writes them: 1.30.0 an optional field, 2.3.0 a list and a choice. Clients that read only the forms of
    /// the protocol refuse the first two.
    #[test]
    fn forms_are_shown_as_sdks_write_them() {
        for field in [
            json!({"anyOf": [{"type": "string"}, {"type": "null"}], "default": null, "title": "Colour"}),
            json!({"type": "array", "items": {"type": "string"}, "title": "Colours"}),
            json!({"type": "string", "enum": ["red", "blue"], "title": "Colour"}),
        ] {
            let schema = json!({"type": "object", "properties": {"colour": field}});
            assert_eq!(read(&json!({"requestedSchema": schema})), Ok(QuestionRequest::Form(schema)));
        }
    }

    #[test]
    fn only_an_address_of_the_web_is_shown_to_a_person() {
        let visit = |url: &str| read(&json!({"mode": "url", "url": url}));
        let page = "https://example.org/login?state=1";
        assert_eq!(visit(page), Ok(QuestionRequest::Visit(page.to_owned())));
        let long = format!("https://example.org/{}", "x".repeat(MAX_URL));
        for wrong in ["", "javascript:alert(1)", "file:///etc/passwd", "https://a b", "https://é", &long] {
            assert!(visit(wrong).is_err(), "{wrong}");
        }
        assert!(read(&json!({"mode": "voice"})).is_err());
    }

    #[test]
    fn a_long_message_is_cut_and_no_value_of_the_settings_is_shown() {
        let message = format!("{}open sesame", "é".repeat(MAX_MESSAGE / 2 - 2));
        let schema = json!({"type": "object", "title": "open sesame"});
        let asked = json!({"message": message, "requestedSchema": schema});
        let question = question("dig", &asked, &hidden()).unwrap();
        assert!(question.message.len() <= MAX_MESSAGE + 4 && !question.message.contains("open"));
        assert_eq!(question.request, QuestionRequest::Form(json!({"type": "object", "title": "[hidden]"})));
    }
}
