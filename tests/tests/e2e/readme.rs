//! The commands of README.md do what it says.
//!
//! A block of `sh` that follows the line `<!-- tested: NAME -->` is executed as it stands.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gathering_e2e::{Database, Ended, Process, Server, workspace_root};

/// Enough for a build, should the program not be up to date.
const LIMIT: Duration = Duration::from_secs(600);

/// What the tests' own surroundings would change in a command: settings, and what cargo tells the package it runs, on
/// which build scripts of dependencies depend.
const FORGOTTEN: [&str; 6] =
    ["GATHERING_", "DATABASE_", "OPENAI_", "CARGO_PKG_", "CARGO_MANIFEST_", "LD_LIBRARY_PATH"];

/// The blocks of this name, in their order.
fn blocks(readme: &str, name: &str) -> Result<Vec<String>> {
    let marker = format!("<!-- tested: {name} -->");
    let mut blocks = Vec::new();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        if line.trim() != marker {
            continue;
        }
        let fence = lines.by_ref().find(|line| !line.trim().is_empty()).unwrap_or_default();
        ensure!(fence.trim() == "```sh", "{marker} is followed by {fence:?}, not by a block of sh");
        let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
        blocks.push(block.join("\n"));
    }
    ensure!(!blocks.is_empty(), "README.md has no block after {marker}");
    Ok(blocks)
}

fn readme() -> Result<String> {
    fs::read_to_string(workspace_root()?.join("README.md")).context("README.md cannot be read")
}

async fn bash(script: &str, directory: &Path, configure: impl FnOnce(&mut Command)) -> Result<Ended> {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(directory);
    configure(&mut command);
    Process::start(&mut command)?.end(LIMIT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_run_of_the_readme_works() -> Result<()> {
    let database = Database::embedded()?;
    let root = workspace_root()?;
    for block in blocks(&readme()?, "first-run")? {
        let ended = bash(&block, root, |command| {
            for (name, _) in std::env::vars_os() {
                let name = name.to_string_lossy().into_owned();
                if FORGOTTEN.iter().any(|start| name.starts_with(start)) {
                    command.env_remove(name);
                }
            }
            command.env("CARGO_NET_OFFLINE", "true");
            database.configure(command);
        })
        .await?;
        assert_eq!(ended.code, Some(0), "{block}\n{}\n{}", ended.stdout, ended.stderr);
        assert!(!ended.stdout.trim().is_empty(), "{block}\nprints nothing");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_of_the_readme_works() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    // One shell for all blocks, as somebody would type them, in a directory where files may be left.
    let script = blocks(&readme()?, "api")?.join("\n").replace("127.0.0.1:8080", server.address());
    let script = script.replace("localhost:8080", server.address());
    let examples = workspace_root()?.join("examples");
    std::os::unix::fs::symlink(examples, database.directory().join("examples"))?;
    let ended = bash(&script, database.directory(), |_| {}).await?;
    assert_eq!(ended.code, Some(0), "{script}\n{}\n{}\n{}", ended.stdout, ended.stderr, server.log());
    Ok(())
}
