//! What holds for every file: its length, its header, its width, and nothing of this machine in it.

use std::path::{Path, PathBuf};

use super::sources::{Source, Sources};

/// A longer file holds a second noun. Generated files are exempt.
const LONGEST_FILE_LINES: usize = 500;

/// A longer line of Markdown is hard to review. Tables, links and code cannot be wrapped.
const LONGEST_MARKDOWN_LINE: usize = 120;

/// Markdown that is not wrapped yet: remove a file from this list when it is.
const NOT_YET_WRAPPED: &[&str] = &[
    "crates/agents/README.md",
    "crates/auth/README.md",
    "crates/dag-engine/README.md",
    "crates/events/README.md",
    "crates/nodes/README.md",
    "crates/persistence/README.md",
    "crates/postgres/README.md",
    "crates/server/README.md",
    "crates/tools/README.md",
    "docs/ARCHITECTURE.md",
    "docs/engine.md",
];

/// How a file begins that says what it is about; the second is a README.
const HEADERS: &[&str] = &["//!", "#![doc"];

/// Calls that are for the desk, not for the repository. In pieces, so that this file does not name them.
const DESK_CALLS: &[&str] = &[concat!("todo", "!("), concat!("dbg", "!("), concat!("unimplemented", "!(")];

/// Checks every file.
pub(super) fn check(root: &Path, sources: &Sources) -> Vec<String> {
    let machine_paths = machine_paths(root);
    let mut breaches = Vec::new();
    for source in &sources.files {
        let path = &source.path;
        for machine_path in &machine_paths {
            if let Some(line) = source.line_with(machine_path) {
                breaches.push(format!("{path}:{line}: a path of this machine, {machine_path}"));
            }
        }
        if source.syntax.is_some() {
            check_rust(source, &mut breaches);
        }
        if path.ends_with(".md") && !NOT_YET_WRAPPED.contains(&path.as_str()) {
            check_width(source, &mut breaches);
        }
    }
    breaches
}

fn check_rust(source: &Source, breaches: &mut Vec<String>) {
    let path = &source.path;
    let n_lines = source.text.lines().count();
    if n_lines > LONGEST_FILE_LINES && !source.is_generated() {
        breaches.push(format!("{path}: {n_lines} lines, at most {LONGEST_FILE_LINES}: split it by noun"));
    }
    let has_header = HEADERS.iter().any(|header| source.text.starts_with(header));
    if path.contains("/src/") && !source.is_generated() && !has_header {
        breaches.push(format!("{path}:1: no `//!` header that says what the module owns"));
    }
    for call in DESK_CALLS {
        if let Some(line) = source.line_with(call) {
            breaches.push(format!("{path}:{line}: {call}...)"));
        }
    }
}

fn check_width(source: &Source, breaches: &mut Vec<String>) {
    let mut is_code = false;
    for (index, line) in source.text.lines().enumerate() {
        let text = line.trim_start();
        if text.starts_with("```") {
            is_code = !is_code;
        }
        let is_link = !text.trim_start_matches(['-', '*', ' ']).contains(' ');
        let is_exempt = is_code || text.starts_with('|') || is_link;
        let width = line.chars().count();
        if width > LONGEST_MARKDOWN_LINE && !is_exempt {
            breaches.push(format!(
                "{}:{}: {width} characters; wrap at {LONGEST_MARKDOWN_LINE}",
                source.path,
                index + 1
            ));
        }
    }
}

/// The checkout and the home directory: nothing in the repository may depend on where they are.
fn machine_paths(root: &Path) -> Vec<String> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let mut paths: Vec<String> = home
        .iter()
        .map(PathBuf::as_path)
        .chain([root])
        // A checkout directly below / has a name that may well be in a text.
        .filter(|path| path.components().count() > 2)
        .map(|path| format!("{}/", path.display()))
        .collect();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use anyhow::Result;

    use super::*;

    fn breaches(path: &str, text: &str) -> Result<Vec<String>> {
        let sources = Sources { files: vec![Source::parse(path, text.to_owned())?] };
        Ok(check(Path::new("/somewhere/checkout"), &sources))
    }

    #[test]
    fn a_long_file_a_missing_header_and_a_path_of_this_machine_are_breaches() -> Result<()> {
        let long = format!("//! A noun.\n{}", "// line\n".repeat(LONGEST_FILE_LINES));
        assert_eq!(breaches("crates/a/src/b.rs", &long)?.len(), 1);
        assert_eq!(breaches("crates/a/src/b.rs", "fn f() {}\n")?.len(), 1);
        assert_eq!(breaches("docs/a.txt", "see /somewhere/checkout/docs")?.len(), 1);
        assert_eq!(breaches("crates/a/src/b.rs", "//! A noun.\n")?, [""; 0]);
        Ok(())
    }

    #[test]
    fn markdown_is_wrapped_but_for_tables_links_and_code() -> Result<()> {
        let long = "word ".repeat(30);
        assert_eq!(breaches("a.md", &long)?.len(), 1);
        let exempt = format!("| {long} |\n\n```sh\n{long}\n```\n\n- [{}](x)\n", "a".repeat(130));
        assert_eq!(breaches("a.md", &exempt)?, [""; 0]);
        Ok(())
    }
}
