//! The node types that need nothing but the engine: `trigger`, `condition`, `parallel`, `delay` and `fail`.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use gathering_domain::FailureKind;
use serde_json::{Value, json};

use super::{Attempt, NodeExecutor, NodeSpec, Outcome, Wait};
use crate::fields::{Fields, Shape};
use crate::journal::NodeFailure;

/// `trigger {}`: the start of a graph; its output is the run's input.
pub(super) struct Trigger;

impl NodeSpec for Trigger {
    fn reads_input(&self) -> bool {
        true
    }

    fn can_fail(&self, _config: &Value) -> bool {
        false
    }
}

#[async_trait]
impl NodeExecutor for Trigger {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        Ok(Outcome::Done((*attempt.input).clone()))
    }
}

/// `condition {expression}`: its output is `{"result": bool}`, which decides its outgoing edges.
pub(super) struct Condition;

impl NodeSpec for Condition {
    fn check(&self, config: &mut Fields<'_>) {
        config.required("expression", Shape::Text);
    }

    fn expressions(&self) -> &'static [&'static str] {
        &["expression"]
    }

    fn decides_edges(&self) -> bool {
        true
    }

    fn output_fields(&self, _config: &Value) -> Option<&'static [&'static str]> {
        Some(&["result"])
    }
}

#[async_trait]
impl NodeExecutor for Condition {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        match &attempt.config["expression"] {
            Value::Bool(result) => Ok(Outcome::Done(json!({ "result": result }))),
            other => Err(NodeFailure::permanent(
                FailureKind::Expression,
                format!("the expression of a condition must be true or false, but is {}", kind_of(other)),
            )),
        }
    }
}

/// `fail {message, details?}`: ends the run as failed, with this message.
pub(super) struct Fail;

impl NodeSpec for Fail {
    fn check(&self, config: &mut Fields<'_>) {
        config.required("message", Shape::Text);
        config.optional("details", Shape::Any);
    }

    fn ends_run(&self) -> bool {
        true
    }
}

#[async_trait]
impl NodeExecutor for Fail {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let message = match &attempt.config["message"] {
            Value::String(message) => message.clone(),
            other => other.to_string(),
        };
        let details = attempt.config.get("details").cloned().map(Box::new);
        Err(NodeFailure { details, ..NodeFailure::permanent(FailureKind::Raised, message) })
    }
}

/// `parallel {}`: a fan-out or a barrier; its output holds the outputs of its direct predecessors by id.
pub(super) struct Parallel;

impl NodeSpec for Parallel {
    fn can_fail(&self, _config: &Value) -> bool {
        false
    }

    fn collects_upstream(&self) -> bool {
        true
    }
}

#[async_trait]
impl NodeExecutor for Parallel {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        Ok(Outcome::Done(Value::Object(attempt.upstream)))
    }
}

/// `delay {seconds | until}`: a durable timer, which holds nothing while it waits; its output is `{}`.
pub(super) struct Delay;

impl NodeSpec for Delay {
    fn check(&self, config: &mut Fields<'_>) {
        let seconds = config.optional("seconds", Shape::Number(0.0, 315_360_000.0)).is_some();
        let until = config.optional("until", Shape::Text);
        match (seconds, until) {
            (true, Some(_)) => config.problem("until", "cannot be combined with `seconds`"),
            (false, None) if !config.has("seconds") && !config.has("until") => {
                config.problem("seconds", "is missing: give `seconds` or `until`");
            }
            (false, Some(Value::String(text))) if !crate::template::is_computed(text) => {
                if let Err(failure) = parse_time(text) {
                    config.problem("until", failure.message);
                }
            }
            _ => {}
        }
    }

    fn output_fields(&self, _config: &Value) -> Option<&'static [&'static str]> {
        Some(&[])
    }
}

#[async_trait]
impl NodeExecutor for Delay {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let until = match (&attempt.config["seconds"], &attempt.config["until"]) {
            (Value::Number(seconds), _) => after(attempt.now, seconds.as_f64().unwrap_or(0.0))?,
            (_, Value::String(until)) => parse_time(until)?,
            (other, _) => {
                return Err(NodeFailure::permanent(
                    FailureKind::Config,
                    format!("`seconds` must be a number, but is {}", kind_of(other)),
                ));
            }
        };
        if attempt.woken || until <= attempt.now {
            Ok(Outcome::Done(json!({})))
        } else {
            Ok(Outcome::Wait(Wait::until(until)))
        }
    }
}

fn after(now: DateTime<Utc>, seconds: f64) -> Result<DateTime<Utc>, NodeFailure> {
    let milliseconds = seconds * 1000.0;
    if !(0.0..=315_360_000_000.0).contains(&milliseconds) {
        return Err(NodeFailure::permanent(FailureKind::Config, "`seconds` must be from 0 to ten years"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked above")]
    Ok(now + TimeDelta::milliseconds(milliseconds.ceil() as i64))
}

fn parse_time(text: &str) -> Result<DateTime<Utc>, NodeFailure> {
    DateTime::parse_from_rfc3339(text).map(|time| time.with_timezone(&Utc)).map_err(|_| {
        NodeFailure::permanent(
            FailureKind::Config,
            "must be a time such as 2026-11-23T08:30:00Z (RFC 3339)".to_owned(),
        )
    })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
