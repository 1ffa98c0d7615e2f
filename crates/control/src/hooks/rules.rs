//! What a hook does with a call: its target, its filter and its mapping, checked when they are written.

use gathering_dag_engine::{Expression, ValueTemplate, check_value};
use gathering_domain::{PipelineId, Pointer, Problems};
use serde_json::{Map, Value, json};

use crate::events::EventType;

/// What filter and mapping read.
pub(super) const NAMES: &[&str] = &["headers", "body", "delivery"];

/// What a call of a hook becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookTarget {
    /// An event of this type.
    Event(EventType),
    /// A run of a pipeline.
    Pipeline {
        /// The pipeline.
        pipeline: PipelineId,
        /// The version; the latest at the call if absent.
        version: Option<i32>,
    },
}

impl HookTarget {
    /// Reads a target: `{event_type}` or `{pipeline_id, version?}`.
    ///
    /// # Errors
    /// Every problem, below `at`.
    pub fn read(target: &Value, at: &Pointer) -> Result<Self, Problems> {
        const EITHER: &str = "must be {event_type} or {pipeline_id, version?}";
        let Some(fields) = target.as_object() else {
            return Err(Problems::one(at.clone(), EITHER));
        };
        match (fields.get("event_type"), fields.get("pipeline_id")) {
            (Some(event_type), None) => Self::read_event(event_type, fields, at),
            (None, Some(pipeline)) => Self::read_pipeline(pipeline, fields, at),
            _ => Err(Problems::one(at.clone(), EITHER)),
        }
    }

    fn read_event(event_type: &Value, fields: &Map<String, Value>, at: &Pointer) -> Result<Self, Problems> {
        let mut problems = unknown_fields(fields, &["event_type"], at);
        let parsed = event_type.as_str().unwrap_or_default().parse::<EventType>();
        match parsed {
            Ok(event_type) if problems.is_empty() => return Ok(Self::Event(event_type)),
            Ok(_) => {}
            Err(error) => problems.add(at.join("event_type"), error.to_string()),
        }
        Err(problems)
    }

    fn read_pipeline(pipeline: &Value, fields: &Map<String, Value>, at: &Pointer) -> Result<Self, Problems> {
        let mut problems = unknown_fields(fields, &["pipeline_id", "version"], at);
        let pipeline = pipeline.as_str().and_then(|id| id.parse::<PipelineId>().ok());
        if pipeline.is_none() {
            problems.add(at.join("pipeline_id"), "must be the id of a pipeline");
        }
        let version = match fields.get("version") {
            None | Some(Value::Null) => None,
            Some(version) => {
                let version = version.as_i64().and_then(|version| i32::try_from(version).ok());
                let version = version.filter(|version| *version > 0);
                if version.is_none() {
                    problems.add(at.join("version"), "must be a whole number from 1");
                }
                version
            }
        };
        match pipeline {
            Some(pipeline) if problems.is_empty() => Ok(Self::Pipeline { pipeline, version }),
            _ => Err(problems),
        }
    }

    /// The target as it is written.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Event(event_type) => json!({ "event_type": event_type.as_str() }),
            Self::Pipeline { pipeline, version: None } => json!({ "pipeline_id": pipeline }),
            Self::Pipeline { pipeline, version } => json!({ "pipeline_id": pipeline, "version": version }),
        }
    }
}

fn unknown_fields(fields: &Map<String, Value>, known: &[&str], at: &Pointer) -> Problems {
    let mut problems = Problems::new();
    for field in fields.keys().filter(|field| !known.contains(&field.as_str())) {
        problems.add(at.join(field), format!("is not a field of this target: it has {}", known.join(", ")));
    }
    problems
}

/// The filter and the mapping of a hook, compiled.
pub(super) struct Rules {
    pub(super) when: Option<Expression>,
    pub(super) map: Option<ValueTemplate>,
}

impl Rules {
    /// Compiles them; problems are added at `/when` and below `/map`.
    pub(super) fn compile(when: Option<&str>, map: Option<&Value>, problems: &mut Problems) -> Self {
        let root = Pointer::root();
        let when = when.and_then(|source| match Expression::compile_over(source, NAMES) {
            Ok(expression) => Some(expression),
            Err(found) => {
                found.into_iter().for_each(|problem| problems.add(root.join("when"), problem.message));
                None
            }
        });
        let map = map.map(|map| {
            if let Err(limit) = check_value(map) {
                problems.add(root.join("map"), limit.to_string());
            }
            ValueTemplate::compile(map, NAMES, &root.join("map"), problems)
        });
        Self { when, map }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(target: Value) -> Vec<String> {
        let read = HookTarget::read(&target, &Pointer::root().join("target"));
        read.unwrap_err().iter().map(|problem| problem.pointer.to_string()).collect()
    }

    #[test]
    fn a_target_is_an_event_or_a_pipeline() {
        for target in [
            json!({ "event_type": "order.paid" }),
            json!({ "pipeline_id": PipelineId::new() }),
            json!({ "pipeline_id": PipelineId::new(), "version": 3 }),
        ] {
            assert_eq!(HookTarget::read(&target, &Pointer::root()).unwrap().to_json(), target);
        }
        assert_eq!(problems(json!("x")), ["/target"]);
        assert_eq!(problems(json!({})), ["/target"]);
        assert_eq!(problems(json!({ "event_type": "a.b", "pipeline_id": PipelineId::new() })), ["/target"]);
        assert_eq!(problems(json!({ "event_type": "run.failed" })), ["/target/event_type"]);
        assert_eq!(problems(json!({ "event_type": 7, "x": 1 })), ["/target/x", "/target/event_type"]);
        let wrong = json!({ "pipeline_id": "x", "version": 0, "input": {} });
        assert_eq!(problems(wrong), ["/target/input", "/target/pipeline_id", "/target/version"]);
    }

    #[test]
    fn filter_and_mapping_read_headers_body_and_delivery_only() {
        let mut problems = Problems::new();
        let map = json!({ "branch": "${{ body.ref }}", "run": "${{ run.id }}" });
        Rules::compile(Some("headers.x == event.x"), Some(&map), &mut problems);
        let places: Vec<_> = problems.iter().map(|problem| problem.pointer.to_string()).collect();
        assert_eq!(places, ["/when", "/map/run"]);
    }
}
