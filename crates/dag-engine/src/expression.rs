//! Expressions: CEL, checked when a definition is validated and bounded when they are evaluated.
//!
//! In scope: `input`, `nodes.<id>.output`, `nodes.<id>.state`, `nodes.<id>.error`, `run.id`, `run.project_id`, and
//! in the graph of a `map` also `item` and `index`; over an event only `event`, over a call of a hook only what it brought. The standard functions and the `strings`, `lists` and `math` extensions of CEL are there. Evaluation is pure: the same
//! scope gives the same value, so edges and conditions need no record of their own and replay equals live.
//!
//! The interpreter itself does not bound evaluation. Only comprehensions (`map`, `filter`, `all`, `exists`, …) can
//! repeat work, so each of their iterations counts against [`MAX_STEPS`]. An operation that reads, copies or creates much
//! counts its bytes against [`MAX_WORK`] first.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::{Arc, LazyLock};

use cel::common::ast::IdedExpr;
use cel::objects::{Key, Map};
use cel::{Context, Env, ExecutionError, Value as CelValue};
use serde_json::Value;

use self::budget::Budget;
pub(crate) use self::scopes::OutsideRuns;
use self::shape::depth;
pub(crate) use self::syntax::NodePath;
use self::syntax::{Uses, Walk};

mod budget;
mod metered;
mod scopes;
mod shape;
mod syntax;
#[cfg(test)]
pub(crate) mod tests;
mod zones;

/// The most iterations that one evaluation may take.
pub const MAX_STEPS: u32 = 250_000;

/// The most work of one evaluation: bytes that it reads, copies and creates, plus a fixed number for every value. It may
/// read as much again from its scope.
pub const MAX_WORK: usize = 64 * 1024 * 1024;

/// The most bytes that the source of an expression may have.
pub const MAX_SOURCE_BYTES: usize = 8 * 1024;

/// The longest expression that is evaluated when it is compiled.
const MAX_CONSTANT_BYTES: usize = 256;

/// The most work of that evaluation.
const MAX_CONSTANT_WORK: usize = 64 * 1024;

/// The longest reason why an evaluation has no value.
const MAX_REASON: usize = 1000;

/// The deepest nesting of an expression: parser and interpreter recurse, and a thread's stack is bounded.
const MAX_DEPTH: usize = 96;

/// The names in scope, for messages; the graph of a `map` has two more.
pub(crate) const IN_SCOPE: &str = "in scope are `input`, `nodes` and `run`";
pub(crate) const IN_SCOPE_OF_ITEM: &str = "in scope are `input`, `nodes`, `run`, `item` and `index`";

/// Why an expression reads no secrets.
pub(super) const NO_SECRETS: &str = "an expression cannot read `secrets`: write `${{ secrets.NAME }}`, with nothing else \
     between the braces, in a field that the node sends to the outside, such as a header";

/// What an expression over an event reads.
const OF_EVENT: &[&str] = &["event"];

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    for extension in [cel::extensions::strings, cel::extensions::lists, cel::extensions::math] {
        // The three extensions are disjoint; should a release make them clash, its functions are reported as unknown.
        if let Err(error) = env.add_extension(extension) {
            tracing::error!(error = %error, "cannot load an extension of the expression language");
        }
    }
    Arc::new(env)
});

/// What an expression may read.
pub trait Scope {
    /// The run's input.
    fn input(&self) -> &Value;
    /// `nodes.<id>`: an object of `output`, `state` and `error`; absent for a node that the graph does not have.
    fn node(&self, id: &str) -> Option<Value>;
    /// The ids for which [`Scope::node`] has something.
    fn node_ids(&self) -> Vec<String>;
    /// `run`.
    fn run(&self) -> Value;
    /// `item` and `index`, where the graph is that of a `map`.
    fn item(&self) -> Option<(&Value, u32)> {
        None
    }
    /// The value of this name, where the expression is not one of a run but over named values.
    fn named(&self, _name: &str) -> Option<&Value> {
        None
    }
}

/// A checked expression.
#[derive(Debug)]
pub struct Expression {
    source: String,
    root: IdedExpr,
    uses: Uses,
}

/// Why a text is not a valid expression here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionProblem {
    /// What is wrong, with its line and column in the expression where they are known.
    pub message: String,
}

/// Why an evaluation has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expression `{source_text}`: {reason}")]
pub struct EvaluationError {
    source_text: String,
    reason: String,
}

impl Expression {
    /// Checks the syntax, the names of variables and the names of functions.
    ///
    /// # Errors
    /// Every problem that was found.
    pub fn compile(source: &str) -> Result<Self, Vec<ExpressionProblem>> {
        Self::check(source, Self::parse(source)?, Walk::default())
    }

    /// As [`Expression::compile`], for an expression over an event: in scope is `event` alone.
    ///
    /// # Errors
    /// Every problem that was found.
    pub fn compile_over_event(source: &str) -> Result<Self, Vec<ExpressionProblem>> {
        Self::compile_over(source, OF_EVENT)
    }

