//! The arguments of the tools, as their schemas describe them.

use gathering_control::ControlError;
use gathering_dag_engine::{RerunFrom, check_value};
use gathering_domain::{KeyedBody, NodeId, PipelineId, Pointer, Problems, ProjectId, RunId, RunState};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The longest comment of a decision, in characters.
pub(super) const MAX_COMMENT: usize = 10_000;

#[derive(Deserialize)]
pub(super) struct ListPipelines {
    pub(super) project_id: Option<ProjectId>,
    pub(super) limit: Option<usize>,
}

#[derive(Deserialize)]
pub(super) struct StartRun {
    pub(super) pipeline_id: PipelineId,
    pub(super) input: Option<Value>,
    pub(super) version: Option<i32>,
    pub(super) idempotency_key: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct ListRuns {
    pub(super) state: Option<String>,
    pub(super) pipeline_id: Option<PipelineId>,
    pub(super) project_id: Option<ProjectId>,
    pub(super) limit: Option<usize>,
}

#[derive(Deserialize)]
pub(super) struct OneRun {
    pub(super) run_id: RunId,
}

#[derive(Deserialize)]
pub(super) struct RerunRun {
    pub(super) run_id: RunId,
    pub(super) from: Option<String>,
    pub(super) input: Option<Value>,
    pub(super) idempotency_key: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct DecideNode {
    pub(super) run_id: RunId,
    pub(super) node_id: String,
    pub(super) approve: bool,
    pub(super) comment: Option<String>,
}

/// Reads arguments that fit their schema.
///
/// # Errors
/// [`ControlError::Invalid`] for what the schema cannot say, such as an id that is none.
pub(super) fn read<T: DeserializeOwned>(arguments: &Value) -> Result<T, ControlError> {
    T::deserialize(arguments).map_err(|error| invalid("", error.to_string()))
}

/// The idempotency key of a call, with its arguments.
///
/// # Errors
/// [`ControlError::Invalid`] for a key that cannot be.
pub(super) fn once(key: Option<&str>, arguments: &Value) -> Result<Option<KeyedBody>, ControlError> {
    let Some(key) = key else { return Ok(None) };
    let key = key.parse().map_err(|error| invalid("idempotency_key", format!("{error}")))?;
    Ok(Some(KeyedBody::new(key, arguments)))
}

/// The input of a run, at `field` of the arguments, or the arguments themselves.
///
/// # Errors
/// [`ControlError::Invalid`] for one that a run could not keep.
pub(super) fn input(field: &str, input: Value) -> Result<Value, ControlError> {
    check_value(&input).map_err(|limit| invalid(field, limit.to_string()))?;
    Ok(input)
}

/// Whether a comment of a decision can be kept: at most 10,000 characters, and no NUL.
pub(super) fn is_comment(text: &str) -> bool {
    text.chars().count() <= MAX_COMMENT && !text.contains('\0')
}

/// # Errors
/// [`ControlError::Invalid`].
pub(super) fn node(text: &str) -> Result<NodeId, ControlError> {
    text.parse().map_err(|error| invalid("node_id", format!("{error}")))
}

/// # Errors
/// [`ControlError::Invalid`].
pub(super) fn from(text: Option<&str>) -> Result<RerunFrom, ControlError> {
    Ok(match text {
        None | Some("failed") => RerunFrom::Failed,
        Some("start") => RerunFrom::Start,
        Some(node) => {
            let wrong = |_| invalid("from", "must be `start`, `failed` or the id of a node");
            RerunFrom::Node(node.parse().map_err(wrong)?)
        }
    })
}

pub(super) fn state(text: Option<&str>) -> Option<RunState> {
    RunState::ALL.into_iter().find(|state| Some(state.as_str()) == text)
}

fn invalid(field: &str, message: impl Into<String>) -> ControlError {
    let at = if field.is_empty() { Pointer::root() } else { Pointer::root().join(field) };
    ControlError::Invalid(Problems::one(at, message))
}
