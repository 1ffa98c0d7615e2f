//! Programs of other languages that tests speak to, with packages from PyPI and npm.
//!
//! Owns environments below `target/`, each made once for its packages and their versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

/// One installation at a time in this process.
static INSTALLING: Mutex<()> = Mutex::new(());

/// A Python with these packages, each `name==version`.
///
/// # Errors
/// If there is no Python 3 with venv, or a package cannot be installed.
pub fn python(packages: &[&str]) -> Result<PathBuf> {
    let environment = installed(&packages.join("+").replace("==", "-"), |directory| {
        run(Command::new("python3").args(["-m", "venv"]).arg(directory))?;
        let mut pip = Command::new(directory.join("bin/python"));
        run(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages))
    });
    let environment = environment.context("tests need python3 with venv (Debian: python3-venv) and PyPI")?;
    Ok(environment.join("bin/python"))
}

/// The modules of this npm package, `name@version`, for `NODE_PATH`; `None` without node, and the test says so.
///
/// # Errors
/// If the package cannot be installed.
pub fn node_modules(package: &str) -> Result<Option<PathBuf>> {
    node_modules_of(&[package])
}

/// As [`node_modules`], with several packages in one place.
///
/// # Errors
/// If a package cannot be installed.
pub fn node_modules_of(packages: &[&str]) -> Result<Option<PathBuf>> {
    let has_npm = Command::new("npm").arg("--version").output().is_ok_and(|ended| ended.status.success());
    if !has_npm {
        eprintln!("skipped: there is no npm to install {} with", packages.join(", "));
        return Ok(None);
    }
    let name = packages.join("+").replace(['@', '/'], "-");
    let environment = installed(&format!("npm-{name}"), |directory| {
        fs::create_dir_all(directory)?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(directory);
        run(npm.args(packages))
    })?;
    Ok(Some(environment.join("node_modules")))
}

/// The directory of this name, which `install` fills. An interrupted installation leaves none that looks complete, and
/// of two processes the first one wins.
fn installed(name: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let _one = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let above = root.context("the tests have no workspace around them")?.join("target/test-packages");
    let complete = above.join(name);
    if !complete.exists() {
        let unfinished = above.join(format!("{name}.{}", std::process::id()));
        install(&unfinished)?;
        if fs::rename(&unfinished, &complete).is_err() {
            ensure!(complete.exists(), "cannot rename {}", unfinished.display());
            fs::remove_dir_all(&unfinished)?;
        }
    }
    Ok(complete)
}

fn run(command: &mut Command) -> Result<()> {
    let ended = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let stderr = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{command:?} failed: {stderr}");
    Ok(())
}