    /// As [`Expression::compile`], for an expression over values that are not of a run: in scope are these names alone.
    ///
    /// # Errors
    /// Every problem that was found.
    pub fn compile_over(
        source: &str,
        names: &'static [&'static str],
    ) -> Result<Self, Vec<ExpressionProblem>> {
        Self::check(source, Self::parse(source)?, Walk::over(names))
    }

    fn parse(source: &str) -> Result<IdedExpr, Vec<ExpressionProblem>> {
        let problem = |message: String| ExpressionProblem { message };
        if source.trim().is_empty() {
            return Err(vec![problem("an expression must not be empty".to_owned())]);
        }
        if source.len() > MAX_SOURCE_BYTES {
            return Err(vec![problem(format!("an expression has at most {MAX_SOURCE_BYTES} bytes"))]);
        }
        if depth(source) > MAX_DEPTH {
            return Err(vec![problem(format!(
                "an expression nests brackets and operators at most {MAX_DEPTH} deep"
            ))]);
        }
        ENVIRONMENT.parser().parse(source).map_err(|errors| {
            errors
                .errors
                .iter()
                .map(|error| {
                    let (line, column) = error.pos;
                    problem(format!("not an expression: {} (line {line}, column {column})", error.msg.trim()))
                })
                .collect::<Vec<_>>()
        })
    }

    fn check(source: &str, mut root: IdedExpr, mut walk: Walk) -> Result<Self, Vec<ExpressionProblem>> {
        walk.visit(&mut root, &mut Vec::new());
        if walk.problems.is_empty() {
            Ok(Self { source: source.to_owned(), root, uses: walk.uses })
        } else {
            Err(walk.problems.into_iter().map(|message| ExpressionProblem { message }).collect())
        }
    }

    /// The text that it was written as.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The nodes that it names.
    pub fn node_ids(&self) -> impl Iterator<Item = &str> {
        self.uses.nodes.iter().map(String::as_str)
    }

    /// What it reads of them, as far as the names stand in the source.
    pub(crate) fn node_paths(&self) -> impl Iterator<Item = &NodePath> {
        self.uses.paths.iter()
    }

    /// Its value if that is constant and cheap to compute; the reason if it never has one.
    pub(crate) fn constant(&self) -> Option<Result<Value, EvaluationError>> {
        if !self.uses.nothing() || self.source.len() > MAX_CONSTANT_BYTES {
            return None;
        }
        let budget = Arc::new(Budget::new(MAX_CONSTANT_WORK));
        let value = self.evaluate_within(&OutsideRuns(&[]), &budget);
        // An expensive value is computed when it is needed.
        budget.spent().is_none().then_some(value)
    }

    /// Whether it reads `nodes` as a whole, or by names that are not known before it is evaluated.
    pub(crate) const fn reads_any_node(&self) -> bool {
        self.uses.all_nodes
    }

    /// The parts of the run's input that it reads: the names that lead to each, none for the input as a whole.
    pub(crate) fn input_paths(&self) -> impl Iterator<Item = &[String]> {
        self.uses.input_paths.iter().map(Vec::as_slice)
    }

    /// Whether it reads `item` or `index`, which only the graph of a `map` has.
    pub(crate) const fn reads_item(&self) -> bool {
        self.uses.item
    }

    /// Its value in this scope.
    ///
    /// # Errors
    /// [`EvaluationError`] if it has none there: something absent is read, types do not fit, or it takes more than
    /// [`MAX_STEPS`] iterations or [`MAX_WORK`].
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Value, EvaluationError> {
        self.evaluate_within(scope, &Arc::new(Budget::new(MAX_WORK)))
    }

    /// Its value over an event, if it was [compiled](Expression::compile_over_event) for one.
    ///
    /// # Errors
    /// As [`Expression::evaluate`].
    pub fn evaluate_over_event(&self, event: &Value) -> Result<Value, EvaluationError> {
        self.evaluate_over(&[("event", event)])
    }

    /// Its value over named values, if it was [compiled](Expression::compile_over) for these names.
    ///
    /// # Errors
    /// As [`Expression::evaluate`].
    pub fn evaluate_over(&self, values: &[(&str, &Value)]) -> Result<Value, EvaluationError> {
        self.evaluate(&OutsideRuns(values))
    }

    fn evaluate_within(&self, scope: &dyn Scope, budget: &Arc<Budget>) -> Result<Value, EvaluationError> {
        let error = |reason: String| EvaluationError { source_text: self.source.trim().to_owned(), reason };
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        metered::declare(&mut context, self.uses.functions.iter().map(String::as_str), budget)
            .map_err(|conflict| error(conflict.to_string()))?;
        // The part of the scope that it reads is copied for the interpreter.
        let mut left = MAX_WORK;
        let mut to_cel = |value: &Value| {
            budget::is_within(value, &mut left)
                .then(|| to_cel(value))
                .ok_or_else(|| error(budget::too_much()))
        };
        if self.uses.input {
            context.add_variable_from_value("input", to_cel(scope.input())?);
        }
        if self.uses.run {
            context.add_variable_from_value("run", to_cel(&scope.run())?);
        }
        if let Some((item, index)) = scope.item().filter(|_| self.uses.item) {
            context.add_variable_from_value("item", to_cel(item)?);
            context.add_variable_from_value("index", CelValue::Int(i64::from(index)));
        }
        for name in &self.uses.named {
            if let Some(value) = scope.named(name) {
                context.add_variable_from_value(*name, to_cel(value)?);
            }
        }
        if self.uses.all_nodes || !self.uses.nodes.is_empty() {
            context.add_variable_from_value("nodes", self.nodes_in(scope, &mut to_cel)?);
        }
        let value = CelValue::resolve(&self.root, &context);
        // This check comes first: `||` and `&&` may have hidden an exhausted budget.
        if let Some(spent) = budget.spent() {
            return Err(error(spent.to_owned()));
        }
        let value = value.map_err(|failure| error(describe(&failure)))?;
        if let Some(key) = repeated_key(&value) {
            return Err(error(format!("two keys of a map are both written `{key}` in JSON")));
        }
        let mut json = value.json().map_err(|failure| error(failure.to_string()))?;
        // A map of the interpreter has no order of its own; sorted keys make equal values equal texts.
        json.sort_all_objects();
        Ok(json)
    }

    fn nodes_in(
        &self,
        scope: &dyn Scope,
        to_cel: &mut impl FnMut(&Value) -> Result<CelValue, EvaluationError>,
    ) -> Result<CelValue, EvaluationError> {
        let ids =
            if self.uses.all_nodes { scope.node_ids() } else { self.uses.nodes.iter().cloned().collect() };
        let mut entries = HashMap::new();
        for id in ids {
            if let Some(node) = scope.node(&id) {
                entries.insert(Key::from(id), to_cel(&node)?);
            }
        }
        Ok(CelValue::Map(Map { map: Arc::new(entries) }))
    }
}

