//! Expressions: CEL, checked when a definition is validated and bounded when they are evaluated.
//!
//! In scope: `input`, `nodes.<id>.output`, `nodes.<id>.state`, `nodes.<id>.error`, `run.id`, `run.project_id`, and
//! in the graph of a `map` also `item` and `index`. The standard functions and the `strings`, `lists` and `math` extensions of CEL are there. Evaluation is pure: the same
//! scope gives the same value, so edges and conditions need no record of their own and replay equals live.
//!
//! The interpreter itself does not bound evaluation. Only comprehensions (`map`, `filter`, `all`, `exists`, …) can
//! repeat work, so every iteration of one pays a step into [`MAX_STEPS`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use cel::common::ast::IdedExpr;
use cel::objects::{Key, Map};
use cel::{Context, Env, ExecutionError, Value as CelValue};
use serde_json::Value;

pub(crate) use self::syntax::NodePath;
use self::syntax::{Uses, Walk, depth};

mod syntax;

/// The most iterations that one evaluation may take.
pub const MAX_STEPS: u32 = 250_000;

/// The most bytes that the source of an expression may have.
pub const MAX_SOURCE_BYTES: usize = 8 * 1024;

/// How long an expression may be for its value to be looked for when it is compiled.
const MAX_CONSTANT_BYTES: usize = 256;

/// How deep an expression may be nested: parser and interpreter recurse, and a thread's stack is not endless.
const MAX_DEPTH: usize = 96;

/// The function that each iteration of a comprehension is made to call; no name of a source can spell it.
const STEP: &str = "@step";

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    for extension in [cel::extensions::strings, cel::extensions::lists, cel::extensions::math] {
        // The three extensions are disjoint; should a release make them clash, its functions are reported as unknown.
        if let Err(error) = env.add_extension(extension) {
            tracing::error!(error = %error, "an extension of the expression language is not available");
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
}

/// A checked expression.
#[derive(Debug)]
pub struct Expression {
    source: String,
    root: IdedExpr,
    uses: Uses,
}

/// Why a text is no expression that could be evaluated here.
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
        let root = ENVIRONMENT.parser().parse(source).map_err(|errors| {
            errors
                .errors
                .iter()
                .map(|error| {
                    let (line, column) = error.pos;
                    problem(format!("not an expression: {} (line {line}, column {column})", error.msg.trim()))
                })
                .collect::<Vec<_>>()
        })?;
        Self::check(source, root)
    }

    fn check(source: &str, mut root: IdedExpr) -> Result<Self, Vec<ExpressionProblem>> {
        let mut walk = Walk::default();
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

    /// Its value if that is always the same, and cheap to find; the reason if it never has one.
    pub(crate) fn constant(&self) -> Option<Result<Value, EvaluationError>> {
        (self.uses.nothing() && self.source.len() <= MAX_CONSTANT_BYTES).then(|| self.evaluate(&Nothing))
    }

    /// Whether it reads `item` or `index`, which only the graph of a `map` has.
    pub(crate) const fn reads_item(&self) -> bool {
        self.uses.item
    }

    /// Its value in this scope.
    ///
    /// # Errors
    /// [`EvaluationError`] if it has none there: something absent is read, types do not fit, or it takes more than
    /// [`MAX_STEPS`] iterations.
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Value, EvaluationError> {
        let error = |reason: String| EvaluationError { source_text: self.source.clone(), reason };
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        let steps = Arc::new(AtomicU32::new(0));
        context
            .add_function(STEP, move |condition: bool| {
                if steps.fetch_add(1, Ordering::Relaxed) < MAX_STEPS {
                    Ok(condition)
                } else {
                    Err(ExecutionError::function_error(
                        "expression",
                        format!("more than {MAX_STEPS} iterations"),
                    ))
                }
            })
            .map_err(|conflict| error(conflict.to_string()))?;
        if self.uses.input {
            context.add_variable_from_value("input", to_cel(scope.input()));
        }
        if self.uses.run {
            context.add_variable_from_value("run", to_cel(&scope.run()));
        }
        if let Some((item, index)) = scope.item().filter(|_| self.uses.item) {
            context.add_variable_from_value("item", to_cel(item));
            context.add_variable_from_value("index", CelValue::Int(i64::from(index)));
        }
        if self.uses.all_nodes || !self.uses.nodes.is_empty() {
            context.add_variable_from_value("nodes", self.nodes_in(scope));
        }
        let value = CelValue::resolve(&self.root, &context).map_err(|failure| error(describe(&failure)))?;
        let mut json = value.json().map_err(|failure| error(failure.to_string()))?;
        // A map of the interpreter has no order of its own; sorted keys make equal values equal texts.
        json.sort_all_objects();
        Ok(json)
    }

    fn nodes_in(&self, scope: &dyn Scope) -> CelValue {
        let ids =
            if self.uses.all_nodes { scope.node_ids() } else { self.uses.nodes.iter().cloned().collect() };
        let entries = ids
            .into_iter()
            .filter_map(|id| scope.node(&id).map(|node| (Key::from(id), to_cel(&node))))
            .collect::<HashMap<_, _>>();
        CelValue::Map(Map { map: Arc::new(entries) })
    }
}

