//! What the source itself must not hold: SQL that is put together from strings, or that stands outside persistence, and
//! handlers that could decide too early.

use std::path::{Path, PathBuf};

use anyhow::Result;
use gathering_e2e::workspace_root;

/// Calls whose first argument is SQL.
const CALLS: [&str; 9] = [
    "sql_query",
    "sql",
    "batch_execute",
    "simple_query",
    "execute",
    "query",
    "query_one",
    "query_opt",
    "query_raw",
];

/// Macros that make one string of others.
const BUILDERS: [&str; 3] = ["format!", "concat!", "write!"];

/// Where SQL is put together, or stands outside persistence, all the same: file, a part of the lines (empty: the whole
/// file), and why no caller's value can be in it.
const ALLOWED: [(&str, &str, &str); 5] = [
    (
        "crates/persistence/src/testing.rs",
        "",
        "schemas and statements of tests; only with the feature `testing`",
    ),
    (
        "crates/persistence/src/liveness.rs",
        "client.execute(statement",
        "one of two that are prepared in the same file",
    ),
    ("crates/persistence/src/wake.rs", "LISTEN {channel}", "cannot be bound; a digest of the schema's name"),
    (
        "crates/postgres/src/cluster.rs",
        "FROM pg_database",
        "the operator's database; 1 to 63 of a-z, 0-9 and _",
    ),
    (
        "crates/postgres/src/cluster.rs",
        "CREATE DATABASE",
        "the operator's database; 1 to 63 of a-z, 0-9 and _",
    ),
];

