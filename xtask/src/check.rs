//! The checks that need no test run, cheap ones first.

use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::workspace::Workspace;
use crate::{openapi, process, schema, tidy};

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// The house rules: files, words and names, SQL, handlers, sleeps in tests, crates and their edges, migrations
    Tidy,
    /// rustfmt
    Format,
    /// diesel's schema is what the migrations make
    Schema,
    /// clippy, warnings denied
    Lint,
    /// rustdoc, warnings denied
    Docs,
    /// docs/openapi.json is what the server serves, and valid OpenAPI
    Openapi,
}

/// Runs the chosen checks, or all, and stops at the first that fails.
pub(crate) fn run(workspace: &Workspace, only: &[Step]) -> Result<()> {
    process::catch_interrupts()?;
    for step in Step::value_variants().iter().filter(|step| only.is_empty() || only.contains(step)) {
        let name = step.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let start = Instant::now();
        eprintln!("== {name}");
        step.run(workspace)
            .with_context(|| format!("the check `{name}` failed; to repeat it: cargo xtask check {name}"))?;
        eprintln!("== {name}: passed in {:.1} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}

impl Step {
    fn run(self, workspace: &Workspace) -> Result<()> {
        match self {
            Step::Tidy => tidy::run(workspace),
            Step::Format => process::run(&mut workspace.cargo(&["fmt", "--all", "--check"])),
            Step::Schema => schema::diesel_schema(workspace, true),
            Step::Lint => process::run(&mut workspace.cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ])),
            Step::Docs => process::run(
                workspace.cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"),
            ),
            Step::Openapi => schema::openapi(workspace, true).and_then(|()| openapi::validate(workspace)),
        }
    }
}
