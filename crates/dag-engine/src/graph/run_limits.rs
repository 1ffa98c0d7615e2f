//! `concurrency` and `rate_limit` of a definition: how many runs may execute at once, and how many may start in a second.

use std::sync::Arc;

use gathering_domain::{OnLimit, PermitRequest, Pointer, Problems};
use serde_json::Value;

use super::InputSchema;
use crate::expression::Expression;
use crate::fields::{Fields, Shape};

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;

/// The most runs of one key, or attempts of a node, that may execute at once.
pub(crate) const MAX_PERMITS: u64 = 1_000_000;

/// The lowest and the highest rate, in starts a second: one a day, and more than an instance claims.
const RATES: (f64, f64) = (1.0 / 86_400.0, 100_000.0);

/// What a key may read.
const IN_SCOPE: &[&str] = &["input"];

/// Which runs of a definition are limited together, and how. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct RunLimits {
    key: Arc<Expression>,
    /// Where the key stands, for messages.
    at: Pointer,
    permits: Option<u32>,
    on_limit: OnLimit,
    per_second: Option<f64>,
}

impl PartialEq for RunLimits {
    fn eq(&self, other: &Self) -> bool {
        let facts = |limits: &Self| (limits.permits, limits.on_limit, limits.per_second);
        self.key.source() == other.key.source() && facts(self) == facts(other)
    }
}

impl RunLimits {
    /// The limits of a stored definition, which was valid once; `None` if it has none.
    ///
    /// # Errors
    /// What is wrong with them, by the rules of this version.
    pub fn of_definition(definition: &Value) -> Result<Option<Self>, Problems> {
        let mut problems = Problems::new();
        let limits = Self::read(definition, None, &mut problems);
        problems.into_result().map(|()| limits)
    }

    /// The limits of a definition that is being validated.
    pub(super) fn read(
        definition: &Value,
        input: Option<&InputSchema>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let concurrency = Concurrency::read(definition, problems);
        let rate = Rate::read(definition, concurrency.is_some(), problems);
        let of_concurrency = concurrency.as_ref().and_then(|concurrency| concurrency.key.as_deref());
        let of_rate = rate.as_ref().and_then(|rate| rate.key.as_deref());
        if let (Some(one), Some(other)) = (of_concurrency, of_rate)
            && one != other
        {
            let message = "must be the key of `concurrency`, or be left out: a run waits in one line";
            problems.add(Pointer::root().join("rate_limit").join("key"), message);
        }
        let field = if concurrency.is_some() { "concurrency" } else { "rate_limit" };
        let at = Pointer::root().join(field).join("key");
        let key = compile(of_concurrency.or(of_rate)?, &at, problems)?;
        if let Some(schema) = input {
            schema.check_reads(&key, &at, problems);
        }
        Some(Self {
            key: Arc::new(key),
            at,
            permits: concurrency.as_ref().and_then(|concurrency| concurrency.permits),
            on_limit: concurrency.map(|concurrency| concurrency.on_limit).unwrap_or_default(),
            per_second: rate.and_then(|rate| rate.per_second),
        })
    }

    /// What a run with this input asks for before it starts.
    ///
    /// # Errors
    /// Why its key has no value, or none that can be a key: a text, a number or a truth value. The place is that of the whole
    /// input, the message names that of the key.
    pub fn request(&self, input: &Value) -> Result<PermitRequest, Problems> {
        let problem =
            |reason: String| Problems::one(Pointer::root(), format!("{} of the pipeline: {reason}", self.at));
        let value =
            self.key.evaluate_over(&[("input", input)]).map_err(|error| problem(error.to_string()))?;
        let key = key_of(value).map_err(problem)?;
        Ok(PermitRequest { key, permits: self.permits, on_limit: self.on_limit, per_second: self.per_second })
    }
}

/// The key that an expression has given, or why it can be none.
pub(crate) fn key_of(value: Value) -> Result<String, String> {
    let key = match value {
        Value::String(text) => text,
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        _ => return Err("a key must be a string, a number, true or false".to_owned()),
    };
    if key.len() > MAX_KEY_BYTES {
        return Err(format!("a key has at most {MAX_KEY_BYTES} bytes, and this has {}", key.len()));
    }
    if key.contains('\0') {
        return Err("a key must not contain the character U+0000".to_owned());
    }
    Ok(key)
}