/// Beginnings of statements, as no sentence begins.
const STATEMENTS: [&str; 11] = [
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

/// One string literal or one of everything else, comments left out.
#[derive(Debug, PartialEq)]
enum Token {
    Text(String),
    Word(String),
    Sign(char),
}

/// The tokens of a source file with their lines. Characters and lifetimes are left out as well.
fn tokens(source: &str) -> Vec<(usize, Token)> {
    let chars: Vec<char> = source.chars().collect();
    let (mut at, mut line, mut found) = (0, 1, Vec::new());
    let starts = |at: usize, text: &str| text.chars().enumerate().all(|(n, c)| chars.get(at + n) == Some(&c));
    while let Some(&c) = chars.get(at) {
        let begun = line;
        let end = if starts(at, "//") {
            (at..chars.len()).find(|n| chars[*n] == '\n').unwrap_or(chars.len())
        } else if starts(at, "/*") {
            (at..chars.len()).find(|n| starts(*n, "*/")).map_or(chars.len(), |n| n + 2)
        } else if let Some((text, end)) = literal(&chars, at) {
            found.push((begun, Token::Text(text)));
            end
        } else if c == '\'' {
            match chars.get(at + 1) {
                Some('\\') => {
                    (at + 3..chars.len()).find(|n| chars[*n] == '\'').map_or(chars.len(), |n| n + 1)
                }
                _ if chars.get(at + 2) == Some(&'\'') => at + 3,
                _ => at + 1,
            }
        } else if c.is_alphanumeric() || c == '_' {
            let end = (at..chars.len()).find(|n| !(chars[*n].is_alphanumeric() || chars[*n] == '_'));
            let end = end.unwrap_or(chars.len());
            found.push((begun, Token::Word(chars[at..end].iter().collect())));
            end
        } else {
            if !c.is_whitespace() {
                found.push((begun, Token::Sign(c)));
            }
            at + 1
        };
        line += chars[at..end].iter().filter(|c| **c == '\n').count();
        at = end;
    }
    found
}

/// The string literal that begins here, in any of its forms, and where it ends.
fn literal(chars: &[char], at: usize) -> Option<(String, usize)> {
    let prefixed = at
        .checked_sub(1)
        .and_then(|before| chars.get(before))
        .is_some_and(|c| c.is_alphanumeric() || *c == '_');
    let mut open = at;
    while !prefixed && open < at + 2 && matches!(chars.get(open), Some('b' | 'c' | 'r')) {
        open += 1;
    }
    let is_raw = open > at && chars[open - 1] == 'r';
    let n_hashes = if is_raw { chars[open..].iter().take_while(|c| **c == '#').count() } else { 0 };
    if chars.get(open + n_hashes) != Some(&'"') {
        return None;
    }
    let start = open + n_hashes + 1;
    let mut end = start;
    while let Some(&c) = chars.get(end) {
        if c == '\\' && !is_raw {
            end += 2;
            continue;
        }
        if c == '"' && chars[end + 1..].iter().take(n_hashes).filter(|c| **c == '#').count() == n_hashes {
            break;
        }
        end += 1;
    }
    let end = end.min(chars.len());
    Some((chars[start..end].iter().collect(), (end + 1 + n_hashes).min(chars.len())))
}

/// The lines of a file where SQL is not a literal or a constant. `has_sql`: whether calls such as `execute` are of a
/// database here.
fn built_sql(source: &str, has_sql: bool) -> Vec<usize> {
    let tokens = tokens(source);
    let sign = |at: usize, c: char| tokens.get(at).is_some_and(|(_, token)| *token == Token::Sign(c));
    let word = |at: usize| match tokens.get(at) {
        Some((_, Token::Word(word))) => Some(word.as_str()),
        _ => None,
    };
    let mut lines = Vec::new();
    for (at, (line, token)) in tokens.iter().enumerate() {
        let Token::Word(name) = token else { continue };
        let is_builder = sign(at + 1, '!') && BUILDERS.contains(&format!("{name}!").as_str());
        if is_builder && has_sql && tokens[at..].iter().take(6).any(|(_, token)| is_statement(token)) {
            lines.push(*line);
        }
        if !CALLS.contains(&name.as_str())
            || at.checked_sub(1).is_some_and(|before| word(before) == Some("fn"))
        {
            continue;
        }
        // Past `::<Type>`.
        let mut open = at + 1;
        if sign(open, ':') && sign(open + 1, ':') && sign(open + 2, '<') {
            let mut depth = 0;
            open += 2;
            while let Some((_, token)) = tokens.get(open) {
                depth += i32::from(*token == Token::Sign('<')) - i32::from(*token == Token::Sign('>'));
                open += 1;
                if depth == 0 {
                    break;
                }
            }
        }
        let always_sql = ["sql_query", "sql", "batch_execute", "simple_query"].contains(&name.as_str());
        let is_method = at.checked_sub(1).is_some_and(|before| sign(before, '.'));
        if !sign(open, '(') || !(always_sql || (has_sql && is_method)) {
            continue;
        }
        let argument = argument(&tokens[open + 1..]);
        let is_fixed = match argument.as_slice() {
            [Token::Text(_)] => true,
            // Diesel's `execute(&mut connection)` runs a statement that it has made itself.
            [] | [Token::Sign('&'), ..] => !always_sql,
            [Token::Word(name)] => {
                is_constant(name)
                    || is_always_literal(&tokens, name)
                    || (!always_sql && name.starts_with("conn"))
            }
            path => {
                path.iter().all(|token| matches!(token, Token::Word(_) | Token::Sign(':')))
                    && matches!(path.last(), Some(Token::Word(last)) if is_constant(last))
            }
        };
        if !is_fixed {
            lines.push(*line);
        }
    }
    lines
}

/// Whether this name is bound to literals only: each `let` is of one or of an `if` between them, each parameter is a
/// `&'static str`.
fn is_always_literal(tokens: &[(usize, Token)], name: &str) -> bool {
    let is = |at: usize, text: &str| match tokens.get(at) {
        Some((_, Token::Word(word))) => word == text,
        Some((_, Token::Sign(sign))) => text.chars().eq([*sign]),
        _ => false,
    };
    let text = |at: usize| matches!(tokens.get(at), Some((_, Token::Text(_))));
    let either = |at: usize| {
        let end = (at..tokens.len()).find(|end| is(*end, ";")).unwrap_or(at);
        is(at, "if") && (at..end).all(|at| !is(at, "{") || (text(at + 1) && is(at + 2, "}")))
    };
    let literal = |at: usize| (text(at) && is(at + 1, ";")) || either(at);
    let bound = (0..tokens.len()).filter(|at| is(*at, name)).filter_map(|at| {
        let is_let = at.checked_sub(1).is_some_and(|before| is(before, "let") || is(before, "mut"));
        match () {
            () if is_let => Some(is(at + 1, "=") && literal(at + 2)),
            () if is(at + 1, ":") && !is(at + 2, ":") => {
                Some(is(at + 2, "&") && is(at + 3, "static") && is(at + 4, "str"))
            }
            () => None,
        }
    });
    let bound: Vec<bool> = bound.collect();
    !bound.is_empty() && bound.iter().all(|is_literal| *is_literal)
}

fn is_constant(name: &str) -> bool {
    name.chars().any(char::is_uppercase) && !name.chars().any(char::is_lowercase)
}

fn is_statement(token: &Token) -> bool {
    matches!(token, Token::Text(text) if is_sql(text))
}

fn is_sql(text: &str) -> bool {
    let text = text.trim_start();
    STATEMENTS
        .iter()
        .chain(&["LISTEN ", "NOTIFY ", "SET ", "CREATE SCHEMA ", "DROP SCHEMA "])
        .any(|word| text.starts_with(word))
}

/// The first argument behind an opening parenthesis.
fn argument(tokens: &[(usize, Token)]) -> Vec<&Token> {
    let mut depth = 0;
    let ends = |token: &Token| match token {
        Token::Sign('(' | '[' | '{') => {
            depth += 1;
            false
        }
        Token::Sign(')' | ']' | '}') => {
            depth -= 1;
            depth < 0
        }
        Token::Sign(',') => depth == 0,
        _ => false,
    };
    let mut ends = ends;
    tokens.iter().map(|(_, token)| token).take_while(|token| !ends(token)).collect()
}

/// The sources of all crates, with paths from the root.
fn sources() -> Result<Vec<(PathBuf, String)>> {
    fn collect(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                collect(&path, found)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
        Ok(())
    }
    let root = workspace_root()?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join("crates"))? {
        collect(&entry?.path().join("src"), &mut found)?;
    }
    found.sort();
    let read = |path: PathBuf| Ok((path.strip_prefix(root)?.to_owned(), std::fs::read_to_string(path)?));
    found.into_iter().map(read).collect()
}