/// The scope of what reads nothing.
struct Nothing;

impl Scope for Nothing {
    fn input(&self) -> &Value {
        &Value::Null
    }
    fn node(&self, _: &str) -> Option<Value> {
        None
    }
    fn node_ids(&self) -> Vec<String> {
        Vec::new()
    }
    fn run(&self) -> Value {
        Value::Null
    }
}

fn describe(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("there is no `{key}`"),
        other => other.to_string(),
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A scope out of literals.
    pub(crate) struct Fixed {
        pub(crate) input: Value,
        pub(crate) nodes: Value,
    }

    impl Scope for Fixed {
        fn input(&self) -> &Value {
            &self.input
        }
        fn node(&self, id: &str) -> Option<Value> {
            self.nodes.get(id).cloned()
        }
        fn node_ids(&self) -> Vec<String> {
            self.nodes.as_object().map(|nodes| nodes.keys().cloned().collect()).unwrap_or_default()
        }
        fn run(&self) -> Value {
            json!({"id": "r"})
        }
    }

    pub(crate) fn scope() -> Fixed {
        Fixed {
            input: json!({"n": 41, "list": [3, 1, 2], "big": vec![1; 2000]}),
            nodes: json!({
                "a": {"state": "succeeded", "output": {"text": "hi", "x": 1.5}},
                "b-c": {"state": "failed", "error": {"message": "no"}},
            }),
        }
    }

    fn value(source: &str) -> Value {
        Expression::compile(source).unwrap().evaluate(&scope()).unwrap()
    }

    fn problems(source: &str) -> Vec<String> {
        Expression::compile(source).unwrap_err().into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn values_keep_their_types() {
        assert_eq!(value("input.n + 1"), json!(42));
        assert_eq!(value("nodes.a.output.x * 2.0"), json!(3.0));
        assert_eq!(value("nodes.a.output.text + '!'"), json!("hi!"));
        assert_eq!(value("nodes['b-c'].error.message"), json!("no"));
        assert_eq!(value("{'b': 1, 'a': [true, null]}").to_string(), r#"{"a":[true,null],"b":1}"#);
        assert_eq!(value("input.list.map(x, x * 2)"), json!([6, 2, 4]));
        assert_eq!(value("input.list.filter(x, x > 1).size()"), json!(2));
        assert_eq!(value("'a,b'.split(',').join('-')"), json!("a-b"));
        assert_eq!(value("math.greatest(input.list)"), json!(3));
        assert_eq!(value("has(nodes.a.error)"), json!(false));
        assert_eq!(value("nodes.map(id, nodes[id].state).size()"), json!(2));
        assert_eq!(value("run.id"), json!("r"));
    }

    #[test]
    fn what_cannot_be_evaluated_is_found_when_compiled() {
        assert!(problems("1 +")[0].starts_with("not an expression: "));
        assert_eq!(
            problems("inptu.n + outptu"),
            [
                "there is no variable `inptu`: in scope are `input`, `nodes` and `run`",
                "there is no variable `outptu`: in scope are `input`, `nodes` and `run`",
            ]
        );
        assert_eq!(problems("sizee(input)"), ["there is no function `sizee`"]);
        assert_eq!(problems("run.idd + run.project_id"), ["`run` has no `idd`: it has id, project_id"]);
        assert_eq!(problems(" "), ["an expression must not be empty"]);
        assert!(Expression::compile(&"1+".repeat(MAX_SOURCE_BYTES)).is_err());
        for nested in [
            ("(", "1", ")"),
            ("[", "1", "]"),
            ("!", "true", ""),
            ("-", "input.n", ""),
            ("true ? 1 : ", "1", ""),
            ("input.n + ", "1", ""),
            ("a.", "b", ""),
            ("{'a':", "1", "}"),
        ] {
            for times in [20, 40, 90, MAX_SOURCE_BYTES / (nested.0.len() + nested.2.len()) - 10] {
                let source = format!("{}{}{}", nested.0.repeat(times), nested.1, nested.2.repeat(times));
                let _neither_hangs_nor_overflows =
                    Expression::compile(&source).map(|deep| deep.evaluate(&scope()));
            }
        }
    }

    #[test]
    fn named_nodes_are_found() {
        let expression = Expression::compile("nodes.a.output.text + string(nodes['b-c'].state)").unwrap();
        assert_eq!(expression.node_ids().collect::<Vec<_>>(), ["a", "b-c"]);
        assert!(!expression.uses.all_nodes);
    }

    #[test]
    fn evaluation_is_bounded() {
        let expression = Expression::compile("input.big.all(a, input.big.all(b, a == b))").unwrap();
        let error = expression.evaluate(&scope()).unwrap_err();
        assert!(error.to_string().contains("more than 250000 iterations"), "{error}");
    }

    #[test]
    fn an_absent_field_is_named() {
        let error = Expression::compile("input.missing.x").unwrap().evaluate(&scope()).unwrap_err();
        assert_eq!(error.to_string(), "expression `input.missing.x`: there is no `missing`");
    }
}
