//! What can be known of an expression from its text and its syntax tree, before it is evaluated.

use std::collections::BTreeSet;
use std::sync::Arc;

use cel::Context;
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::{ENVIRONMENT, STEP};

/// What an open bracket or a conditional counts: the grammar recurses through every precedence for it.
const RECURSION: usize = 4;

/// What `run` has.
const RUN_FIELDS: &[&str] = &["id", "project_id"];

/// Which variables an expression reads.
#[derive(Debug, Default, Clone)]
pub(super) struct Uses {
    pub(super) input: bool,
    pub(super) run: bool,
    /// `item` or `index`.
    pub(super) item: bool,
    /// Nodes that are named in it.
    pub(super) nodes: BTreeSet<String>,
    /// What is read of them, as far as the names stand in the source.
    pub(super) paths: BTreeSet<NodePath>,
    /// Whether `nodes` is read as a whole or by a computed name.
    pub(super) all_nodes: bool,
    /// Whether something is repeated in it.
    pub(super) repeats: bool,
}

impl Uses {
    /// Whether its value is always the same and found in one go.
    pub(super) fn nothing(&self) -> bool {
        !(self.input || self.run || self.item || self.all_nodes || self.repeats) && self.nodes.is_empty()
    }
}

/// A part of a node that an expression reads: `nodes.<id>`, and up to two names behind it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodePath {
    pub(crate) node: String,
    /// `output`, `state` or `error`, if it is right.
    pub(crate) part: Option<String>,
    pub(crate) field: Option<String>,
}

/// One pass over a syntax tree: finds what it uses and what is wrong, and makes every iteration pay its step.
#[derive(Default)]
pub(super) struct Walk {
    pub(super) uses: Uses,
    pub(super) problems: Vec<String>,
}

impl Walk {
    /// Looks at this node and what is below it; `local` holds the variables of the comprehensions around it.
    pub(super) fn visit(&mut self, node: &mut IdedExpr, local: &mut Vec<String>) {
        if let Some((id, names)) = named_node(&node.expr, local) {
            let mut names = names.into_iter();
            self.uses.paths.insert(NodePath { node: id.clone(), part: names.next(), field: names.next() });
            self.uses.nodes.insert(id);
            return;
        }
        match &mut node.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.variable(name, local),
            Expr::Select(select) => {
                if is_run(&select.operand.expr, local) && !RUN_FIELDS.contains(&select.field.as_str()) {
                    let known = RUN_FIELDS.join(", ");
                    self.problems.push(format!("`run` has no `{}`: it has {known}", select.field));
                }
                self.visit(&mut select.operand, local);
            }
            Expr::Call(call) => {
                self.function(call);
                if let Some(target) = &mut call.target {
                    self.visit(target, local);
                }
                for argument in &mut call.args {
                    self.visit(argument, local);
                }
            }
            Expr::List(list) => list.elements.iter_mut().for_each(|element| self.visit(element, local)),
            Expr::Map(map) => map.entries.iter_mut().for_each(|entry| self.entry(&mut entry.expr, local)),
            Expr::Struct(made) => {
                self.problems.push(format!("there is no type `{}`", made.type_name));
            }
            Expr::Comprehension(comprehension) => {
                self.uses.repeats = true;
                self.visit(&mut comprehension.iter_range, local);
                self.visit(&mut comprehension.accu_init, local);
                let outer = local.len();
                local.push(comprehension.iter_var.clone());
                local.extend(comprehension.iter_var2.clone());
                local.push(comprehension.accu_var.clone());
                self.visit(&mut comprehension.loop_cond, local);
                self.visit(&mut comprehension.loop_step, local);
                self.visit(&mut comprehension.result, local);
                local.truncate(outer);
                let condition = std::mem::take(&mut comprehension.loop_cond);
                comprehension.loop_cond = IdedExpr {
                    id: condition.id,
                    expr: Expr::Call(CallExpr {
                        func_name: STEP.to_owned(),
                        target: None,
                        args: vec![condition],
                    }),
                };
            }
        }
    }

    fn entry(&mut self, entry: &mut EntryExpr, local: &mut Vec<String>) {
        match entry {
            EntryExpr::MapEntry(entry) => {
                self.visit(&mut entry.key, local);
                self.visit(&mut entry.value, local);
            }
            EntryExpr::StructField(field) => self.visit(&mut field.value, local),
        }
    }

    fn variable(&mut self, name: &str, local: &[String]) {
        match name {
            name if local.iter().any(|known| known == name) => {}
            "input" => self.uses.input = true,
            "run" => self.uses.run = true,
            "item" | "index" => self.uses.item = true,
            "nodes" => self.uses.all_nodes = true,
            // The names of types are values of CEL: `type(x) == string`.
            "bool" | "bytes" | "double" | "duration" | "int" | "list" | "map" | "null_type" | "string"
            | "timestamp" | "type" | "uint" | "google" | "math" | "strings" | "lists" => {}
            unknown => self
                .problems
                .push(format!("there is no variable `{unknown}`: in scope are `input`, `nodes` and `run`")),
        }
    }

    fn function(&mut self, call: &CallExpr) {
        let name = call.func_name.as_str();
        let operator = !name.starts_with(|first: char| first.is_ascii_alphabetic());
        // `math.greatest(…)` is parsed as a member call on `math`, and declared under its full name.
        let qualified = match call.target.as_deref().map(|target| &target.expr) {
            Some(Expr::Ident(space)) => Some(format!("{space}.{name}")),
            _ => None,
        };
        if !operator && !is_function(name) && !qualified.is_some_and(|qualified| is_function(&qualified)) {
            self.problems.push(format!("there is no function `{name}`"));
        }
    }
}

