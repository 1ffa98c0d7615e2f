//! `gathering openapi`: prints the document of the HTTP API.

use std::io::Write as _;
use std::process::ExitCode;

use crate::http;

/// Prints the document: always the same for one version, whatever the settings are; no database is touched.
///
/// # Errors
/// If standard output is closed.
pub(crate) fn print() -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(http::document()?.into_text().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
