//! Finds SQL that is put together from strings.
//!
//! Owns which calls take SQL, and which of their arguments are fixed. Errs on the side of refusing.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Expr, Lit, Pat, Token, Type};

use super::super::sources::each_token;
use super::is_sql;

/// Functions and methods whose first argument is SQL, wherever they stand.
const ALWAYS_SQL: &[&str] = &["sql_query", "sql", "batch_execute", "simple_query"];

/// Methods whose first argument is SQL where the receiver is a database.
const METHODS: &[&str] = &["execute", "query", "query_one", "query_opt", "query_raw"];

/// Macros that make one string of values. `concat!` is none of them: it takes literals only.
const BUILDERS: &[&str] = &["format", "write"];

/// The lines of a file where SQL is not a literal or a constant. `has_sql`: whether calls such as `execute` are of a
/// database here.
pub(super) fn built_sql(syntax: &syn::File, has_sql: bool) -> Vec<usize> {
    let mut bindings = Bindings::default();
    bindings.visit_file(syntax);
    let mut search = Search { has_sql, bindings, lines: Vec::new() };
    search.visit_file(syntax);
    search.lines.sort_unstable();
    search.lines.dedup();
    search.lines
}

/// Whether each binding of a name in this file is of literals only.
#[derive(Default)]
struct Bindings(BTreeMap<String, bool>);

impl Bindings {
    fn note(&mut self, pattern: &Pat, is_literal: bool) {
        if let Pat::Ident(bound) = pattern {
            let all = self.0.entry(bound.ident.to_string()).or_insert(true);
            *all &= is_literal;
        }
    }

    fn are_literal(&self, name: &str) -> bool {
        self.0.get(name).copied().unwrap_or(false)
    }

    /// Whether an argument has the same value in every call: a literal, a constant, or a name for literals.
    fn fix(&self, argument: Option<&Expr>, always_sql: bool) -> bool {
        match argument {
            // Diesel's `execute(&mut connection)` runs a statement that it has made itself.
            None | Some(Expr::Reference(_)) => !always_sql,
            Some(Expr::Path(path)) => {
                let is_alone = path.path.segments.len() == 1;
                path.path.segments.last().is_some_and(|last| {
                    let name = last.ident.to_string();
                    is_constant(&name)
                        || (is_alone && self.are_literal(&name))
                        || (is_alone && !always_sql && name.starts_with("conn"))
                })
            }
            // A static that is computed once, out of constants.
            Some(Expr::MethodCall(call)) if call.method == "as_str" => match &*call.receiver {
                Expr::Path(path) => {
                    path.path.segments.last().is_some_and(|last| is_constant(&last.ident.to_string()))
                }
                _ => false,
            },
            Some(expression) => is_literal(expression),
        }
    }
}

impl<'ast> Visit<'ast> for Bindings {
    fn visit_local(&mut self, local: &'ast syn::Local) {
        let is_literal = local.init.as_ref().is_some_and(|init| is_literal(&init.expr));
        match &local.pat {
            Pat::Type(typed) => self.note(&typed.pat, is_literal),
            pattern => self.note(pattern, is_literal),
        }
        if let Some(init) = &local.init {
            self.visit_expr(&init.expr);
        }
        if !matches!(local.pat, Pat::Ident(_) | Pat::Type(_)) {
            self.visit_pat(&local.pat);
        }
    }

    fn visit_pat_type(&mut self, parameter: &'ast syn::PatType) {
        self.note(&parameter.pat, is_static_str(&parameter.ty));
    }

    /// Whatever else binds a name: closures, matches, loops.
    fn visit_pat_ident(&mut self, bound: &'ast syn::PatIdent) {
        self.0.insert(bound.ident.to_string(), false);
    }
}

/// A literal, or an `if` between literals.
fn is_literal(expression: &Expr) -> bool {
    let is_one = |block: &syn::Block| match block.stmts.as_slice() {
        [syn::Stmt::Expr(only, None)] => is_literal(only),
        _ => false,
    };
    match expression {
        Expr::Lit(literal) => matches!(literal.lit, Lit::Str(_)),
        Expr::Macro(called) => called.mac.path.is_ident("concat"),
        Expr::If(choice) => {
            is_one(&choice.then_branch)
                && choice.else_branch.as_ref().is_some_and(|(_, otherwise)| is_literal(otherwise))
        }
        Expr::Block(block) => is_one(&block.block),
        _ => false,
    }
}

fn is_static_str(kind: &Type) -> bool {
    match kind {
        Type::Reference(reference) => {
            let is_static = reference.lifetime.as_ref().is_some_and(|lifetime| lifetime.ident == "static");
            is_static && matches!(&*reference.elem, Type::Path(path) if path.path.is_ident("str"))
        }
        _ => false,
    }
}

fn is_constant(name: &str) -> bool {
    name.chars().any(char::is_uppercase) && !name.chars().any(char::is_lowercase)
}

struct Search {
    has_sql: bool,
    bindings: Bindings,
    lines: Vec<usize>,
}

impl Search {
    /// Notes a call of `name` unless it takes no SQL, or what it takes `is_fixed`; that is told whether it always takes
    /// SQL.
    fn call(&mut self, name: &syn::Ident, is_method: bool, is_fixed: impl FnOnce(&Bindings, bool) -> bool) {
        let text = name.to_string();
        let always_sql = ALWAYS_SQL.contains(&text.as_str());
        let may_be_sql = self.has_sql && is_method && METHODS.contains(&text.as_str());
        if (always_sql || may_be_sql) && !is_fixed(&self.bindings, always_sql) {
            self.lines.push(name.span().start().line);
        }
    }

