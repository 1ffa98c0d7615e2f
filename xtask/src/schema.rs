//! The generated files: diesel's schema from the migrations, the OpenAPI document from the server.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use gathering_postgres::Cluster;

use crate::process;
use crate::table_macros;
use crate::workspace::Workspace;

const SCHEMA: &str = "crates/persistence/src/db/schema.rs";
const OPENAPI: &str = "docs/openapi.json";
const DATABASE: &str = "gathering_schema";

/// Writes the generated files, or with `check` fails where a committed one differs.
pub(crate) fn run(workspace: &Workspace, check: bool, database_only: bool) -> Result<()> {
    process::catch_interrupts()?;
    diesel_schema(workspace, check)?;
    if database_only { Ok(()) } else { openapi(workspace, check) }
}

/// Diesel's schema, from a database with all migrations.
pub(crate) fn diesel_schema(workspace: &Workspace, check: bool) -> Result<()> {
    let cluster = Cluster::temporary()?;
    let generated = generate(workspace, &cluster);
    cluster.stop()?;
    settle(workspace, SCHEMA, &generated?, check)
}

/// The OpenAPI document, from the server that the tests use.
pub(crate) fn openapi(workspace: &Workspace, check: bool) -> Result<()> {
    process::run(&mut workspace.build_for_tests())?;
    let mut server = std::process::Command::new(workspace.server("debug"));
    let mut document = process::output(server.arg("openapi").current_dir(workspace.root()))?;
    if !document.ends_with('\n') {
        document.push('\n');
    }
    settle(workspace, OPENAPI, &document, check)
}

fn settle(workspace: &Workspace, path: &str, generated: &str, check: bool) -> Result<()> {
    let file = workspace.root().join(path);
    let committed = fs::read_to_string(&file).unwrap_or_default();
    if committed == generated {
        eprintln!("{path} is up to date");
        return Ok(());
    }
    if check {
        let line = committed.lines().zip(generated.lines()).take_while(|(a, b)| a == b).count() + 1;
        bail!("{path} is stale, first in line {line}: run `cargo xtask schema` and commit the result");
    }
    fs::write(&file, generated).with_context(|| format!("write {path}"))?;
    eprintln!("wrote {path}");
    Ok(())
}

fn generate(workspace: &Workspace, cluster: &Cluster) -> Result<String> {
    cluster.ensure_database(DATABASE)?;
    apply(cluster, &migrations(workspace.root())?)?;
    let schema = table_macros::read(|query| {
        let mut psql = cluster.command("psql");
        // Record and field separators that no name contains.
        psql.args(["-XAtq", "-F", "\t", "-d", DATABASE, "-c", query]);
        process::output(&mut psql)
    })?;
    format(&schema, workspace.root())
}

/// The folders of all migrations, oldest first.
pub(crate) fn migrations(root: &Path) -> Result<Vec<PathBuf>> {
    let directory = root.join("migrations");
    let mut found: Vec<PathBuf> = fs::read_dir(&directory)
        .context("read migrations/")?
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    ensure!(!found.is_empty(), "there is no migration in migrations/");
    Ok(found)
}

fn apply(cluster: &Cluster, migrations: &[PathBuf]) -> Result<()> {
    for migration in migrations {
        let mut psql = cluster.command("psql");
        psql.stdout(std::process::Stdio::null())
            .args(["-Xq", "-v", "ON_ERROR_STOP=1", "-d", DATABASE, "-f"])
            .arg(migration.join("up.sql"));
        let metadata = fs::read_to_string(migration.join("metadata.toml")).unwrap_or_default();
        if !metadata.replace(' ', "").contains("run_in_transaction=false") {
            psql.arg("--single-transaction");
        }
        process::run(&mut psql)?;
    }
    Ok(())
}

fn format(source: &str, root: &Path) -> Result<String> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("schema.rs");
    fs::write(&file, source)?;
    let mut rustfmt = std::process::Command::new("rustfmt");
    process::run(rustfmt.args(["--edition", "2024", "--config-path"]).arg(root).arg(&file))?;
    fs::read_to_string(&file).context("read the formatted schema")
}