/// Whether it is the variable `run`.
fn is_run(expr: &Expr, local: &[String]) -> bool {
    matches!(expr, Expr::Ident(name) if name == "run" && !local.contains(name))
}

/// Whether the environment has a function or method of this name: declaring another one is then a conflict.
fn is_function(name: &str) -> bool {
    let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
    context.add_function(name, |_: bool| true).is_err()
}

/// The id in `nodes.<id>` and `nodes["<id>"]`, with the names that follow it as literally.
fn named_node(expr: &Expr, local: &[String]) -> Option<(String, Vec<String>)> {
    let (operand, name, is_test) = named(expr)?;
    match operand {
        // `has(nodes.x)` asks for the node itself, which is known by then.
        Expr::Ident(nodes) => {
            (nodes == "nodes" && !is_test && !local.contains(nodes)).then(|| (name, Vec::new()))
        }
        inner => {
            let (id, mut names) = named_node(inner, local)?;
            names.push(name);
            Some((id, names))
        }
    }
}

/// What `operand.name`, `operand["name"]` and `has(operand.name)` select from, the name, and whether it is the last.
fn named(expr: &Expr) -> Option<(&Expr, String, bool)> {
    match expr {
        Expr::Select(select) => Some((&select.operand.expr, select.field.clone(), select.test)),
        Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
            match &call.args[1].expr {
                Expr::Literal(LiteralValue::String(name)) => {
                    Some((&call.args[0].expr, name.inner().to_owned(), false))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// How deep the syntax tree of a source is at most: brackets nest, and so does every operator of a chain.
///
/// The parser's own bound only comes after its grammar has recursed, so a hostile source is refused before it.
pub(super) fn depth(source: &str) -> usize {
    // Per open bracket, the operators since it was opened or since the last comma.
    let mut chains = vec![0usize];
    let (mut depth, mut deepest) = (0usize, 0usize);
    let mut quote = None;
    let mut chars = source.chars();
    while let Some(char) = chars.next() {
        match (quote, char) {
            (Some(_), '\\') => drop(chars.next()),
            (Some(end), char) if end == char => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(char),
            (None, '(' | '[' | '{') => {
                chains.push(0);
                depth += RECURSION;
            }
            (None, ')' | ']' | '}') if chains.len() > 1 => depth -= chains.pop().unwrap_or(0) + RECURSION,
            (None, ',') => depth -= chains.last_mut().map(std::mem::take).unwrap_or(0),
            (None, '?' | '+' | '-' | '*' | '/' | '%' | '.' | '&' | '|' | '=' | '<' | '>' | '!') => {
                let weight = if char == '?' { RECURSION } else { 1 };
                if let Some(chain) = chains.last_mut() {
                    *chain += weight;
                }
                depth += weight;
            }
            (None, _) => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
