//! What holds for every migration.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::schema;

/// Each goes up and down, in whichever schema is set.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    for migration in schema::migrations(root)? {
        let name = migration.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for direction in ["up.sql", "down.sql"] {
            let text = fs::read_to_string(migration.join(direction)).unwrap_or_default();
            if text.trim().is_empty() {
                breaches.push(format!("migrations/{name}: no {direction}"));
            }
            if let Some(index) = text.lines().position(|line| line.contains("public.")) {
                let line = index + 1;
                breaches.push(format!(
                    "migrations/{name}/{direction}:{line}: names a schema; migrations run in whichever is set"
                ));
            }
        }
    }
    Ok(breaches)
}
