//! The result of a tool: its content in one shape, whatever the server's version.

use gathering_tools::JsonSchema;
use serde_json::{Map, Value, json};

use crate::McpError;
use crate::message::shortened;

/// The longest text of a failure, in bytes. A model reads it to correct its call.
const MAX_FAILURE: usize = 16 * 1024;

/// What a tool returned.
#[derive(Debug, Clone, PartialEq)]
pub struct McpResult {
    /// The parts of the content, in the server's order. Each has a `type`:
    ///
    /// | `type` | fields |
    /// |---|---|
    /// | `text` | `text` |
    /// | `image`, `audio` | `data` (Base64), `mime_type` |
    /// | `resource_link` | `uri`, `name`, and perhaps `title`, `description`, `mime_type`, `size` |
    /// | `resource` | `uri`, `text` or `blob` (Base64), and perhaps `mime_type` |
    /// | `unknown` | `value`: the part as the server sent it |
    pub content: Vec<Value>,
    /// The structured content, if the server sent some.
    pub structured_content: Option<Value>,
    /// What was wrong with the result, without making it useless.
    pub notes: Vec<String>,
}

impl McpResult {
    /// Reads the result of a call.
    ///
    /// # Errors
    /// [`McpError::Tool`] if the tool says that it failed, with its text.
    pub(crate) fn read(result: Value, output: Option<&JsonSchema>) -> Result<Self, McpError> {
        let Value::Object(mut fields) = result else {
            return Err(McpError::InvalidAnswer { reason: "the result is not an object".to_owned() });
        };
        let structured_content = fields.remove("structuredContent").filter(|value| !value.is_null());
        let parts = match fields.remove("content") {
            Some(Value::Array(parts)) => parts,
            Some(_) => {
                return Err(McpError::InvalidAnswer { reason: "its `content` is not a list".to_owned() });
            }
            None => Vec::new(),
        };
        let content: Vec<Value> = parts.into_iter().map(part).collect();
        let mut found = Self { content, structured_content, notes: Vec::new() };
        if fields.get("isError") == Some(&Value::Bool(true)) {
            return Err(McpError::Tool { message: found.failure() });
        }
        found.check(output);
        Ok(found)
    }

    /// The texts of the content, one after another.
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self.content.iter().filter_map(|part| part.get("text")?.as_str()).collect();
        texts.join("\n")
    }

    /// The result as the output of a tool: `{content, structured_content?, notes?}`.
    pub fn into_value(self) -> Value {
        let mut value = json!({"content": self.content});
        if let Some(structured) = self.structured_content {
            value["structured_content"] = structured;
        }
        if !self.notes.is_empty() {
            value["notes"] = json!(self.notes);
        }
        value
    }

    fn failure(&self) -> String {
        let text = self.text();
        match (&self.structured_content, text.is_empty()) {
            (_, false) => shortened(&text, MAX_FAILURE),
            (Some(structured), true) => shortened(&structured.to_string(), MAX_FAILURE),
            (None, true) => "the tool failed and says nothing more".to_owned(),
        }
    }

    /// A result that breaks the server's promise is kept: its text is still of use.
    fn check(&mut self, output: Option<&JsonSchema>) {
        let Some(output) = output else { return };
        match &self.structured_content {
            Some(structured) => {
                if let Err(problems) = output.check(structured) {
                    let note = format!("the structured content does not fit the tool's schema: {problems}");
                    self.notes.push(shortened(&note, 1024));
                }
            }
            None => self.notes.push("the tool promises structured content and sent none".to_owned()),
        }
    }
}

/// A part of the content with the names that are used here.
fn part(part: Value) -> Value {
    let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
    let read = match kind {
        "text" => pick(&part, "text", &[("text", "text")], &[]),
        "image" | "audio" => pick(&part, kind, &[("data", "data"), ("mimeType", "mime_type")], &[]),
        "resource_link" => pick(
            &part,
            kind,
            &[("uri", "uri"), ("name", "name")],
            &[
                ("title", "title"),
                ("description", "description"),
                ("mimeType", "mime_type"),
                ("size", "size"),
            ],
        ),
        "resource" => part.get("resource").and_then(|resource| {
            let optional = [("text", "text"), ("blob", "blob"), ("mimeType", "mime_type")];
            pick(resource, kind, &[("uri", "uri")], &optional)
        }),
        _ => None,
    };
    read.unwrap_or_else(|| json!({"type": "unknown", "value": part}))
}

type Names<'a> = &'a [(&'a str, &'a str)];

/// These fields under our names; `None` if a required one is missing.
fn pick(from: &Value, kind: &str, required: Names<'_>, optional: Names<'_>) -> Option<Value> {
    let mut fields = Map::new();
    fields.insert("type".to_owned(), json!(kind));
    for (theirs, ours) in required {
        fields.insert((*ours).to_owned(), from.get(theirs)?.clone());
    }
    for (theirs, ours) in optional {
        if let Some(value) = from.get(theirs) {
            fields.insert((*ours).to_owned(), value.clone());
        }
    }
    Some(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_content_is_kept_under_our_names() {
        let result = json!({"content": [
            {"type": "text", "text": "a", "annotations": {"priority": 1}},
            {"type": "image", "data": "AA==", "mimeType": "image/png"},
            {"type": "resource_link", "uri": "file:///x", "name": "x", "size": 3},
            {"type": "resource", "resource": {"uri": "demo://1", "mimeType": "text/plain", "text": "b"}},
            {"type": "hologram", "data": 1},
            {"type": "text"}
        ]});
        let read = McpResult::read(result, None).unwrap();
        assert_eq!(read.text(), "a\nb");
        assert_eq!(
            json!(read.content),
            json!([
                {"type": "text", "text": "a"},
                {"type": "image", "data": "AA==", "mime_type": "image/png"},
                {"type": "resource_link", "uri": "file:///x", "name": "x", "size": 3},
                {"type": "resource", "uri": "demo://1", "text": "b", "mime_type": "text/plain"},
                {"type": "unknown", "value": {"type": "hologram", "data": 1}},
                {"type": "unknown", "value": {"type": "text"}}
            ])
        );
    }

    #[test]
    fn a_result_that_breaks_its_schema_keeps_its_text_and_gets_a_note() {
        let schema = json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
        let output = JsonSchema::compile(&schema).unwrap();
        let text = json!([{"type": "text", "text": "one"}]);
        let misfit = json!({"content": text, "structuredContent": {"n": "one"}});
        let read = McpResult::read(misfit, Some(&output)).unwrap();
        assert_eq!((read.text().as_str(), read.notes.len()), ("one", 1));
        let missing = McpResult::read(json!({"content": text}), Some(&output)).unwrap();
        assert_eq!(missing.notes, ["the tool promises structured content and sent none"]);
        let fits = json!({"content": text, "structuredContent": {"n": 1}});
        let fits = McpResult::read(fits, Some(&output)).unwrap();
        assert_eq!(fits.into_value(), json!({"content": text, "structured_content": {"n": 1}}));
    }

    #[test]
    fn an_error_of_the_tool_is_a_failure_with_its_text_and_is_not_checked() {
        let output = JsonSchema::compile(&json!({"required": ["n"]})).unwrap();
        let failed = json!({"isError": true, "content": [{"type": "text", "text": "no such zone"}]});
        let error = McpResult::read(failed, Some(&output)).unwrap_err();
        assert_eq!(error.to_string(), "no such zone");
    }
}
