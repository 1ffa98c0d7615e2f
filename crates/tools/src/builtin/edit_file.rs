//! `edit_file`: replaces exact pieces of text in a file, all or none.

mod similar;

use async_trait::async_trait;
use gathering_domain::{EffectClass, Pointer, Problems};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{VERSION_HELP, path_schema, problem_at, read_params, read_version, spec};
use crate::spec::ToolSpec;
use crate::tool::{Tool, ToolContext, ToolError};
use crate::workspace::{FileContent, Precondition, WorkspaceError, WorkspacePath};

/// A larger file is not edited by hand: 8 MiB, before and after.
const MAX_FILE_BYTES: usize = 8 * 1024 * 1024;

/// The most edits of one call.
const MAX_EDITS: usize = 100;

/// Edits a text file of the workspace.
#[derive(Debug)]
pub struct EditFile(ToolSpec);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    path: String,
    edits: Vec<Edit>,
    #[serde(default)]
    if_match: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    old_text: String,
    new_text: String,
    #[serde(default)]
    replace_all: bool,
}

impl EditFile {
    /// The tool.
    #[expect(clippy::new_without_default, reason = "a tool has no meaningful default")]
    pub fn new() -> Self {
        Self(spec(
            "edit_file",
            "Replaces pieces of text in a file of the workspace: each `old_text` by its `new_text`, one edit after the \
             other. If an `old_text` does not occur exactly once, nothing is written.",
            // A repeat may find its own `new_text` and replace it again. Finding it is no proof that an earlier call
            // wrote it, so a repeat cannot be recognised as done either.
            EffectClass::Unsafe,
            &["path", "edits"],
            json!({
                "path": path_schema("The file"),
                "edits": {
                    "description": "The edits, in their order.",
                    "type": "array", "minItems": 1, "maxItems": MAX_EDITS,
                    "items": {
                        "type": "object", "additionalProperties": false, "required": ["old_text", "new_text"],
                        "properties": {
                            "old_text": {
                                "description": "The text to replace, exactly as in the file, with enough around it \
                                                that it occurs once.",
                                "type": "string", "minLength": 1
                            },
                            "new_text": {"description": "The text in its place.", "type": "string"},
                            "replace_all": {
                                "description": "Whether to replace every occurrence; false by default.",
                                "type": "boolean"
                            }
                        }
                    }
                },
                "if_match": {"description": VERSION_HELP, "type": "string", "minLength": 1, "maxLength": 128}
            }),
        ))
    }
}

#[async_trait]
impl Tool for EditFile {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    fn check(&self, params: &Value) -> Problems {
        let mut problems = Problems::new();
        for (index, edit) in params["edits"].as_array().into_iter().flatten().enumerate() {
            if edit["old_text"].is_string() && edit["old_text"] == edit["new_text"] {
                problems.add(place(index, "new_text"), "is the same as `old_text`");
            }
        }
        problems
    }

    async fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError> {
        let params: Params = read_params(params)?;
        let path: WorkspacePath = params.path.parse()?;
        let workspace = context.workspace()?;
        let FileContent { bytes, version, .. } = workspace.read(&path, MAX_FILE_BYTES as u64).await?;
        if let Some(expected) = params.if_match.as_deref().map(read_version)
            && expected != Precondition::Version(vec![version.clone()])
        {
            return Err(WorkspaceError::PreconditionFailed { path: path.to_string() }.into());
        }
        let text = String::from_utf8(bytes).map_err(|_| {
            let message =
                "the file is not UTF-8 text: read it with `read_file`, and write it with `write_file`";
            ToolError::InvalidParameters(problem_at("path", message))
        })?;
        let (text, n_replaced) = apply(text, &params.edits).map_err(ToolError::InvalidParameters)?;
        let size = text.len();
        // A write of somebody else since the read is not lost: the version differs then.
        let written = workspace.write_if(&path, text, Precondition::Version(vec![version])).await?;
        let version = written.version.as_str();
        Ok(json!({"path": path.as_str(), "replacements": n_replaced, "size": size, "version": version}))
    }
}

fn place(edit: usize, field: &str) -> Pointer {
    Pointer::root().join("edits").join(edit).join(field)
}

/// The text after the edits, and how many pieces were replaced; or the first edit that does not fit.
fn apply(mut text: String, edits: &[Edit]) -> Result<(String, usize), Problems> {
    let mut n_replaced = 0;
    for (index, Edit { old_text, new_text, replace_all }) in edits.iter().enumerate() {
        let n_found = text.matches(old_text.as_str()).count();
        if n_found == 0 {
            return Err(Problems::one(place(index, "old_text"), similar::not_found(&text, old_text)));
        }
        if n_found > 1 && !replace_all {
            let message =
                format!("occurs {n_found} times: give more of the text around it, or set `replace_all`");
            return Err(Problems::one(place(index, "old_text"), message));
        }
        let size = text.len() - n_found * old_text.len() + n_found.saturating_mul(new_text.len());
        if size > MAX_FILE_BYTES {
            let message = format!("makes the file larger than {MAX_FILE_BYTES} bytes");
            return Err(Problems::one(place(index, "new_text"), message));
        }
        text = text.replace(old_text.as_str(), new_text);
        n_replaced += n_found;
    }
    Ok((text, n_replaced))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(old_text: &str, new_text: &str, replace_all: bool) -> Edit {
        Edit { old_text: old_text.to_owned(), new_text: new_text.to_owned(), replace_all }
    }

    #[test]
    fn each_edit_sees_the_result_of_the_one_before() {
        let edits = [edit("a", "b", false), edit("b", "c", true)];
        assert_eq!(apply("a b".to_owned(), &edits).unwrap(), ("c c".to_owned(), 3));
    }

    #[test]
    fn a_text_that_occurs_twice_is_not_replaced() {
        let problems = apply("x\nx".to_owned(), &[edit("x", "y", false)]).unwrap_err();
        let expected =
            "/edits/0/old_text: occurs 2 times: give more of the text around it, or set `replace_all`";
        assert_eq!(problems.to_string(), expected);
    }

    #[test]
    fn the_file_stays_within_its_limit() {
        let edits = [edit("x", &"y".repeat(1024), true)];
        let problems = apply("x".repeat(MAX_FILE_BYTES / 1024 + 1), &edits).unwrap_err();
        assert!(problems.to_string().starts_with("/edits/0/new_text: makes the file larger"), "{problems}");
    }
}
