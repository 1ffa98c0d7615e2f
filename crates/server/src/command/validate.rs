//! `gathering validate FILE`: says whether a definition may be executed, without a database.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use gathering_dag_engine::DefinitionFile;

use super::progress::tell;
use crate::capabilities::Capabilities;
use crate::config::Config;

/// The exit code for a file that holds no valid definition.
pub(super) const INVALID: u8 = 2;

/// The arguments of `gathering validate`.
#[derive(Debug, Clone, clap::Args)]
pub struct ValidateArgs {
    /// The definition, in YAML or JSON
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Validates a definition: prints its order, or every problem with its place.
///
/// # Errors
/// If the node types cannot be set up.
pub async fn validate(config: &Config, args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    let specs = Capabilities::new(config)?.node_specs();
    let file = match DefinitionFile::read(&args.file, &specs).await {
        Ok(file) => file,
        Err(invalid) => {
            tell(&invalid.to_string());
            return Ok(ExitCode::from(INVALID));
        }
    };
    let mut text = format!("{}: valid\n", args.file.display());
    text.push_str(&format!("order: {}\n", file.graph.order().collect::<Vec<_>>().join(", ")));
    for (depth, nodes) in (1..).zip(file.graph.levels()) {
        text.push_str(&format!("level {depth}: {}\n", nodes.join(", ")));
    }
    // A closed standard output is not an error.
    std::io::stdout().write_all(text.as_bytes()).ok();
    Ok(ExitCode::SUCCESS)
}
