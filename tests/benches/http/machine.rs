//! What the figures depend on: processors, and how PostgreSQL treats a commit.

use anyhow::Result;

use crate::stand::Stand;

/// The machine and the settings, in one sentence.
pub(crate) fn describe(stand: &Stand) -> Result<String> {
    let n_processors = std::thread::available_parallelism()?;
    let n_threads = n_password_threads();
    let setting = |name: &str| -> Result<String> {
        let rows = stand.query("SELECT current_setting($1)", &[&name])?;
        Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
    };
    let version = setting("server_version")?;
    Ok(format!(
        "{n_processors} processors, shared by the server, PostgreSQL {} (fsync {}, synchronous_commit {}) and the \
         clients; bcrypt cost {}; threads that hash passwords: {n_threads}.",
        version.split(' ').next().unwrap_or_default(),
        setting("fsync")?,
        setting("synchronous_commit")?,
        stand.cost,
    ))
}

/// How many passwords the server hashes at a time.
pub(crate) fn n_password_threads() -> usize {
    gathering_auth::PasswordSettings::default().n_threads
}
