//! Tests wait for conditions, not for times.
//!
//! A sleep in a `while` or a `loop` is the pause between two looks at the condition. Under virtual time a sleep costs
//! nothing and ends at its moment, so files whose tests run under it are free.

use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Meta};

use super::sources::{Source, Sources};

/// Beginnings of the paths of tests that sleep all the same, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("crates/dag-engine/tests/engine/file_store.rs", "a process is killed at moments spread over its life"),
    ("crates/dag-engine/tests/engine/invariants/support/", "the tests that use it run under virtual time"),
    ("crates/edge/src/upload.rs", "a client sends its body slowly"),
    ("tests/src/load.rs", "a client repeats a start that was not accepted"),
    ("tests/src/peer.rs", "a peer answers as late as its test says"),
    ("tests/tests/e2e/edge/clients.rs", "a client sends its requests at a steady rate"),
    ("tests/tests/e2e/emails.rs", "the moment of a kill is drawn at random"),
    ("tests/tests/e2e/resume.rs", "the moment of the kill is drawn at random"),
    ("tests/tests/load/kills.rs", "the moment of the kill is drawn at random"),
    ("tests/tests/load/takeover.rs", "the moment of the kill is drawn at random"),
];

/// How a test says that its time is virtual.
const VIRTUAL: &str = "start_paused = true";

/// Checks the code that only tests have.
pub(super) fn check(sources: &Sources) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut unused: Vec<&str> = EXCEPTIONS.iter().map(|(path, _)| *path).collect();
    for (source, syntax) in sources.rust().filter(|(source, _)| !source.text.contains(VIRTUAL)) {
        let mut search = Search { is_test: is_test_file(source), lines: Vec::new() };
        search.visit_file(syntax);
        let excepts = |start: &str| source.path.starts_with(start);
        if !search.lines.is_empty() && EXCEPTIONS.iter().any(|(start, _)| excepts(start)) {
            unused.retain(|start| !excepts(start));
            continue;
        }
        breaches.extend(search.lines.iter().map(|line| {
            format!("{}:{line}: a test sleeps; wait for the condition, with a limit", source.path)
        }));
    }
    breaches.extend(
        unused.iter().map(|path| format!("{path}: an exception in `xtask/src/tidy/sleeps.rs` is not needed")),
    );
    breaches
}

fn is_test_file(source: &Source) -> bool {
    let path = &source.path;
    path.contains("/tests/") || path.starts_with("tests/src/") || path.ends_with("/tests.rs")
}

struct Search {
    is_test: bool,
    lines: Vec<usize>,
}

impl<'ast> Visit<'ast> for Search {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let outside = self.is_test;
        self.is_test |= module.attrs.iter().any(is_for_tests);
        visit::visit_item_mod(self, module);
        self.is_test = outside;
    }

    fn visit_expr_while(&mut self, _: &'ast syn::ExprWhile) {}

    fn visit_expr_loop(&mut self, _: &'ast syn::ExprLoop) {}

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let (true, Expr::Path(path)) = (self.is_test, &*call.func)
            && let Some(last) = path.path.segments.last()
            && last.ident == "sleep"
        {
            self.lines.push(last.ident.span().start().line);
        }
        visit::visit_expr_call(self, call);
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Result;

    use super::*;

    fn breaches(path: &str, text: &str) -> Result<usize> {
        let sources = Sources { files: vec![Source::parse(path, text.to_owned())?] };
        let found = check(&sources).into_iter().filter(|breach| breach.contains("a test sleeps"));
        Ok(found.count())
    }

    #[test]
    fn a_sleep_of_a_test_is_a_breach_unless_it_polls_or_its_time_is_virtual() -> Result<()> {
        let sleeps = "async fn f() { tokio::time::sleep(LONG).await; }";
        let polls = "async fn f() { while !is_there() { tokio::time::sleep(SHORT).await; } }";
        let is_virtual = format!("#[tokio::test(start_paused = true)]\n{sleeps}");
        assert_eq!(breaches("crates/a/tests/b.rs", sleeps)?, 1);
        assert_eq!(breaches("crates/a/src/b.rs", &format!("#[cfg(test)]\nmod tests {{ {sleeps} }}"))?, 1);
        assert_eq!(breaches("crates/a/src/b.rs", sleeps)?, 0);
        assert_eq!(breaches("crates/a/tests/b.rs", polls)?, 0);
        assert_eq!(breaches("crates/a/tests/b.rs", &is_virtual)?, 0);
        Ok(())
    }
}
