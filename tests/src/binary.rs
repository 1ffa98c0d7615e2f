//! The program under test, and the surroundings that it is started in.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Names the program to be tested; `cargo xtask test` sets it.
const BINARY: &str = "GATHERING_TEST_BINARY";

/// Variables that would lead a test to a developer's own database, or to a provider that costs money.
const FORGOTTEN: [&str; 4] = ["GATHERING_", "DATABASE_", "OPENAI_", "ANTHROPIC_"];

/// The root of the workspace.
///
/// # Errors
/// If the sources of these tests were moved away after they were built.
pub fn workspace_root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests have no workspace around them")
}

/// The program under test.
///
/// # Errors
/// If it was not built.
pub fn binary() -> Result<PathBuf> {
    let path = match std::env::var_os(BINARY) {
        Some(path) => PathBuf::from(path),
        None => workspace_root()?.join("target/debug/gathering"),
    };
    ensure!(
        path.is_file(),
        "there is no program {}: run `cargo xtask test`, or build it with `cargo build`",
        path.display()
    );
    Ok(path)
}

/// A command for the program, with these arguments and none of the caller's settings: passwords are hashed cheaply,
/// and this host may be reached.
///
/// # Errors
/// As [`binary`].
pub fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        if FORGOTTEN.iter().any(|start| name.as_encoded_bytes().starts_with(start.as_bytes())) {
            command.env_remove(name);
        }
    }
    command
        .env("GATHERING_LOG_FORMAT", "json")
        .env("GATHERING_BCRYPT_COST", "4")
        .env("GATHERING_RATE_LIMITS", "off")
        .env("GATHERING_OUTBOUND_ALLOW", "127.0.0.0/8");
    Ok(command)
}
