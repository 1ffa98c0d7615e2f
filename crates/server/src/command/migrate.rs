//! `gathering migrate`: brings the database to this version's schema.

use std::io::Write as _;
use std::process::ExitCode;

use crate::config::Config;
use crate::database;

/// Migrates, and says how many migrations that took.
///
/// # Errors
/// In words for the operator; migrations before a failed one hold.
pub(crate) async fn migrate(config: &Config) -> anyhow::Result<ExitCode> {
    let n_migrations = database::migrate(config).await?;
    let mut out = std::io::stdout();
    match n_migrations {
        0 => writeln!(out, "the database is up to date")?,
        1 => writeln!(out, "1 migration was applied")?,
        n => writeln!(out, "{n} migrations were applied")?,
    }
    Ok(ExitCode::SUCCESS)
}
