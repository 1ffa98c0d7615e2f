//! `search_files`: finds text in the files of the workspace.

use async_trait::async_trait;
use gathering_domain::{EffectClass, Problems};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{path_schema, problem_at, read_params, spec};
use crate::spec::ToolSpec;
use crate::tool::{Tool, ToolContext, ToolError};
use crate::workspace::{SearchOptions, TextMatch, WorkspacePath};

/// The most matches of one call.
const MAX_MATCHES: usize = 1000;
/// The most lines around a match, on either side.
const MAX_CONTEXT_LINES: usize = 10;
/// The most that is searched of one file: 16 MiB.
const MAX_BYTES_PER_FILE: u64 = 16 * 1024 * 1024;

/// Searches the files of the workspace.
#[derive(Debug)]
pub struct SearchFiles(ToolSpec);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    pattern: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    glob: Option<String>,
    #[serde(default)]
    case_sensitive: Option<bool>,
    #[serde(default)]
    max_matches: Option<usize>,
    #[serde(default)]
    context_lines: Option<usize>,
    #[serde(default)]
    max_bytes_per_file: Option<u64>,
}

impl SearchFiles {
    /// The tool.
    #[expect(clippy::new_without_default, reason = "a tool has no meaningful default")]
    pub fn new() -> Self {
        Self(spec(
            "search_files",
            "Finds the lines of text files of the workspace that match a regular expression, ordered by path and line.",
            EffectClass::Pure,
            &["pattern"],
            properties(),
        ))
    }
}

fn properties() -> Value {
    json!({
        "pattern": {
            "description": "A regular expression, matched against each line; without look-around and back-references.",
            "type": "string", "minLength": 1, "maxLength": 1024
        },
        "path": path_schema("The file or directory to search; the whole workspace by default"),
        "glob": {
            "description": "Searches only matching files: `*.md` matches names, `docs/**/*.md` matches paths.",
            "type": "string", "minLength": 1, "maxLength": 256
        },
        "case_sensitive": {"description": "Whether case matters; true by default.", "type": "boolean"},
        "max_matches": {
            "description": "The maximum number of matches; 100 by default.",
            "type": "integer", "minimum": 1, "maximum": MAX_MATCHES
        },
        "context_lines": {
            "description": "How many lines to show before and after each match; 0 by default.",
            "type": "integer", "minimum": 0, "maximum": MAX_CONTEXT_LINES
        },
        "max_bytes_per_file": {
            "description": "Only this much of each file is searched, in bytes; 1048576 by default.",
            "type": "integer", "minimum": 1, "maximum": MAX_BYTES_PER_FILE
        }
    })
}

#[async_trait]
impl Tool for SearchFiles {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    fn check(&self, params: &Value) -> Problems {
        match params["pattern"].as_str().map(|pattern| SearchOptions::new(pattern, true)) {
            Some(Err(invalid)) => problem_at("pattern", invalid.to_string()),
            _ => Problems::new(),
        }
    }

    async fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError> {
        let params: Params = read_params(params)?;
        let path: WorkspacePath = params.path.parse()?;
        let mut options = SearchOptions::new(&params.pattern, params.case_sensitive.unwrap_or(true))
            .map_err(|invalid| ToolError::InvalidParameters(problem_at("pattern", invalid.to_string())))?;
        if let Some(glob) = &params.glob {
            options = options.in_files(glob);
        }
        options.max_matches = params.max_matches.unwrap_or(options.max_matches);
        options.context_lines = params.context_lines.unwrap_or(options.context_lines);
        options.max_bytes_per_file = params.max_bytes_per_file.unwrap_or(options.max_bytes_per_file);
        let with_context = options.context_lines > 0;
        let found = context.workspace()?.search(&path, options).await?;
        let matches: Vec<Value> =
            found.matches.into_iter().map(|found| to_value(found, with_context)).collect();
        let mut result = json!({
            "matches": matches,
            "n_files": found.n_files,
            "n_binary": found.n_binary,
            "n_unreadable": found.n_unreadable,
            "n_partly": found.n_partly,
            "truncated": found.stopped.is_some()
        });
        if let Some(stopped) = found.stopped {
            result["truncated_by"] = json!(stopped.as_str());
        }
        Ok(result)
    }
}

fn to_value(found: TextMatch, with_context: bool) -> Value {
    let mut value = json!({
        "path": found.path.as_str(), "line": found.line, "column": found.column, "text": found.text
    });
    if with_context {
        value["before"] = json!(found.before);
        value["after"] = json!(found.after);
    }
    value
}