    /// Calls in the arguments of a macro, which are tokens to `syn`: `name(...)`, `.name(...)`, `name::<T>(...)`.
    fn calls_in(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            let TokenTree::Group(group) = token else { continue };
            if group.delimiter() == Delimiter::Parenthesis
                && let Some((name, is_method)) = called(&tokens[..at])
            {
                let arguments = Punctuated::<Expr, Token![,]>::parse_terminated.parse2(group.stream());
                self.call(&name, is_method, |bindings, always_sql| match arguments {
                    Ok(arguments) => bindings.fix(arguments.first(), always_sql),
                    // A pattern or the like, of which nobody can say that it is fixed.
                    Err(_) => false,
                });
            }
            self.calls_in(group.stream());
        }
    }
}

/// The name in front of an opening parenthesis, and whether it is a method.
fn called(before: &[TokenTree]) -> Option<(syn::Ident, bool)> {
    let is =
        |at: usize, sign: char| matches!(before.get(at), Some(TokenTree::Punct(p)) if p.as_char() == sign);
    let mut at = before.len().checked_sub(1)?;
    // Past `::<Type>`.
    if is(at, '>') {
        let mut depth = 0_i32;
        loop {
            depth += i32::from(is(at, '>')) - i32::from(is(at, '<'));
            at = at.checked_sub(1)?;
            if depth == 0 {
                break;
            }
        }
        at = at.checked_sub(2)?;
    }
    let TokenTree::Ident(name) = before.get(at)? else { return None };
    let previous = at.checked_sub(1);
    let is_definition =
        previous.is_some_and(|at| matches!(&before[at], TokenTree::Ident(word) if word == "fn"));
    (!is_definition).then(|| (name.clone(), previous.is_some_and(|at| is(at, '.'))))
}

impl<'ast> Visit<'ast> for Search {
    /// No caller's value can be in a static.
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let Expr::Path(path) = &*call.func
            && let Some(last) = path.path.segments.last()
        {
            self.call(&last.ident, false, |bindings, always_sql| bindings.fix(call.args.first(), always_sql));
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.call(&call.method, true, |bindings, always_sql| bindings.fix(call.args.first(), always_sql));
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        let name = called.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
        if self.has_sql && BUILDERS.contains(&name.as_str()) {
            let mut is_statement = false;
            each_token(called.tokens.clone(), &mut |token| {
                if let TokenTree::Literal(literal) = token
                    && let Lit::Str(text) = Lit::new(literal.clone())
                {
                    is_statement |= is_sql(&text.value());
                }
            });
            if is_statement {
                self.lines.extend(called.path.segments.last().map(|last| last.ident.span().start().line));
            }
        }
        self.calls_in(called.tokens.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Vec<usize> {
        let as_file = syn::parse_file(source);
        let syntax = as_file.or_else(|_| syn::parse_file(&format!("fn f() {{ {source}\n}}")));
        syntax.map(|syntax| built_sql(&syntax, true)).unwrap_or_else(|error| panic!("{source}: {error}"))
    }

    #[test]
    fn every_way_to_build_sql_is_found() {
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
            r#"for text in texts { client.query(text, &[]) }"#,
            r#"let run = |text| client.query(text, &[]);"#,
            "fn run(client: &Client, text: &str) { client.query(text, &[]) }",
            r#"client.simple_query(text.as_str())"#,
            r#"let text = format!("SELECT {x}"); client.query(text, &[])"#,
            r#"client.execute(["SELECT ", x].concat().as_str(), &[])"#,
            "client.query_one(\n    r#\"SELECT\"#.to_string() + x,\n    &[])",
            r#"assert!(sql_query(text).is_ok())"#,
            r#"tokio::select! { _ = client.query(text, &[]) => {} }"#,
            r#"vec![dsl::sql::<Bool>(text)]"#,
        ] {
            assert!(!found(source).is_empty(), "{source}");
        }
        assert_eq!(found("\n\nfn f() { sql_query(x) }"), [3]);
    }

    #[test]
    fn literals_constants_and_what_only_looks_like_sql_are_not() {
        for source in [
            r##"sql_query("SELECT 1")"##,
            r##"sql_query(r#"SELECT "x" FROM y"#).bind::<Text, _>(name)"##,
            r#"let text = "SET a = 1; SET b = 2"; client.batch_execute(text)"#,
            r#"let text = if a { "SELECT 1" } else { "SELECT 2" }; client.query(text, &[])"#,
            "fn run(client: &Client, text: &'static str) { client.query(text, &[]) }",
            "diesel::sql_query(CANCEL)",
            "sql_query(queries::CANCEL_ALL)",
            "sql_query(CANCEL.as_str())",
            r#"static CANCEL: LazyLock<String> = LazyLock::new(|| format!("UPDATE runs SET state = {STATE}"));"#,
            r#"client.simple_query(concat!("SELECT ", "1"))"#,
            r#"sql::<Timestamptz>("now() + ").bind::<Interval, _>(lifetime)"#,
            r#"client.execute("SELECT 1", &[&format!("{x}")])"#,
            "statement.execute(&mut conn)",
            "statement.execute(conn)",
            r#"// sql_query(format!("SELECT {x}"))"#,
            r#"let shown = "sql_query(format!(x))";"#,
            "fn sql_query(text: &str) {}",
            r#"format!("a sentence about {x}")"#,
            r#"assert!(sql_query("SELECT 1").is_ok())"#,
            r#"vec![sql::<Bool>("true")]"#,
        ] {
            assert_eq!(found(source), [0; 0], "{source}");
        }
    }
}
