//! The tools: their names, what models read of them, and the schemas of their arguments.

use gathering_domain::{EffectClass, RunState};
use gathering_mcp::offer::OfferedTool;
use gathering_tools::JsonSchema;
use serde_json::{Value, json};

use super::arguments::MAX_COMMENT;

/// What a tool does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeskAction {
    ListPipelines,
    StartRun,
    ListRuns,
    GetRun,
    CancelRun,
    RerunRun,
    DecideNode,
}

/// A tool with its compiled schema.
pub(super) struct DeskTool {
    pub(super) action: DeskAction,
    pub(super) offered: OfferedTool,
    pub(super) schema: JsonSchema,
}

/// Every tool.
///
/// # Errors
/// If a schema is invalid.
pub(super) fn all() -> anyhow::Result<Vec<DeskTool>> {
    let actions = [
        DeskAction::ListPipelines,
        DeskAction::StartRun,
        DeskAction::ListRuns,
        DeskAction::GetRun,
        DeskAction::CancelRun,
        DeskAction::RerunRun,
        DeskAction::DecideNode,
    ];
    actions.into_iter().map(DeskTool::new).collect()
}

impl DeskTool {
    fn new(action: DeskAction) -> anyhow::Result<Self> {
        let (name, description, class) = described(action);
        let input_schema = schema_of(action);
        let offered = OfferedTool {
            name: name.to_owned(),
            title: None,
            description: description.to_owned(),
            input_schema: input_schema.clone(),
            class,
            may_be_task: matches!(action, DeskAction::StartRun | DeskAction::RerunRun),
        };
        Ok(Self { action, offered, schema: JsonSchema::compile(&input_schema)? })
    }
}

fn described(action: DeskAction) -> (&'static str, &'static str, EffectClass) {
    match action {
        DeskAction::ListPipelines => (
            "list_pipelines",
            "Lists the pipelines that you may see, the newest first, each with its id, description and project.",
            EffectClass::Pure,
        ),
        DeskAction::StartRun => (
            "start_run",
            "Starts a run of a pipeline and answers with its output when it has ended. A run that takes longer goes on; \
             ask get_run. The same idempotency_key and arguments never start a second run.",
            EffectClass::Unsafe,
        ),
        DeskAction::ListRuns => (
            "list_runs",
            "Lists runs, the newest first, with their states and without their outputs.",
            EffectClass::Pure,
        ),
        DeskAction::GetRun => (
            "get_run",
            "Shows a run: its state, its output or error, and the state of each node.",
            EffectClass::Pure,
        ),
        DeskAction::CancelRun => ("cancel_run", "Cancels a run that has not ended.", EffectClass::Idempotent),
        DeskAction::RerunRun => (
            "rerun_run",
            "Reruns a run that has ended, from its start, from what failed, or from a node. What succeeded before that \
             point is not executed again.",
            EffectClass::Unsafe,
        ),
        DeskAction::DecideNode => (
            "decide_node",
            "Approves or denies what a node of a run waits for. The first decision is final.",
            EffectClass::Unsafe,
        ),
    }
}

fn schema_of(action: DeskAction) -> Value {
    let id = |what: &str| json!({"type": "string", "pattern": "^[0-9a-fA-F-]{36}$", "description": what});
    let limit = json!({"type": "integer", "minimum": 1, "maximum": 100, "default": 20});
    let key = json!({"type": "string", "minLength": 1, "maxLength": 255});
    let states = RunState::ALL.map(RunState::as_str);
    let (properties, required) = match action {
        DeskAction::ListPipelines => {
            (json!({"project_id": id("Only of this project"), "limit": limit}), json!([]))
        }
        DeskAction::StartRun => (
            json!({
                "pipeline_id": id("The pipeline"),
                "input": {"description": "The input of the run, as the pipeline expects it; {} by default"},
                "version": {"type": "integer", "minimum": 1, "description": "The latest by default"},
                "idempotency_key": key,
            }),
            json!(["pipeline_id"]),
        ),
        DeskAction::ListRuns => (
            json!({
                "state": {"enum": states},
                "pipeline_id": id("Only of this pipeline"),
                "project_id": id("Only of this project"),
                "limit": limit,
            }),
            json!([]),
        ),
        DeskAction::GetRun | DeskAction::CancelRun => (json!({"run_id": id("The run")}), json!(["run_id"])),
        DeskAction::RerunRun => (
            json!({
                "run_id": id("The run that has ended"),
                "from": {"type": "string", "description": "`start`, `failed` (the default) or the id of a node"},
                "input": {"description": "Another input; that of the old run by default"},
                "idempotency_key": key,
            }),
            json!(["run_id"]),
        ),
        DeskAction::DecideNode => (
            json!({
                "run_id": id("The run"),
                "node_id": {"type": "string", "description": "The node that waits"},
                "approve": {"type": "boolean"},
                "comment": {"type": "string", "maxLength": MAX_COMMENT, "pattern": "^[^\\u0000]*$"},
            }),
            json!(["run_id", "node_id", "approve"]),
        ),
    };
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_has_a_name_that_model_providers_accept_and_a_schema_of_an_object() {
        let tools = all().unwrap();
        let mut names: Vec<&str> = tools.iter().map(|tool| tool.offered.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), tools.len());
        for DeskTool { offered, schema, .. } in &tools {
            assert!(
                offered.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{}",
                offered.name
            );
            assert!(offered.description.len() > 20 && offered.input_schema["type"] == "object");
            assert!(schema.check(&json!({"unknown": 1})).is_err(), "{}", offered.name);
        }
    }
}
