//! Every statement that changes the state of a run stands in one place of `persistence`.

use anyhow::{Result, ensure};
use syn::visit::{self, Visit};

use super::sources::{Sources, each_string};

/// Where the rule applies.
const PERSISTENCE: &str = "crates/persistence/src/";

/// The tables that have the state of a run: until its end, and since.
const TABLES: [&str; 2] = ["active_runs", "runs"];

/// The place: this file, and the folder of the same name.
const TRANSITIONS: &str = "crates/persistence/src/runs/transitions";

/// Checks the statements and the calls of diesel.
pub(super) fn check(sources: &Sources) -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    let mut n_in_place = 0;
    for (source, syntax) in sources.rust().filter(|(source, _)| source.path.starts_with(PERSISTENCE)) {
        let lines = changes(syntax);
        if source.path.starts_with(TRANSITIONS) {
            n_in_place += lines.len();
        } else {
            let path = &source.path;
            breaches.extend(lines.iter().map(|line| {
                format!("{path}:{line}: changes the state of runs; only `runs/transitions` does")
            }));
        }
    }
    ensure!(n_in_place >= 4, "the check of transitions finds only {n_in_place} in `runs/transitions`");
    Ok(breaches)
}

/// The lines at which a run's state is changed.
fn changes(syntax: &syn::File) -> Vec<usize> {
    let mut lines = Vec::new();
    each_string(syntax, |text, line| {
        let assigns = TABLES.iter().any(|table| {
            let update = format!("UPDATE {table} ");
            let mut updates = text.split(update.as_str()).skip(1);
            updates.any(|update| update.split_once("SET").is_some_and(|(_, after)| assigns_state(after)))
        });
        if assigns || text.contains("DELETE FROM active_runs") {
            lines.push(line);
        }
    });
    let mut calls = Calls { is_set: false, lines };
    calls.visit_file(syntax);
    calls.lines
}

/// Whether the assignments behind `SET` name the state.
fn assigns_state(after: &str) -> bool {
    let assignments = after.split("WHERE").next().unwrap_or_default();
    let assignments = assignments.split(" FROM ").next().unwrap_or_default();
    assignments.split(',').any(|part| part.split_whitespace().next() == Some("state"))
}

/// Calls of `set` with the column `state` of these tables.
struct Calls {
    is_set: bool,
    lines: Vec<usize>,
}

impl<'ast> Visit<'ast> for Calls {
    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.visit_expr(&call.receiver);
        let outside = self.is_set;
        self.is_set |= call.method == "set";
        call.args.iter().for_each(|argument| self.visit_expr(argument));
        self.is_set = outside;
    }

    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        let parts: Vec<String> = path.path.segments.iter().map(|part| part.ident.to_string()).collect();
        if self.is_set
            && let [.., table, column] = parts.as_slice()
            && TABLES.contains(&table.as_str())
            && column.as_str() == "state"
        {
            self.lines.extend(path.path.segments.last().map(|last| last.ident.span().start().line));
        }
        visit::visit_expr_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_state_is_found_in_sql_and_in_diesel_and_a_condition_is_none() -> Result<()> {
        let text = r#"
            const A: &str = "UPDATE runs SET owner = NULL, state = 'queued' WHERE id = $1";
            const B: &str = "UPDATE active_runs AS a SET available_at = now() WHERE state = 'waiting'";
            const C: &str = "UPDATE active_runs AS a SET state = $1 WHERE run_id = $2";
            const D: &str = "DELETE FROM active_runs WHERE run_id = $1";
            fn f() {
                diesel::update(runs::table).set((runs::owner.eq(None), runs::state.eq("queued")));
                diesel::update(runs::table.filter(runs::state.eq("queued"))).set(runs::owner.eq(None));
            }
        "#;
        assert_eq!(changes(&syn::parse_file(text)?), [2, 4, 5, 7]);
        Ok(())
    }
}
