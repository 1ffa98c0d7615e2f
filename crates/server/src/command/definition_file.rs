//! A definition as a file: read, validated, with every problem at its place in the file.

use std::path::Path;

use gathering_dag_engine::{Graph, NodeSpecs, SourceMap, read_json};
use gathering_domain::Problem;
use serde_json::Value;

/// The largest file that is read: 16 MiB.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A definition that may be executed.
pub(super) struct DefinitionFile {
    /// The definition as it was written.
    pub(super) document: Value,
    /// The same, validated.
    pub(super) graph: Graph,
}

/// Why a file holds no definition that may be executed: one line for each problem, the file's name first.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(super) struct InvalidFile(pub(super) Vec<String>);

impl DefinitionFile {
    /// Reads and validates a file of YAML or JSON.
    ///
    /// # Errors
    /// [`InvalidFile`] if it cannot be read, is neither YAML nor JSON, or is no valid definition.
    pub(super) async fn read(path: &Path, specs: &NodeSpecs) -> Result<Self, InvalidFile> {
        let name = path.display();
        let text = read_text(path).await.map_err(|reason| InvalidFile(vec![format!("{name}: {reason}")]))?;
        let document = parse(&text).map_err(|reason| InvalidFile(vec![format!("{name}: {reason}")]))?;
        match Graph::validate(&document, specs) {
            Ok(graph) => Ok(Self { document, graph }),
            Err(problems) => {
                let source = SourceMap::of(&text);
                let line = |problem: Problem| {
                    let place = source.find(&problem.pointer);
                    let place = place.map(|(line, column)| format!(" (at line {line}, column {column})"));
                    format!("{name}: {problem}{}", place.unwrap_or_default())
                };
                Err(InvalidFile(problems.into_iter().map(line).collect()))
            }
        }
    }
}

async fn read_text(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let metadata = tokio::fs::metadata(path).await.map_err(cannot)?;
    if metadata.is_dir() {
        return Err("is a directory, not a file".to_owned());
    }
    if metadata.len() > MAX_BYTES {
        return Err(format!("is larger than {MAX_BYTES} bytes"));
    }
    let bytes = tokio::fs::read(path).await.map_err(cannot)?;
    String::from_utf8(bytes).map_err(|_| "is no text in UTF-8".to_owned())
}

/// JSON where it looks like JSON, as its errors are then about JSON; else YAML.
fn parse(text: &str) -> Result<Value, String> {
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
            Err(InvalidFile(lines)) => {
                lines.into_iter().map(|line| line.strip_prefix(&prefix).unwrap().to_owned()).collect()
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
}
