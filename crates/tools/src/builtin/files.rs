//! `read_file`, `write_file` and `list_files`, on the workspace of the caller.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::SecondsFormat;
use gathering_domain::{Pointer, Problems};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{VERSION_HELP, path_schema, read_params, read_version, spec};
use crate::spec::ToolSpec;
use crate::tool::{Tool, ToolContext, ToolError};
use crate::workspace::{ListOptions, Precondition, WorkspacePath};
use gathering_domain::EffectClass;

/// A larger file does not belong in a prompt or a journal: 1 MiB.
const MAX_READ_BYTES: u64 = 1024 * 1024;

fn encoding_schema(what: &str) -> Value {
    json!({"description": what, "enum": ["utf-8", "base64"]})
}

/// Reads a file of the workspace.
#[derive(Debug)]
pub struct ReadFile(ToolSpec);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadParams {
    path: String,
    #[serde(default)]
    max_bytes: Option<u64>,
}

impl ReadFile {
    /// The tool.
    #[expect(clippy::new_without_default, reason = "a tool has no meaningful default")]
    pub fn new() -> Self {
        Self(spec(
            "read_file",
            "Reads a file of the workspace. Text is returned as it is, other content as Base64; `encoding` says which.",
            EffectClass::Pure,
            &["path"],
            json!({
                "path": path_schema("The file"),
                "max_bytes": {
                    "description": "The largest file to read, in bytes; 1048576 by default.",
                    "type": "integer", "minimum": 1, "maximum": MAX_READ_BYTES
                }
            }),
        ))
    }
}

#[async_trait]
impl Tool for ReadFile {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    async fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError> {
        let params: ReadParams = read_params(params)?;
        let path: WorkspacePath = params.path.parse()?;
        let max_bytes = params.max_bytes.unwrap_or(MAX_READ_BYTES).min(MAX_READ_BYTES);
        let file = context.workspace()?.read(&path, max_bytes).await?;
        let size = file.bytes.len();
        let (content, encoding) = match String::from_utf8(file.bytes) {
            Ok(text) => (text, "utf-8"),
            Err(error) => (BASE64.encode(error.as_bytes()), "base64"),
        };
        let version = file.version.as_str();
        Ok(json!({
            "path": path.as_str(), "content": content, "encoding": encoding, "size": size, "version": version
        }))
    }
}

/// Writes a file of the workspace atomically.
#[derive(Debug)]
pub struct WriteFile(ToolSpec);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteParams {
    path: String,
    content: String,
    #[serde(default)]
    encoding: Option<String>,
    #[serde(default)]
    if_match: Option<String>,
}

impl WriteFile {
    /// The tool.
    #[expect(clippy::new_without_default, reason = "a tool has no meaningful default")]
    pub fn new() -> Self {
        Self(spec(
            "write_file",
            "Writes a file of the workspace and replaces an existing one. Creates missing directories.",
            EffectClass::Idempotent,
            &["path", "content"],
            json!({
                "path": path_schema("The file"),
                "content": {"description": "The whole content.", "type": "string"},
                "encoding": encoding_schema("The encoding of `content`; utf-8 by default."),
                "if_match": {"description": VERSION_HELP, "type": "string", "minLength": 1, "maxLength": 128}
            }),
        ))
    }
}

#[async_trait]
impl Tool for WriteFile {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    /// A repeat writes the same content, but a repeat with a version finds the version that the first write made.
    fn class_of(&self, params: &Value) -> EffectClass {
        if params.get("if_match").is_some() { EffectClass::Unsafe } else { self.0.class }
    }

    async fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError> {
        let params: WriteParams = read_params(params)?;
        let path: WorkspacePath = params.path.parse()?;
        let bytes = match params.encoding.as_deref() {
            Some("base64") => BASE64.decode(params.content).map_err(|_| {
                let place = Pointer::root().join("content");
                ToolError::InvalidParameters(Problems::one(place, "must be Base64"))
            })?,
            _ => params.content.into_bytes(),
        };
        let size = bytes.len();
        let condition = params.if_match.as_deref().map_or(Precondition::None, read_version);
        let written = context.workspace()?.write_if(&path, bytes, condition).await?;
        let version = written.version.as_str();
        Ok(json!({"path": path.as_str(), "size": size, "created": written.created, "version": version}))
    }
}

/// Lists files and directories of the workspace.
#[derive(Debug)]
pub struct ListFiles(ToolSpec);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    #[serde(default)]
    path: String,
    #[serde(default)]
    recursive: bool,
    #[serde(default)]
    pattern: Option<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    limit: Option<usize>,
}

impl ListFiles {
    /// The tool.
    #[expect(clippy::new_without_default, reason = "a tool has no meaningful default")]
    pub fn new() -> Self {
        Self(spec(
            "list_files",
            "Lists files and directories of the workspace with their sizes in bytes, ordered by name.",
            EffectClass::Pure,
            &[],
            json!({
                "path": path_schema("The directory; the root by default"),
                "recursive": {"description": "Whether to include subdirectories.", "type": "boolean"},
                "pattern": {
                    "description": "Lists only matching entries: `*.md` matches names, `docs/**/*.md` matches paths.",
                    "type": "string", "minLength": 1, "maxLength": 256
                },
                "exclude": {
                    "description": "Names to leave out with everything below them, such as `target` or `node_modules`.",
                    "type": "array", "maxItems": 100,
                    "items": {"type": "string", "minLength": 1, "maxLength": WorkspacePath::MAX_NAME_LEN}
                },
                "limit": {
                    "description": "The maximum number of entries; 1000 by default.",
                    "type": "integer", "minimum": 1, "maximum": ListOptions::MAX_LIMIT
                }
            }),
        ))
    }
}

#[async_trait]
impl Tool for ListFiles {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    async fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError> {
        let params: ListParams = read_params(params)?;
        let path: WorkspacePath = params.path.parse()?;
        let mut options = if params.recursive { ListOptions::recursive() } else { ListOptions::flat() };
        if let Some(pattern) = &params.pattern {
            options = options.matching(pattern);
        }
        if let Some(limit) = params.limit {
            options = options.limit(limit);
        }
        options = options.excluding(params.exclude);
        let listing = context.workspace()?.list(&path, options).await?;
        let items: Vec<Value> = listing
            .items
            .iter()
            .map(|entry| {
                json!({
                    "path": entry.path.as_str(),
                    "kind": entry.kind.as_str(),
                    "size": entry.size_bytes,
                    "modified_at": entry.modified_at.to_rfc3339_opts(SecondsFormat::Millis, true)
                })
            })
            .collect();
        Ok(json!({"items": items, "truncated": listing.next.is_some()}))
    }
}
