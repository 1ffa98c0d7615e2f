//! What every crate has for those who embed it: a front page with a program, and an example.

use std::fs;
use std::path::Path;

use crate::workspace::Workspace;

/// Checks every crate.
pub(super) fn check(workspace: &Workspace) -> Vec<String> {
    let crates = workspace.root().join("crates");
    let mut breaches = Vec::new();
    for package in workspace.packages().iter().filter(|package| package.directory().starts_with(&crates)) {
        let (name, directory) = (&package.name, package.directory());
        let Ok(readme) = fs::read_to_string(directory.join("README.md")) else {
            breaches.push(format!("{name}: no README.md"));
            continue;
        };
        // The server is a program: its examples are pipelines, at the top of the repository.
        if directory.join("src/main.rs").is_file() {
            continue;
        }
        if !readme.contains("```rust") {
            breaches.push(format!("{name}: its README.md shows no program"));
        }
        if !has_example(&directory.join("examples")) {
            breaches.push(format!("{name}: no example that embeds it alone"));
        }
    }
    breaches
}

/// A file `NAME.rs`, or a folder with a `main.rs`.
fn has_example(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let path = entry.path();
            path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file()
        })
    })
}
