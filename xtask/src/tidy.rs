//! House rules that no compiler checks. Every breach is listed, not only the first.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use crate::{process, schema};

/// A longer file holds a second noun. Generated files are exempt.
const LONGEST_FILE_LINES: usize = 500;

/// How a file begins that says what it is about; the second is a README.
const HEADERS: &[&str] = &["//!", "#![doc"];

/// Calls that are for the desk, not for the repository. In pieces, so that this file does not name them.
const DESK_CALLS: &[&str] = &[concat!("todo", "!("), concat!("dbg", "!("), concat!("unimplemented", "!(")];

/// What may not appear among a crate's dependencies: whoever embeds it would get it, too. What only its tests and
/// examples need nobody else gets.
const FORBIDDEN_EDGES: &[(&str, &[&str])] = &[
    ("gathering-domain", &["tokio", "diesel", "tokio-postgres", "actix-web", "reqwest"]),
    ("gathering-cache", &["gathering-domain", "tokio", "diesel", "tokio-postgres", "actix-web"]),
    ("gathering-dag-engine", WITHOUT_DATABASE),
    ("gathering-scheduler", WITHOUT_DATABASE),
    ("gathering-auth", WITHOUT_DATABASE),
    ("gathering-tools", WITHOUT_DATABASE),
    ("gathering-events", WITHOUT_DATABASE),
    ("gathering-agents", WITHOUT_DATABASE),
    ("gathering-nodes", WITHOUT_DATABASE),
    ("gathering-persistence", &["actix-web"]),
    ("gathering-postgres", &["diesel", "tokio-postgres", "actix-web"]),
];

const WITHOUT_DATABASE: &[&str] =
    &["diesel", "diesel-async", "tokio-postgres", "actix-web", "gathering-persistence"];

/// Lists every breach; fails if there is one.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut breaches = Vec::new();
    check_files(workspace, &mut breaches)?;
    check_crates(workspace, &mut breaches);
    check_migrations(workspace, &mut breaches)?;
    check_edges(workspace, &mut breaches)?;
    for breach in &breaches {
        eprintln!("{breach}");
    }
    if breaches.is_empty() { Ok(()) } else { bail!("{} breaches of the house rules", breaches.len()) }
}

fn check_files(workspace: &Workspace, breaches: &mut Vec<String>) -> Result<()> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(workspace.root());
    let machine_paths = machine_paths(workspace.root());
    for path in process::output(&mut git)?.lines() {
        // Deleted but not committed, or not text.
        let Ok(text) = fs::read_to_string(workspace.root().join(path)) else { continue };
        for machine_path in &machine_paths {
            if let Some(line) = line_with(&text, machine_path) {
                breaches.push(format!("{path}:{line}: a path of this machine, {machine_path}"));
            }
        }
        if path.ends_with(".rs") {
            check_source(path, &text, breaches);
        }
    }
    Ok(())
}

fn check_source(path: &str, text: &str, breaches: &mut Vec<String>) {
    let is_generated = text.lines().next().is_some_and(|line| line.contains("@generated"));
    let n_lines = text.lines().count();
    if n_lines > LONGEST_FILE_LINES && !is_generated {
        breaches.push(format!("{path}: {n_lines} lines, at most {LONGEST_FILE_LINES}: split it by noun"));
    }
    if path.contains("/src/") && !is_generated && !HEADERS.iter().any(|header| text.starts_with(header)) {
        breaches.push(format!("{path}:1: no `//!` header that says what the module owns"));
    }
    for call in DESK_CALLS {
        if let Some(line) = line_with(text, call) {
            breaches.push(format!("{path}:{line}: {call}...)"));
        }
    }
}

/// The checkout and the home directory: nothing in the repository may depend on where they are.
fn machine_paths(root: &Path) -> Vec<String> {
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from);
    let mut paths: Vec<String> = home
        .iter()
        .map(|home| home.as_path())
        .chain([root])
        // A checkout directly below / has a name that may well be in a text.
        .filter(|path| path.components().count() > 2)
        .map(|path| format!("{}/", path.display()))
        .collect();
    paths.dedup();
    paths
}

fn line_with(text: &str, pattern: &str) -> Option<usize> {
    text.lines().position(|line| line.contains(pattern)).map(|index| index + 1)
}

fn check_crates(workspace: &Workspace, breaches: &mut Vec<String>) {
    let crates = workspace.root().join("crates");
    for package in workspace.packages().iter().filter(|package| package.directory().starts_with(&crates)) {
        let directory = package.directory();
        if !directory.join("README.md").is_file() {
            breaches.push(format!("{}: no README.md", package.name));
        }
        // Of the server, which is a program, the examples are pipelines, at the top of the repository.
        let is_program = directory.join("src/main.rs").is_file();
        if !is_program && !has_file_ending(&directory.join("examples"), "rs") {
            breaches.push(format!("{}: no examples/*.rs that embeds it alone", package.name));
        }
    }
}

fn has_file_ending(directory: &Path, extension: &str) -> bool {
    fs::read_dir(directory).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.path().extension().is_some_and(|found| found == extension))
    })
}

fn check_migrations(workspace: &Workspace, breaches: &mut Vec<String>) -> Result<()> {
    for migration in schema::migrations(workspace.root())? {
        let name = migration.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for direction in ["up.sql", "down.sql"] {
            let text = fs::read_to_string(migration.join(direction)).unwrap_or_default();
            if text.trim().is_empty() {
                breaches.push(format!("migrations/{name}: no {direction}"));
            }
            if let Some(line) = line_with(&text, "public.") {
                breaches.push(format!(
                    "migrations/{name}/{direction}:{line}: names a schema; migrations run in whichever is set"
                ));
            }
        }
    }
    Ok(())
}

fn check_edges(workspace: &Workspace, breaches: &mut Vec<String>) -> Result<()> {
    for (package, forbidden) in FORBIDDEN_EDGES {
        let mut tree = workspace.cargo(&[
            "tree",
            "--quiet",
            "--offline",
            "--prefix=none",
            "--format={p}",
            "--edges=normal,build",
        ]);
        // `tree` takes the whole graph: with the features that the crate alone asks for.
        tree.args(["--package", package]);
        let dependencies = process::output(&mut tree)?;
        for name in *forbidden {
            if dependencies.lines().any(|line| line.split(' ').next() == Some(name)) {
                breaches
                    .push(format!("{package}: depends on {name}: see `cargo tree -p {package} -i {name}`"));
            }
        }
    }
    Ok(())
}
