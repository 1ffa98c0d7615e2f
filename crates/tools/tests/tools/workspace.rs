//! The workspace on a real directory: nothing leaves it, nothing is half written.

mod basics;
mod lists;
mod races;
mod streams;
mod traversal;

use std::path::Path;

use gathering_tools::{BlockingPool, Workspace, WorkspacePath};
use tempfile::TempDir;

const MANY: u64 = 1024 * 1024;

/// A directory with a secret in it, and a workspace in a directory of its own beneath.
async fn workspace() -> (TempDir, Workspace) {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "s3cret").unwrap();
    let workspace = Workspace::open(inside(&outside), BlockingPool::new(4)).await.unwrap();
    (outside, workspace)
}

fn inside(outside: &TempDir) -> std::path::PathBuf {
    outside.path().join("inside")
}

fn path(text: &str) -> WorkspacePath {
    text.parse().unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
