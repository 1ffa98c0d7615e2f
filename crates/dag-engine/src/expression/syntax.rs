//! What the text and the syntax tree of an expression tell before it is evaluated.

use std::collections::BTreeSet;
use std::sync::Arc;

use cel::Context;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators,
};

use super::metered::{CONTAINER, INDEX, KEYS, OPTIONAL, READ, STEP, metered};
use super::shape::{appended, count, is_comparison, is_plain, is_small};
use super::{ENVIRONMENT, IN_SCOPE, NO_SECRETS};

/// The fields of `run`.
const RUN_FIELDS: &[&str] = &["id", "project_id"];

/// Which variables an expression reads.
#[derive(Debug, Default, Clone)]
pub(super) struct Uses {
    pub(super) input: bool,
    /// The parts of the input that it reads, as far as the source names them: the names that lead to each.
    pub(super) input_paths: BTreeSet<Vec<String>>,
    pub(super) run: bool,
    /// `item` or `index`.
    pub(super) item: bool,
    /// The named values that it reads, where it is not one of a run.
    pub(super) named: BTreeSet<&'static str>,
    /// Nodes that are named in it.
    pub(super) nodes: BTreeSet<String>,
    /// The parts of them that it reads, as far as the source names them.
    pub(super) paths: BTreeSet<NodePath>,
    /// Whether `nodes` is read as a whole or by a computed name.
    pub(super) all_nodes: bool,
    /// Whether something is repeated in it.
    pub(super) repeats: bool,
    /// The charging functions that it calls.
    pub(super) functions: BTreeSet<String>,
}

impl Uses {
    /// Whether its value is constant and computed without a repetition.
    pub(super) fn nothing(&self) -> bool {
        let reads = self.input || self.run || self.item || self.all_nodes || !self.named.is_empty();
        !(reads || self.repeats) && self.nodes.is_empty()
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

/// The namespaces of library functions: no variables, and free.
const SPACES: &[&str] = &["math", "strings", "lists"];

/// One pass over a syntax tree: finds its references and problems, and charges everything that may cost much.
#[derive(Default)]
pub(super) struct Walk {
    pub(super) uses: Uses,
    pub(super) problems: Vec<String>,
    /// Whether a part of the input that is noted already is being visited.
    inside_input: bool,
    /// The names in scope, where nothing of a run is.
    over: Option<&'static [&'static str]>,
}

impl Walk {
    /// For an expression over these names, without anything of a run.
    pub(super) fn over(names: &'static [&'static str]) -> Self {
        Self { over: Some(names), ..Self::default() }
    }

    /// Visits this node and its descendants; `local` holds the variables of the comprehensions around it.
    pub(super) fn visit(&mut self, node: &mut IdedExpr, local: &mut Vec<String>) {
        if self.over.is_none()
            && let Some((id, names)) = named_node(&node.expr, local)
        {
            let mut names = names.into_iter();
            self.uses.paths.insert(NodePath { node: id.clone(), part: names.next(), field: names.next() });
            self.uses.nodes.insert(id);
            return;
        }
        let was_inside = self.inside_input;
        if !was_inside && let Some(path) = named_input(&node.expr, local) {
            self.uses.input_paths.insert(path);
            self.inside_input = true;
        }
        self.visit_parts(node, local);
        self.inside_input = was_inside;
    }

