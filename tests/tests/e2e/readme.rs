//! The commands of README.md and of the guides do what they say.
//!
//! A block of `sh` that follows the line `<!-- tested: NAME -->` is executed unchanged.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gathering_e2e::{Database, Ended, Process, Server, binary, workspace_root};
use serde_json::{Value, json};

/// Enough for a session, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A substitute for cargo: README's command runs the program under test, which is built already. Any other command
/// fails.
const CARGO: &str = r#"#!/bin/sh
case "$1 $2 $3" in
    "run --release --") shift 3; exec "$PROGRAM_UNDER_TEST" "$@" ;;
    *) echo "README.md has another command: cargo $*" >&2; exit 97 ;;
esac
"#;

/// A directory with a program named cargo that is [`CARGO`].
fn stand_in_for_cargo(parent: &Path) -> Result<PathBuf> {
    let directory = parent.join("bin");
    fs::create_dir(&directory)?;
    let file = directory.join("cargo");
    fs::write(&file, CARGO)?;
    fs::set_permissions(file, Permissions::from_mode(0o755))?;
    Ok(directory)
}

/// What `cargo run` starts in the root of the workspace.
fn default_program() -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(workspace_root()?)
        .output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let defaults = metadata["workspace_default_members"].as_array().context("no default members")?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let targets = packages.iter().filter(|package| defaults.contains(&package["id"]));
    let targets = targets.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let programs = targets.filter(|target| target["kind"] == json!(["bin"]));
    let names: Vec<&str> = programs.filter_map(|program| program["name"].as_str()).collect();
    ensure!(names.len() == 1, "`cargo run` has a choice: {names:?}");
    Ok(names.concat())
}

/// Settings of the tests' own environment, which README's reader does not have.
const FORGOTTEN: [&str; 4] = ["GATHERING_", "DATABASE_", "OPENAI_", "ANTHROPIC_"];

/// The blocks of this name, in their order.
fn blocks(text: &str, name: &str) -> Result<Vec<String>> {
    let marker = format!("<!-- tested: {name} -->");
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != marker {
            continue;
        }
        let fence = lines.by_ref().find(|line| !line.trim().is_empty()).unwrap_or_default();
        ensure!(fence.trim() == "```sh", "{marker} is followed by {fence:?}, not by a block of sh");
        let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
        blocks.push(block.join("\n"));
    }
    ensure!(!blocks.is_empty(), "there is no block after {marker}");
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
    assert_eq!(default_program()?, "gathering");
    let database = Database::embedded()?;
    let directories = std::env::var("PATH")?;
    let directories = format!("{}:{directories}", stand_in_for_cargo(database.directory())?.display());
    let program = binary()?;
    for block in blocks(&readme()?, "first-run")? {
        let ended = bash(&block, workspace_root()?, |command| {
            for (name, _) in std::env::vars_os() {
                let name = name.to_string_lossy().into_owned();
                if FORGOTTEN.iter().any(|start| name.starts_with(start)) {
                    command.env_remove(name);
                }
            }
            command.env("PATH", &directories).env("PROGRAM_UNDER_TEST", &program);
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
    // One shell for all blocks, as a user would type them, in a directory where files may be left.
    let script = blocks(&readme()?, "api")?.join("\n").replace("127.0.0.1:8080", server.address());
    let script = script.replace("localhost:8080", server.address());
    let examples = workspace_root()?.join("examples");
    std::os::unix::fs::symlink(examples, database.directory().join("examples"))?;
    let ended = bash(&script, database.directory(), |_| {}).await?;
    assert_eq!(ended.code, Some(0), "{script}\n{}\n{}\n{}", ended.stdout, ended.stderr, server.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nightly_report_of_the_guide_is_scheduled() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let client = server.client().join("ada@example.org").await?;
    let guide = fs::read_to_string(workspace_root()?.join("docs/schedules.md"))?;
    let script = blocks(&guide, "nightly-report")?.join("\n").replace("127.0.0.1:8080", server.address());
    let token = client.token().context("no token")?.to_owned();
    let ended = bash(&script, workspace_root()?, |command| {
        command.env("TOKEN", token);
    })
    .await?;
    assert_eq!(ended.code, Some(0), "{script}\n{}\n{}\n{}", ended.stdout, ended.stderr, server.log());
    for shown in ["2026-12-24T07:00:00+01:00", "2026-12-28T07:00:00+01:00"] {
        assert!(ended.stdout.contains(shown), "{shown} in {}", ended.stdout);
    }
    let schedules = client.get("/api/v1/schedules").await?.expect(200)?;
    let schedule = &schedules["items"][0];
    assert_eq!((&schedule["state"], &schedule["calendar"]["problem"]), (&json!("active"), &json!(null)));
    let notify = &schedule["on_failure"]["notify"];
    assert_eq!(notify["subject"], "${{ input.schedule.name }} failed", "{notify}");
    Ok(())
}
