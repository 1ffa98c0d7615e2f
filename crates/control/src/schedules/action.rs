//! What a schedule starts.

use gathering_domain::{Digest, PipelineId, Pointer, Problems};
use serde_json::{Map, Value, json};

/// The id of the only node in the graph of an action.
const NODE: &str = "action";

/// The fields of an action that belong to its node, beside the configuration.
const NODE_FIELDS: [&str; 2] = ["retry", "timeout_seconds"];

/// The actions that are a graph of one node.
const NODE_ACTIONS: [&str; 2] = ["call_api", "send_notification"];

/// What a schedule starts at a due time.
#[derive(Debug, Clone, PartialEq)]
pub enum ScheduledAction {
    /// A run of a pipeline.
    Pipeline {
        /// The pipeline.
        pipeline: PipelineId,
        /// The version; the latest at the due time if absent.
        version: Option<i32>,
        /// The input of each run.
        input: Value,
    },
    /// A run of a graph with one node, which does this action.
    Node {
        /// The action as its author wrote it.
        written: Value,
        /// The graph, stored before.
        graph: Digest,
    },
}

impl ScheduledAction {
    /// The action that was stored as this JSON, with its graph if it is one of its own.
    ///
    /// # Errors
    /// What makes no sense of it; only if it was stored otherwise.
    pub fn of_stored(written: Value, graph: Option<Digest>) -> Result<Self, Problems> {
        match (read(written, &Pointer::root())?, graph) {
            (ReadAction::Pipeline { pipeline, version, input }, None) => {
                Ok(Self::Pipeline { pipeline, version, input })
            }
            (ReadAction::Node { written, .. }, Some(graph)) => Ok(Self::Node { written, graph }),
            _ => Err(Problems::one(Pointer::root(), "has a graph of its own, or lacks it")),
        }
    }

    /// The action as it is written.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Pipeline { pipeline, version, input } => {
                let mut action =
                    json!({ "action": "execute_pipeline", "pipeline_id": pipeline, "input": input });
                if let (Some(version), Some(fields)) = (version, action.as_object_mut()) {
                    fields.insert("version".to_owned(), json!(version));
                }
                action
            }
            Self::Node { written, .. } => written.clone(),
        }
    }

    /// The pipeline that it starts.
    pub const fn pipeline(&self) -> Option<PipelineId> {
        match self {
            Self::Pipeline { pipeline, .. } => Some(*pipeline),
            Self::Node { .. } => None,
        }
    }
}

/// An action that was read, before what it refers to was looked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ReadAction {
    Pipeline { pipeline: PipelineId, version: Option<i32>, input: Value },
    Node { written: Value, definition: Value },
}

/// Reads an action, with its problems below `at`.
pub(super) fn read(action: Value, at: &Pointer) -> Result<ReadAction, Problems> {
    let Some(fields) = action.as_object() else {
        return Err(Problems::one(at.clone(), "must be an object with an `action`"));
    };
    match fields.get("action").and_then(Value::as_str) {
        Some("execute_pipeline") => read_pipeline(fields, at),
        Some(name) if NODE_ACTIONS.contains(&name) => {
            let definition = definition_of(fields);
            Ok(ReadAction::Node { written: action, definition })
        }
        _ => {
            let known = NODE_ACTIONS.join(", ");
            Err(Problems::one(at.join("action"), format!("must be one of execute_pipeline, {known}")))
        }
    }
}

fn read_pipeline(fields: &Map<String, Value>, at: &Pointer) -> Result<ReadAction, Problems> {
    const KNOWN: [&str; 4] = ["action", "pipeline_id", "version", "input"];
    let mut problems = Problems::new();
    for field in fields.keys().filter(|field| !KNOWN.contains(&field.as_str())) {
        problems.add(at.join(field), format!("is not a field of this action: it has {}", KNOWN.join(", ")));
    }
    let pipeline = match fields.get("pipeline_id").map(|id| id.as_str().map(str::parse::<PipelineId>)) {
        Some(Some(Ok(pipeline))) => Some(pipeline),
        Some(_) => add(&mut problems, at.join("pipeline_id"), "must be the id of a pipeline"),
        None => add(&mut problems, at.join("pipeline_id"), "is missing"),
    };
    let version = match fields.get("version") {
        None | Some(Value::Null) => None,
        Some(version) => match version.as_i64().and_then(|version| i32::try_from(version).ok()) {
            Some(version) if version > 0 => Some(version),
            _ => add(&mut problems, at.join("version"), "must be a whole number from 1"),
        },
    };
    let input = fields.get("input").cloned().unwrap_or_else(|| json!({}));
    if let Err(limit) = gathering_dag_engine::check_value(&input) {
        problems.add(at.join("input"), limit.to_string());
    }
    match pipeline {
        Some(pipeline) if problems.is_empty() => Ok(ReadAction::Pipeline { pipeline, version, input }),
        _ => Err(problems),
    }
}

fn add<T>(problems: &mut Problems, at: Pointer, message: &str) -> Option<T> {
    problems.add(at, message);
    None
}

/// The graph with one node that does the action.
fn definition_of(action: &Map<String, Value>) -> Value {
    let is_of_node = |field: &str| NODE_FIELDS.contains(&field);
    let config: Map<_, _> = action.iter().filter(|(field, _)| !is_of_node(field)).map(owned).collect();
    let mut node: Map<_, _> = action.iter().filter(|(field, _)| is_of_node(field)).map(owned).collect();
    node.insert("id".to_owned(), json!(NODE));
    node.insert("type".to_owned(), json!("action"));
    node.insert("config".to_owned(), Value::Object(config));
    json!({ "nodes": [node], "edges": [], "output": format!("nodes.{NODE}.output") })
}

fn owned((field, value): (&String, &Value)) -> (String, Value) {
    (field.clone(), value.clone())
}

/// The problems of the graph of an action, as problems of the action at `at`.
pub(super) fn problems_of_action(at: &Pointer, problems: Problems) -> Problems {
    let mut all = Problems::new();
    for problem in problems {
        let pointer = problem.pointer.to_string();
        let below = pointer.strip_prefix("/nodes/0/config").or_else(|| pointer.strip_prefix("/nodes/0"));
        all.add(Pointer::from(format!("{at}{}", below.unwrap_or_default())), problem.message);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(action: Value) -> Vec<String> {
        let read = read(action, &Pointer::root().join("action"));
        read.unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_wrong_with_an_action_is_named_at_its_place() {
        assert_eq!(problems(json!(1)), ["/action: must be an object with an `action`"]);
        assert_eq!(
            problems(json!({ "action": "reboot" })),
            ["/action/action: must be one of execute_pipeline, call_api, send_notification"]
        );
        assert_eq!(
            problems(json!({ "action": "execute_pipeline", "version": 0, "when": 1 })),
            [
                "/action/when: is not a field of this action: it has action, pipeline_id, version, input",
                "/action/pipeline_id: is missing",
                "/action/version: must be a whole number from 1",
            ]
        );
    }

    #[test]
    fn an_action_is_a_graph_with_one_node() {
        let action =
            json!({ "action": "call_api", "url": "https://example.org", "retry": { "max_attempts": 3 } });
        let ReadAction::Node { definition, .. } = read(action, &Pointer::root()).unwrap() else { panic!() };
        assert_eq!(
            definition["nodes"][0]["config"],
            json!({ "action": "call_api", "url": "https://example.org" })
        );
        assert_eq!(definition["nodes"][0]["retry"], json!({ "max_attempts": 3 }));
    }
}