/// A key that would stand twice in an object of JSON, whose keys are all text: one of the two values would be lost.
fn repeated_key(value: &CelValue) -> Option<String> {
    match value {
        CelValue::List(items) => items.iter().find_map(repeated_key),
        CelValue::Map(map) => {
            let is_text = |key: &&Key| matches!(key, Key::String(_));
            let others = map.map.keys().filter(|key| !is_text(key)).map(Key::to_string);
            let texts: HashSet<String> = others.collect();
            let mut repeated: Vec<String> = map
                .map
                .keys()
                .filter(is_text)
                .map(Key::to_string)
                .filter(|key| texts.contains(key))
                .collect();
            repeated.sort_unstable();
            repeated.into_iter().next().or_else(|| map.map.values().find_map(repeated_key))
        }
        _ => None,
    }
}

/// The reason, without the values that some errors write out: they may be large, and maps have no order there.
fn describe(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("there is no `{key}`"),
        ExecutionError::UnsupportedKeyType(key) => {
            format!("a value of type {} cannot be a key", key.type_of())
        }
        ExecutionError::ValuesNotComparable(left, right) => {
            format!("values of types {} and {} cannot be compared", left.type_of(), right.type_of())
        }
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            format!("`{operator}` does not take {} and {}", left.type_of(), right.type_of())
        }
        ExecutionError::UnsupportedIndex(index, value) => {
            format!("a value of type {} has no index of type {}", value.type_of(), index.type_of())
        }
        ExecutionError::UnsupportedTargetType { target } => {
            format!("a value of type {} is not accepted", target.type_of())
        }
        ExecutionError::NotSupportedAsMethod { method, target } => {
            format!("`{method}` is not a method of a value of type {}", target.type_of())
        }
        other => {
            let mut reason = Reason(String::new());
            if write!(reason, "{other}").is_err() {
                reason.0.push('…');
            }
            reason.0
        }
    }
}

/// A text that is cut off at a length.
struct Reason(String);

impl Write for Reason {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = text.floor_char_boundary(MAX_REASON.saturating_sub(self.0.len()));
        self.0.push_str(&text[..room]);
        if room == text.len() { Ok(()) } else { Err(std::fmt::Error) }
    }
}

/// JSON as the interpreter's values: whole numbers are `int` wherever they fit, so that `input.n + 1` works.
fn to_cel(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), _, _) => CelValue::Int(int),
            (None, Some(uint), _) => CelValue::UInt(uint),
            (None, None, float) => CelValue::Float(float.unwrap_or(f64::NAN)),
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(items) => CelValue::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(fields) => CelValue::Map(Map {
            map: Arc::new(
                fields.iter().map(|(name, value)| (Key::from(name.clone()), to_cel(value))).collect(),
            ),
        }),
    }
}
