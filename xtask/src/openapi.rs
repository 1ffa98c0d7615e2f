//! The OpenAPI document against the specification, with the validator of the OpenAPI project's Python tools.
//!
//! Owns a Python environment below `target/`: it is made once per version of the validator.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// PyPI: openapi-spec-validator.
const VERSION: &str = "0.9.0";

/// Checks the committed document; fails where it is no valid OpenAPI.
pub(crate) fn validate(workspace: &Workspace) -> Result<()> {
    let environment = installed(workspace).context(
        "cannot install openapi-spec-validator: it needs python3 with venv (Debian: python3-venv) and PyPI",
    )?;
    let mut validator = Command::new(environment.join("bin/openapi-spec-validator"));
    process::run(validator.arg("docs/openapi.json").current_dir(workspace.root()))
}

/// The environment with the validator. An interrupted installation leaves no environment that looks complete.
fn installed(workspace: &Workspace) -> Result<PathBuf> {
    let environment = workspace.target().join(format!("openapi-spec-validator-{VERSION}"));
    let complete = environment.join("complete");
    if complete.exists() {
        return Ok(environment);
    }
    process::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    let mut pip = Command::new(environment.join("bin/pip"));
    let package = format!("openapi-spec-validator=={VERSION}");
    process::run(pip.args(["install", "--quiet", "--disable-pip-version-check", &package]))?;
    fs::write(&complete, "")?;
    Ok(environment)
}