/// What is not allowed at these lines of a file; what is allowed is taken out of `unused`.
fn refused(
    path: &Path,
    source: &str,
    lines: Vec<usize>,
    unused: &mut Vec<(&'static str, &'static str)>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for line in lines {
        let near: String = source.lines().skip(line - 1).take(3).collect();
        match ALLOWED.iter().find(|(file, part, _)| path == Path::new(file) && near.contains(part)) {
            Some((file, part, _)) => unused.retain(|one| one != &(*file, *part)),
            None => wrong.push(format!("{}:{line}: {}", path.display(), near.trim())),
        }
    }
    wrong
}

#[test]
fn no_sql_is_built_from_strings() -> Result<()> {
    let (mut wrong, mut unused) = (Vec::new(), ALLOWED.map(|(file, part, _)| (file, part)).to_vec());
    for (path, source) in sources()? {
        let has_sql = path.starts_with("crates/persistence") || path.starts_with("crates/postgres");
        wrong.extend(refused(&path, &source, built_sql(&source, has_sql), &mut unused));
    }
    assert!(wrong.is_empty(), "bind values instead:\n{}", wrong.join("\n"));
    assert!(unused.is_empty(), "allowed, and not there: {unused:?}");
    Ok(())
}

#[test]
fn sql_stands_in_persistence_only() -> Result<()> {
    let (mut n_found, mut wrong) = (0, Vec::new());
    for (path, source) in sources()? {
        let begins = |text: &str| STATEMENTS.iter().any(|word| text.trim_start().starts_with(word));
        let statements = tokens(&source).into_iter();
        let statements = statements.filter(|(_, token)| matches!(token, Token::Text(text) if begins(text)));
        let lines: Vec<usize> = statements.map(|(line, _)| line).collect();
        if path.starts_with("crates/persistence") {
            n_found += lines.len();
        } else {
            wrong.extend(refused(&path, &source, lines, &mut Vec::new()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(n_found > 10, "the test looks at nothing");
    Ok(())
}

/// What a caller may is decided when their body has come whole, so a handler gets the two together.
#[test]
fn no_handler_knows_its_caller_before_their_body() -> Result<()> {
    let handlers = Path::new("crates/server/src/http");
    let mut n_bodies = 0;
    for (path, source) in sources()?.into_iter().filter(|(path, _)| path.starts_with(handlers)) {
        let signatures = source.split("async fn ").skip(1).filter_map(|rest| rest.split('{').next());
        for signature in signatures.filter(|text| text.contains(": Body") || text.contains(": OpenBody")) {
            n_bodies += 1;
            assert!(!signature.contains("Authenticated"), "{}: {signature}", path.display());
        }
    }
    assert!(n_bodies > 10, "{n_bodies} handlers with a body");
    Ok(())
}

#[test]
fn the_scanner_sees_every_way_to_build_sql() {
    for source in [
        r#"sql_query(format!("SELECT {x}"))"#,
        r#"sql_query(&format!("SELECT {x}"))"#,
        r#"diesel::sql_query(text)"#,
        r#"sql_query("SELECT " .to_owned() + name)"#,
        r#"sql_query(String::from("SELECT 1"))"#,
        r#"sql::<Nullable<Bool>>(&text)"#,
        r#"dsl::sql::<Bool>(format!("a = {b}").as_str())"#,
        r#"client.batch_execute(&format!("LISTEN {channel}"))"#,
        r#"client.batch_execute(statement)"#,
        r#"let text = "SELECT 1"; let text = other(); client.query(text, &[])"#,
        r#"let text = if a { "SELECT 1" } else { other }; client.query(text, &[])"#,
        "fn run(client: &Client, text: &str) { client.query(text, &[]) }",
        r#"client.simple_query(concat!("SELECT ", "1"))"#,
        r#"let text = format!("SELECT {x}"); client.query(text, &[])"#,
        r#"client.execute(["SELECT ", x].concat().as_str(), &[])"#,
        "client.query_one(\n    r#\"SELECT\"#.to_string() + x,\n    &[])",
    ] {
        assert!(!built_sql(source, true).is_empty(), "{source}");
    }
    for source in [
        r##"sql_query("SELECT 1")"##,
        r##"sql_query(r#"SELECT "x" FROM y"#).bind::<Text, _>(name)"##,
        r#"let text = "SET a = 1; SET b = 2"; client.batch_execute(text)"#,
        r#"let text = if a { "SELECT 1" } else { "SELECT 2" }; client.query(text, &[])"#,
        "fn run(client: &Client, text: &'static str) { client.query(text, &[]) }",
        "diesel::sql_query(CANCEL)",
        "sql_query(queries::CANCEL_ALL)",
        r#"sql::<Timestamptz>("now() + ").bind::<Interval, _>(lifetime)"#,
        r#"client.execute("SELECT 1", &[&format!("{x}")])"#,
        "statement.execute(&mut conn)",
        "statement.execute(conn)",
        r#"// sql_query(format!("SELECT {x}"))"#,
        r#"let shown = "sql_query(format!(x))";"#,
        "fn sql_query(text: &str) {}",
        r#"format!("a sentence about {x}")"#,
    ] {
        assert_eq!(built_sql(source, true), [0; 0], "{source}");
    }
    assert_eq!(built_sql("\n\nsql_query(x)", true), [3]);
}
