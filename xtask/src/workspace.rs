//! The checkout: where it is, what is in it, where cargo puts what it builds.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The cargo workspace that this program belongs to.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    #[serde(rename = "workspace_root")]
    root: PathBuf,
    target_directory: PathBuf,
    packages: Vec<Package>,
}

/// A member of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    manifest_path: PathBuf,
}

impl Package {
    /// The folder of its manifest.
    pub(crate) fn directory(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(Path::new("."))
    }
}

impl Workspace {
    /// Reads the metadata of cargo.
    pub(crate) fn find() -> Result<Workspace> {
        let mut command = cargo();
        command.args(["metadata", "--format-version=1", "--no-deps"]);
        if let Some(own) = std::env::var_os("CARGO_MANIFEST_DIR") {
            command.current_dir(own);
        }
        let output = command.output().context("run cargo metadata")?;
        ensure!(
            output.status.success(),
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).context("read cargo metadata")
    }

    /// The top of the checkout.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target(&self) -> &Path {
        &self.target_directory
    }

    /// The members.
    pub(crate) fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// The server that `cargo build` makes in the given profile's directory (`debug`, `release`).
    pub(crate) fn server(&self, profile: &str) -> PathBuf {
        self.target_directory.join(profile).join("gathering")
    }

    /// Builds the server together with the tests.
    ///
    /// Cargo unites the features of all that it builds at once. Alone, the server would have other features than with the
    /// tests, and most of its dependencies would be built twice.
    pub(crate) fn build_for_tests(&self) -> Command {
        self.cargo(&["build", "--workspace", "--bins", "--tests", "--examples"])
    }

    /// A cargo command at the top of the checkout.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = cargo();
        command.args(arguments).current_dir(&self.root);
        command
    }
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Cargo sets variables for the package that it runs. The next cargo must not inherit them: some build scripts depend on
    // them, and would run again at each change between `cargo xtask` and a plain `cargo build`.
    for (name, _) in std::env::vars_os() {
        let told = name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "LD_LIBRARY_PATH"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        });
        if told {
            command.env_remove(name);
        }
    }
    command
}
