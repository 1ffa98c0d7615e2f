//! The node types that need nothing but the engine.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::{Attempt, NodeType, Outcome, Wait};
use crate::fields::{Fields, Shape};
use crate::journal::NodeFailure;

/// `trigger {}`: where a graph begins; its output is the run's input.
pub(super) struct Trigger;

#[async_trait]
impl NodeType for Trigger {
    fn check(&self, _config: &mut Fields<'_>) {}

    fn can_fail(&self, _config: &Value) -> bool {
        false
    }

    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        Ok(Outcome::Done((*attempt.input).clone()))
    }
}

/// `condition {expression}`: its output is `{"result": bool}`, by which the edges out of it are taken.
pub(super) struct Condition;

#[async_trait]
impl NodeType for Condition {
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

    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        match &attempt.config["expression"] {
            Value::Bool(result) => Ok(Outcome::Done(json!({ "result": result }))),
            other => Err(NodeFailure::permanent(
                "expression",
                format!("a condition must be true or false, but its expression gave {}", kind_of(other)),
            )),
        }
    }
}

/// `parallel {}`: a fan-out or a barrier; its output holds those of its direct predecessors by id.
pub(super) struct Parallel;

#[async_trait]
impl NodeType for Parallel {
    fn check(&self, _config: &mut Fields<'_>) {}

    fn can_fail(&self, _config: &Value) -> bool {
        false
    }

    fn collects_upstream(&self) -> bool {
        true
    }

    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        Ok(Outcome::Done(Value::Object(attempt.upstream)))
    }
}

/// `delay {seconds | until}`: a durable timer that holds nothing while it waits; its output is `{}`.
pub(super) struct Delay;

#[async_trait]
impl NodeType for Delay {
    fn check(&self, config: &mut Fields<'_>) {
        let seconds = config.optional("seconds", Shape::Number(0.0, 315_360_000.0)).is_some();
        let until = config.optional("until", Shape::Text);
        match (seconds, until) {
            (true, Some(_)) => config.problem("until", "is one too many: give either `seconds` or `until`"),
            (false, None) if !config.has("seconds") && !config.has("until") => {
                config.problem("seconds", "is missing: give either `seconds` or `until`");
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

    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let until = match (&attempt.config["seconds"], &attempt.config["until"]) {
            (Value::Number(seconds), _) => after(attempt.now, seconds.as_f64().unwrap_or(0.0))?,
            (_, Value::String(until)) => parse_time(until)?,
            (other, _) => {
                return Err(NodeFailure::permanent(
                    "config",
                    format!("`seconds` must be a number, but was {}", kind_of(other)),
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
        return Err(NodeFailure::permanent("config", "`seconds` must be from 0 to ten years"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked above")]
    Ok(now + TimeDelta::milliseconds(milliseconds.ceil() as i64))
}

fn parse_time(text: &str) -> Result<DateTime<Utc>, NodeFailure> {
    DateTime::parse_from_rfc3339(text).map(|time| time.with_timezone(&Utc)).map_err(|_| {
        NodeFailure::permanent("config", "must be a time such as 2026-11-23T08:30:00Z (RFC 3339)".to_owned())
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