/// `concurrency`, as far as it is well-formed.
struct Concurrency {
    key: Option<String>,
    permits: Option<u32>,
    on_limit: OnLimit,
}

impl Concurrency {
    fn read(definition: &Value, problems: &mut Problems) -> Option<Self> {
        let value = definition.get("concurrency").filter(|value| value.is_object())?;
        let mut fields = Fields::of(value, Pointer::root().join("concurrency"), problems)?;
        let key = fields.required("key", Shape::Text).and_then(Value::as_str).map(str::to_owned);
        let permits = fields.required("limit", Shape::Whole(1, MAX_PERMITS)).and_then(Value::as_u64);
        let on_limit = fields.optional("on_limit", Shape::OneOf(&OnLimit::WORDS)).and_then(Value::as_str);
        fields.finish();
        Some(Self {
            key,
            permits: permits.and_then(|permits| u32::try_from(permits).ok()),
            on_limit: on_limit.and_then(|word| word.parse().ok()).unwrap_or_default(),
        })
    }
}

/// `rate_limit`, as far as it is well-formed.
struct Rate {
    key: Option<String>,
    per_second: Option<f64>,
}

impl Rate {
    /// Beside `concurrency` it needs no key of its own.
    fn read(definition: &Value, has_concurrency: bool, problems: &mut Problems) -> Option<Self> {
        let value = definition.get("rate_limit").filter(|value| value.is_object())?;
        let mut fields = Fields::of(value, Pointer::root().join("rate_limit"), problems)?;
        let key = if has_concurrency {
            fields.optional("key", Shape::Text)
        } else {
            fields.required("key", Shape::Text)
        };
        let key = key.and_then(Value::as_str).map(str::to_owned);
        let rate = fields.required("per_second", Shape::Number(RATES.0, RATES.1)).and_then(Value::as_f64);
        fields.finish();
        Some(Self { key, per_second: rate })
    }
}

