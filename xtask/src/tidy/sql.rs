//! SQL is a literal or a constant, never put together from strings, and it stands in `persistence` only.
//!
//! Owns the list of exceptions, each with its reason.

mod built;

use anyhow::{Result, ensure};

use self::built::built_sql;
use super::sources::{Source, Sources, each_string};

/// Where SQL is put together, or stands outside persistence, all the same.
struct Exception {
    file: &'static str,
    /// A part of the lines; empty for the whole file.
    near: &'static str,
    /// Why no caller's value can be in it.
    #[expect(dead_code, reason = "for those who read the table")]
    because: &'static str,
}

const EXCEPTIONS: &[Exception] = &[
    Exception {
        file: "crates/persistence/src/testing.rs",
        near: "",
        because: "schemas and statements of tests; only with the feature `testing`",
    },
    Exception {
        file: "crates/persistence/src/cluster/liveness.rs",
        near: "client.query_opt(statement",
        because: "one of two that are prepared in the same file",
    },
    Exception {
        file: "crates/persistence/src/cluster/connections.rs",
        near: "LISTEN {}",
        because: "a channel cannot be bound; it is a random UUID",
    },
    Exception {
        file: "crates/persistence/src/runs/partitions.rs",
        near: "batch_execute(&statement)",
        because: "a function of the schema makes it of the names of the journal's own partitions",
    },
    Exception {
        file: "crates/persistence/src/cluster/wake.rs",
        near: "LISTEN {channel}",
        because: "a channel cannot be bound; it is a digest of the schema's name",
    },
    Exception {
        file: "crates/postgres/src/cluster.rs",
        near: "FROM pg_database",
        because: "the operator's database; 1 to 63 of a-z, 0-9 and _",
    },
    Exception {
        file: "crates/postgres/src/cluster.rs",
        near: "CREATE DATABASE",
        because: "the operator's database; 1 to 63 of a-z, 0-9 and _",
    },
];

/// Crates in which `execute` and `query` are calls of a database.
const WITH_SQL: &[&str] = &["crates/persistence/", "crates/postgres/"];

/// The one crate of the statements.
const PERSISTENCE: &str = "crates/persistence/";

/// Beginnings of statements, as no sentence begins.
const STATEMENTS: &[&str] = &[
    "SELECT ",
    "INSERT INTO ",
    "DELETE FROM ",
    "UPDATE ",
    "CREATE TABLE ",
    "ALTER TABLE ",
    "DROP TABLE ",
    "TRUNCATE ",
    "COPY ",
    "CREATE DATABASE ",
    "WITH RECURSIVE ",
];

/// Further beginnings, which only count where there is a database.
const COMMANDS: &[&str] = &["LISTEN ", "NOTIFY ", "SET ", "CREATE SCHEMA ", "DROP SCHEMA "];

/// Checks the sources of all crates.
pub(super) fn check(sources: &Sources) -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    let mut unused: Vec<&Exception> = EXCEPTIONS.iter().collect();
    let mut n_statements = 0;
    for (source, syntax) in sources.rust().filter(|(source, _)| source.is_of_a_crate()) {
        let has_sql = WITH_SQL.iter().any(|start| source.path.starts_with(start));
        let built = built_sql(syntax, has_sql);
        refuse(source, &built, "bind values instead of building SQL", &mut unused, &mut breaches);
        let statements = statements(syntax);
        if source.path.starts_with(PERSISTENCE) {
            n_statements += statements.len();
        } else {
            refuse(source, &statements, "SQL outside of `persistence`", &mut unused, &mut breaches);
        }
    }
    ensure!(n_statements > 10, "the check of SQL finds none in `persistence`");
    let unused = unused.iter().map(|one| {
        format!("{}: an exception in `xtask/src/tidy/sql.rs` is not needed: {:?}", one.file, one.near)
    });
    breaches.extend(unused);
    Ok(breaches)
}

/// Reports these lines, unless they are an exception.
fn refuse(
    source: &Source,
    lines: &[usize],
    what: &str,
    unused: &mut Vec<&Exception>,
    breaches: &mut Vec<String>,
) {
    for line in lines {
        let near = source.near(*line);
        let excepts = |one: &Exception| source.path == one.file && near.contains(one.near);
        if EXCEPTIONS.iter().any(excepts) {
            unused.retain(|one| !excepts(one));
        } else {
            breaches.push(format!("{}:{line}: {what}: {}", source.path, near.trim()));
        }
    }
}

/// The lines at which a statement begins.
fn statements(syntax: &syn::File) -> Vec<usize> {
    let mut lines = Vec::new();
    each_string(syntax, |text, line| {
        if begins_with(text, STATEMENTS) {
            lines.push(line);
        }
    });
    lines
}

fn is_sql(text: &str) -> bool {
    begins_with(text, STATEMENTS) || begins_with(text, COMMANDS)
}

fn begins_with(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.trim_start().starts_with(word))
}
