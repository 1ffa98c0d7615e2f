//! House rules that no compiler checks. Every breach is listed, not only the first.
//!
//! Owns the list of the rules; each rule has a module, and its tables stand at the top of it. Never changes a file.

mod crates;
mod edges;
mod files;
mod handlers;
mod migrations;
mod names;
mod sleeps;
mod sources;
mod sql;
mod transitions;
mod words;

use anyhow::{Result, bail};

use crate::workspace::Workspace;

use self::sources::Sources;

/// Lists every breach; fails if there is one.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let sources = Sources::read(workspace.root())?;
    let breaches = [
        files::check(workspace.root(), &sources),
        words::check(&sources),
        sql::check(&sources)?,
        transitions::check(&sources)?,
        handlers::check(&sources)?,
        names::check(&sources),
        sleeps::check(&sources),
        crates::check(workspace),
        edges::check(workspace)?,
        migrations::check(workspace.root())?,
    ]
    .concat();
    for breach in &breaches {
        eprintln!("{breach}");
    }
    if breaches.is_empty() { Ok(()) } else { bail!("{} breaches of the house rules", breaches.len()) }
}
