//! A definition as a file: read, validated, with every problem at its place in the file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use gathering_domain::Problem;
use serde_json::Value;

use crate::document::json::read_json;
use crate::document::limits::MAX_DOCUMENT_BYTES;
use crate::document::source_map::SourceMap;
use crate::graph::Graph;
use crate::node_type::NodeSpecs;

/// A definition in YAML or JSON that may be executed.
///
/// ```
/// use gathering_dag_engine::{DefinitionFile, NodeSpecs};
///
/// let text = "
/// nodes:
///   - {id: begin, type: trigger}
///   - {id: a-while, type: delay, config: {seconds: 60}}
/// edges:
///   - {from: begin, to: a-while}
/// ";
/// let file = DefinitionFile::parse("wait.yaml", text, &NodeSpecs::builtin())?;
/// assert_eq!(file.graph.order().collect::<Vec<_>>(), ["begin", "a-while"]);
///
/// let mistaken = text.replace("to: a-while", "to: awhile");
/// let invalid = DefinitionFile::parse("wait.yaml", &mistaken, &NodeSpecs::builtin()).unwrap_err();
/// assert!(invalid.lines()[0].starts_with("wait.yaml: /edges/0/to: there is no node `awhile`"));
/// assert!(invalid.lines()[0].ends_with("(at line 6, column 23)"));
/// # Ok::<(), gathering_dag_engine::InvalidDefinitionFile>(())
/// ```
#[derive(Debug)]
pub struct DefinitionFile {
    /// The definition as it was written.
    pub document: Value,
    /// The same, validated.
    pub graph: Graph,
}

/// Why a file holds no definition that may be executed. Its message has one line for each problem.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct InvalidDefinitionFile(Vec<String>);

impl InvalidDefinitionFile {
    /// One line for each problem: the file's name, the JSON pointer, what is wrong, and the place in the file.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

impl DefinitionFile {
    /// Reads and validates a file of YAML or JSON.
    ///
    /// # Errors
    /// [`InvalidDefinitionFile`] if the file cannot be read or is too large, and as [`parse`](Self::parse).
    pub async fn read(path: &Path, specs: &NodeSpecs) -> Result<Self, InvalidDefinitionFile> {
        let name = path.display().to_string();
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || read_text(&path)).await;
        let text = read.unwrap_or_else(|error| Err(format!("cannot be read: {error}")));
        let text = text.map_err(|reason| InvalidDefinitionFile(vec![format!("{name}: {reason}")]))?;
        Self::parse(&name, &text, specs)
    }

    /// Validates a text of YAML or JSON. Problems are reported under the name.
    ///
    /// # Errors
    /// [`InvalidDefinitionFile`] if the text is neither YAML nor JSON, or is no valid definition.
    pub fn parse(name: &str, text: &str, specs: &NodeSpecs) -> Result<Self, InvalidDefinitionFile> {
        let document =
            document_of(text).map_err(|reason| InvalidDefinitionFile(vec![format!("{name}: {reason}")]))?;
        match Graph::validate(&document, specs) {
            Ok(graph) => Ok(Self { document, graph }),
            Err(problems) => {
                let source = SourceMap::of(text);
                let line = |problem: Problem| {
                    let place = source.find(&problem.pointer);
                    let place = place.map(|(line, column)| format!(" (at line {line}, column {column})"));
                    format!("{name}: {problem}{}", place.unwrap_or_default())
                };
                Err(InvalidDefinitionFile(problems.into_iter().map(line).collect()))
            }
        }
    }
}

/// Blocks.
fn read_text(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(cannot)?;
    if file.metadata().map_err(cannot)?.is_dir() {
        return Err("is a directory, not a file".to_owned());
    }
    // A pipe or a device has no size that tells beforehand.
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_DOCUMENT_BYTES).unwrap_or(u64::MAX);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(format!("is larger than {MAX_DOCUMENT_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is no text in UTF-8".to_owned())
}

/// JSON where it looks like JSON, as its errors are then about JSON; else YAML.
fn document_of(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{')
        && let Ok(document) = read_json(text.as_bytes())
    {
        return Ok(document);
    }
    match serde_saphyr::from_str::<Value>(text) {
        Ok(document @ Value::Object(_)) => Ok(document),
        Ok(_) => Err("/: holds no definition: it must be an object with `nodes`".to_owned()),
        Err(error) => Err(format!("is neither YAML nor JSON: {}", error.without_snippet())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn problems(text: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.yaml");
        std::fs::write(&path, text).unwrap();
        let read = DefinitionFile::read(&path, &NodeSpecs::builtin()).await;
        let prefix = format!("{}: ", path.display());
        match read {
            Ok(_) => Vec::new(),
            Err(invalid) => {
                invalid.lines().iter().map(|line| line.strip_prefix(&prefix).unwrap().to_owned()).collect()
            }
        }
    }

    #[tokio::test]
    async fn every_problem_has_its_pointer_and_its_place_in_the_file() {
        let text = "nodes:\n  - id: a\n    type: trigger\n  - id: b\n    type: fly\n    config: {x: 1}\n\
                    edges:\n  - {from: a, to: c}\n";
        let found = problems(text).await;
        assert!(found[0].starts_with("/nodes/1/type: there is no node type `fly`"), "{found:?}");
        assert!(found[0].ends_with("(at line 5, column 11)"), "{found:?}");
        assert!(found[1].starts_with("/edges/0/to: there is no node `c`"), "{found:?}");
        assert!(found[1].contains("(at line 8, column "), "{found:?}");
        assert_eq!(found.len(), 2);
    }

    #[tokio::test]
    async fn yaml_and_json_are_read() {
        assert!(problems("nodes: [{id: a, type: trigger}]").await.is_empty());
        assert!(problems(r#"{"nodes": [{"id": "a", "type": "trigger"}]}"#).await.is_empty());
    }

    #[tokio::test]
    async fn what_is_no_document_is_said_in_one_line() {
        for text in ["nodes: [", "\t- : :\n  x", "just words", "", "- a\n- b", "\u{0}"] {
            let found = problems(text).await;
            assert_eq!(found.len(), 1, "{text:?}: {found:?}");
            assert!(!found[0].contains('\n'), "{text:?}: {found:?}");
        }
        let specs = NodeSpecs::builtin();
        let missing = DefinitionFile::read(Path::new("/nonexistent/x.yaml"), &specs).await;
        assert!(missing.err().unwrap().to_string().starts_with("/nonexistent/x.yaml: cannot be read"));
    }

    #[tokio::test]
    async fn a_file_that_tells_no_size_is_not_read_without_bound() {
        let endless = DefinitionFile::read(Path::new("/dev/zero"), &NodeSpecs::builtin()).await;
        assert_eq!(endless.err().unwrap().to_string(), "/dev/zero: is larger than 16777216 bytes");
        let directory = DefinitionFile::read(Path::new("/"), &NodeSpecs::builtin()).await;
        assert_eq!(directory.err().unwrap().to_string(), "/: is a directory, not a file");
    }
}