    fn visit_parts(&mut self, node: &mut IdedExpr, local: &mut Vec<String>) {
        match &mut node.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.variable(name, local),
            Expr::Select(select) => self.select(select, local),
            Expr::Call(call) => self.call(call, local),
            Expr::List(list) => list.elements.iter_mut().for_each(|element| {
                self.visit(element, local);
                self.pay(element, READ);
            }),
            Expr::Map(map) => map.entries.iter_mut().for_each(|entry| self.entry(&mut entry.expr, local)),
            Expr::Struct(made) => {
                self.problems.push(format!("there is no type `{}`", made.type_name));
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, local),
        }
    }

    fn select(&mut self, select: &mut SelectExpr, local: &mut Vec<String>) {
        if is_run(&select.operand.expr, local) && !RUN_FIELDS.contains(&select.field.as_str()) {
            let known = RUN_FIELDS.join(", ");
            self.problems.push(format!("`run` has no `{}`: it has {known}", select.field));
        }
        let may_be_optional = !is_plain(&select.operand.expr, local);
        self.visit(&mut select.operand, local);
        if may_be_optional {
            self.pay(&mut select.operand, OPTIONAL);
        }
    }

    fn call(&mut self, call: &mut CallExpr, local: &mut Vec<String>) {
        self.function(call);
        // Comparing with something small is cheap, however large the other one is.
        let compares = is_comparison(&call.func_name) && call.args.iter().any(|side| is_small(&side.expr));
        let may_be_optional = call.args.first().is_some_and(|value| !is_plain(&value.expr, local));
        let space = match call.target.as_deref().map(|target| &target.expr) {
            Some(Expr::Ident(name)) if SPACES.contains(&name.as_str()) && !local.contains(name) => {
                Some(name.clone())
            }
            _ => None,
        };
        if let Some(target) = &mut call.target {
            self.visit(target, local);
        }
        for argument in &mut call.args {
            self.visit(argument, local);
        }
        match call.func_name.as_str() {
            operators::CONDITIONAL | operators::LOGICAL_AND | operators::LOGICAL_OR => {}
            operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE => {}
            operators::INDEX => {
                if let [value, index] = call.args.as_mut_slice() {
                    if may_be_optional {
                        self.pay(value, OPTIONAL);
                    }
                    if !matches!(index.expr, Expr::Literal(LiteralValue::Int(_) | LiteralValue::String(_))) {
                        self.wrap(index, INDEX, None);
                    }
                }
            }
            operators::IN => {
                if let [value, container] = call.args.as_mut_slice() {
                    self.pay(value, READ);
                    self.pay(container, CONTAINER);
                }
            }
            _ if compares => {}
            name => {
                let full = space.as_ref().map_or_else(|| name.to_owned(), |space| format!("{space}.{name}"));
                if let Some(ours) = metered(&full, call.args.len()) {
                    let target = call.target.take().filter(|_| space.is_none());
                    call.args.splice(0..0, target.map(|target| *target));
                    self.uses.functions.insert(ours.clone());
                    call.func_name = ours;
                    return;
                }
                if space.is_none()
                    && let Some(target) = &mut call.target
                {
                    self.pay(target, READ);
                }
                let read = if iterates(&full) { KEYS } else { READ };
                call.args.iter_mut().for_each(|argument| self.pay(argument, read));
            }
        }
    }

    fn comprehension(&mut self, comprehension: &mut ComprehensionExpr, local: &mut Vec<String>) {
        self.uses.repeats = true;
        self.visit(&mut comprehension.iter_range, local);
        // Each pass over a list copies its elements; one over a map is over its keys.
        self.pay(&mut comprehension.iter_range, KEYS);
        self.visit(&mut comprehension.accu_init, local);
        self.pay(&mut comprehension.accu_init, READ);
        let outer = local.len();
        local.push(comprehension.iter_var.clone());
        local.extend(comprehension.iter_var2.clone());
        local.push(comprehension.accu_var.clone());
        let n_nodes = count(&comprehension.loop_step.expr);
        self.visit(&mut comprehension.loop_cond, local);
        let is_paid = self.appending(&mut comprehension.loop_step, &comprehension.accu_var, n_nodes, local);
        if !is_paid {
            self.visit(&mut comprehension.loop_step, local);
            self.step(&mut comprehension.loop_cond, n_nodes);
        }
        self.visit(&mut comprehension.result, local);
        local.truncate(outer);
    }

    /// The step of `map` and `filter`. The interpreter recognises its shape; otherwise it would copy the list at every
    /// iteration. So the appended value is charged, or the condition for it. Answers whether it is such a step.
    fn appending(
        &mut self,
        step: &mut IdedExpr,
        accu: &str,
        n_nodes: usize,
        local: &mut Vec<String>,
    ) -> bool {
        let Expr::Call(call) = &mut step.expr else { return false };
        if let (operators::CONDITIONAL, [guard, step, _]) =
            (call.func_name.as_str(), call.args.as_mut_slice())
            && let Some(items) = appended(step, accu)
        {
            self.visit(guard, local);
            self.step(guard, n_nodes);
            self.visit(items, local);
            return true;
        }
        let Some(items) = appended(step, accu) else { return false };
        self.visit(items, local);
        if let Expr::List(list) = &mut items.expr {
            list.elements.iter_mut().for_each(|item| self.step(item, n_nodes));
        }
        true
    }

    /// Charges an operand before it is used.
    fn pay(&mut self, operand: &mut IdedExpr, function: &str) {
        if !is_small(&operand.expr) {
            self.wrap(operand, function, None);
        }
    }

    fn step(&mut self, value: &mut IdedExpr, n_nodes: usize) {
        self.wrap(value, STEP, Some(n_nodes));
    }

    fn wrap(&mut self, operand: &mut IdedExpr, function: &str, number: Option<usize>) {
        self.uses.functions.insert(function.to_owned());
        let inner = std::mem::take(operand);
        operand.id = inner.id;
        let number = number.map(|number| {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            IdedExpr { id: inner.id, expr: Expr::Literal(LiteralValue::Int(number.into())) }
        });
        operand.expr = Expr::Call(CallExpr {
            func_name: function.to_owned(),
            target: None,
            args: std::iter::once(inner).chain(number).collect(),
        });
    }

    fn entry(&mut self, entry: &mut EntryExpr, local: &mut Vec<String>) {
        match entry {
            EntryExpr::MapEntry(entry) => {
                for part in [&mut entry.key, &mut entry.value] {
                    self.visit(part, local);
                    self.pay(part, READ);
                }
            }
            EntryExpr::StructField(field) => self.visit(&mut field.value, local),
        }
    }

    fn variable(&mut self, name: &str, local: &[String]) {
        let named = self.over.and_then(|names| names.iter().find(|known| **known == name));
        match name {
            name if local.iter().any(|known| known == name) => {}
            _ if named.is_some() => self.uses.named.extend(named),
            "input" | "run" | "item" | "index" | "nodes" if self.over.is_some() => self.unknown(name),
            "input" => self.uses.input = true,
            "run" => self.uses.run = true,
            "item" | "index" => self.uses.item = true,
            "nodes" => self.uses.all_nodes = true,
            // The names of types are values of CEL: `type(x) == string`.
            "bool" | "bytes" | "double" | "duration" | "int" | "list" | "map" | "null_type" | "string"
            | "timestamp" | "type" | "uint" | "google" | "math" | "strings" | "lists" => {}
            unknown => self.unknown(unknown),
        }
    }

    fn unknown(&mut self, name: &str) {
        if name == "secrets" && self.over.is_none() {
            // Said instead of what is in scope: they are known, but never in an expression.
            self.problems.push(NO_SECRETS.to_owned());
            return;
        }
        let in_scope = self.over.map_or_else(|| IN_SCOPE.to_owned(), in_scope);
        self.problems.push(format!("there is no variable `{name}`: {in_scope}"));
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

/// The names in scope, for messages.
fn in_scope(names: &[&str]) -> String {
    let quoted = |name: &&str| format!("`{name}`");
    match names {
        [all @ .., last] if !all.is_empty() => {
            let all: Vec<String> = all.iter().map(quoted).collect();
            format!("in scope are {} and `{last}`", all.join(", "))
        }
        names => format!("in scope is {}", names.iter().map(quoted).collect::<String>()),
    }
}

/// Whether a function or operator goes through the keys of a map that it is given, where a list is usual.
fn iterates(name: &str) -> bool {
    matches!(name, operators::ADD | "math.greatest" | "math.least")
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
    let (operand, name) = named(expr)?;
    match operand {
        Expr::Ident(nodes) => (nodes == "nodes" && !local.contains(nodes)).then(|| (name, Vec::new())),
        inner => {
            let (id, mut names) = named_node(inner, local)?;
            names.push(name);
            Some((id, names))
        }
    }
}

/// The names that follow `input`, as literally.
fn named_input(expr: &Expr, local: &[String]) -> Option<Vec<String>> {
    if let Expr::Ident(name) = expr {
        return (name == "input" && !local.contains(name)).then(Vec::new);
    }
    let (operand, name) = named(expr)?;
    let mut names = named_input(operand, local)?;
    names.push(name);
    Some(names)
}

/// What `operand.name`, `operand["name"]` and `has(operand.name)` select from, and the name.
fn named(expr: &Expr) -> Option<(&Expr, String)> {
    match expr {
        Expr::Select(select) => Some((&select.operand.expr, select.field.clone())),
        Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
            match &call.args[1].expr {
                Expr::Literal(LiteralValue::String(name)) => {
                    Some((&call.args[0].expr, name.inner().to_owned()))
                }
                _ => None,
            }
        }
        _ => None,
    }
}