fn compile(source: &str, at: &Pointer, problems: &mut Problems) -> Option<Expression> {
    match Expression::compile_over(source, IN_SCOPE) {
        Ok(key) => Some(key),
        Err(found) => {
            for problem in found {
                problems.add(at.clone(), problem.message);
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::graph::Graph;
    use crate::node_type::NodeSpecs;

    fn limits_of(fields: &Value) -> Result<Option<RunLimits>, Vec<String>> {
        let mut definition = json!({"nodes": [{"id": "a", "type": "trigger"}]});
        for (name, value) in fields.as_object().unwrap() {
            definition[name] = value.clone();
        }
        match Graph::validate(&definition, &NodeSpecs::builtin()) {
            Ok(graph) => {
                assert_eq!(RunLimits::of_definition(&definition).unwrap().as_ref(), graph.run_limits());
                Ok(graph.run_limits().cloned())
            }
            Err(problems) => Err(problems.into_iter().map(|problem| problem.to_string()).collect()),
        }
    }

    fn request(fields: &Value, input: &Value) -> Result<PermitRequest, String> {
        let limits = limits_of(fields).unwrap().unwrap();
        limits.request(input).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_run_asks_for_a_permit_of_the_key_that_its_input_gives() {
        let concurrency = json!({"key": "input.customer", "limit": 3, "on_limit": "cancel_oldest"});
        let asked = request(&json!({"concurrency": concurrency}), &json!({"customer": 17})).unwrap();
        assert_eq!(
            asked,
            PermitRequest {
                key: "17".to_owned(),
                permits: Some(3),
                on_limit: OnLimit::CancelOldest,
                per_second: None,
            }
        );
        let both = json!({"concurrency": {"key": "'all'", "limit": 1}, "rate_limit": {"per_second": 0.5}});
        let asked = request(&both, &json!({})).unwrap();
        assert_eq!((asked.permits, asked.on_limit, asked.per_second), (Some(1), OnLimit::Queue, Some(0.5)));
        let rate = json!({"rate_limit": {"key": "input.host", "per_second": 2}});
        let asked = request(&rate, &json!({"host": "a"})).unwrap();
        assert_eq!((asked.key.as_str(), asked.permits, asked.per_second), ("a", None, Some(2.0)));
        assert!(limits_of(&json!({})).unwrap().is_none());
    }

    #[test]
    fn an_input_without_a_key_is_refused_and_the_place_of_the_key_is_named() {
        let limits = json!({"concurrency": {"key": "input.customer", "limit": 1}});
        for (input, expected) in [
            (json!({}), "/concurrency/key of the pipeline: expression `input.customer`"),
            (json!({"customer": null}), "/concurrency/key of the pipeline: a key must be a string"),
            (json!({"customer": ["a"]}), "/concurrency/key of the pipeline: a key must be a string"),
            (json!({"customer": "a\u{0}b"}), "/concurrency/key of the pipeline: a key must not contain"),
            (
                json!({"customer": "x".repeat(513)}),
                "/concurrency/key of the pipeline: a key has at most 512 bytes",
            ),
        ] {
            let problem = request(&limits, &input).unwrap_err();
            assert!(problem.contains(expected), "{input}: {problem}");
        }
    }

    #[test]
    fn limits_that_are_none_are_problems_at_their_places() {
        let key = "input.a";
        for (fields, expected) in [
            (json!({"concurrency": {"limit": 1}}), "/concurrency/key: is missing"),
            (json!({"concurrency": {"key": key}}), "/concurrency/limit: is missing"),
            (json!({"concurrency": {"key": key, "limit": 0}}), "/concurrency/limit: must be a whole number"),
            (
                json!({"concurrency": {"key": key, "limit": 1, "on_limit": "wait"}}),
                "/concurrency/on_limit: must be one of",
            ),
            (
                json!({"concurrency": {"key": "nodes.a.output", "limit": 1}}),
                "/concurrency/key: there is no variable `nodes`",
            ),
            (
                json!({"concurrency": {"key": "run.id", "limit": 1}}),
                "/concurrency/key: there is no variable `run`",
            ),
            (json!({"concurrency": {"key": "input.", "limit": 1}}), "/concurrency/key: not an expression"),
            (
                json!({"concurrency": {"key": key, "limit": 1, "max": 2}}),
                "/concurrency/max: is not known here",
            ),
            (json!({"rate_limit": {"per_second": 1}}), "/rate_limit/key: is missing"),
            (
                json!({"rate_limit": {"key": key, "per_second": 0}}),
                "/rate_limit/per_second: must be a number",
            ),
            (json!({"rate_limit": {"key": key}}), "/rate_limit/per_second: is missing"),
            (
                json!({"concurrency": {"key": key, "limit": 1}, "rate_limit": {"key": "input.b", "per_second": 1}}),
                "/rate_limit/key: must be the key of `concurrency`",
            ),
            (json!({"concurrency": []}), "/concurrency: must be"),
            (json!({"rate_limit": 5}), "/rate_limit: must be"),
            (
                json!({
                    "concurrency": {"key": "input.b", "limit": 1},
                    "input": {"schema": {"type": "object", "properties": {"a": {}}}},
                }),
                "/concurrency/key: the schema names no `b` in `input`",
            ),
        ] {
            let problems = limits_of(&fields).unwrap_err();
            assert!(problems.len() == 1 && problems[0].starts_with(expected), "{fields}: {problems:?}");
        }
    }

    #[test]
    fn the_graph_of_an_item_has_no_limits_of_its_own() {
        let graph =
            json!({"nodes": [{"id": "a", "type": "trigger"}], "concurrency": {"key": "'a'", "limit": 1}});
        let map = json!({"id": "m", "type": "map", "config": {"items": "[1]", "graph": graph}});
        let problems = Graph::validate(&json!({"nodes": [map]}), &NodeSpecs::builtin()).unwrap_err();
        assert!(problems.to_string().starts_with("/nodes/0/config/graph/concurrency: "), "{problems}");
    }
}
