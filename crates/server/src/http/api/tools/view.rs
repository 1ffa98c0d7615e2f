//! Tools and their outputs as they are shown.

use gathering_control::Run;
use gathering_edge::values::AnyObject;
use gathering_tools::ToolSpec;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::api::words::EffectClassSchema;

/// A tool.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tool)]
pub(crate) struct ToolView {
    name: String,
    /// What it does, for models and people.
    description: String,
    /// The JSON Schema of its parameters.
    #[schema(value_type = AnyObject)]
    parameters: Value,
    /// Where it comes from: `builtin`, or `mcp:` and the name of a server.
    source: String,
    #[schema(value_type = EffectClassSchema)]
    class: &'static str,
}

impl ToolView {
    pub(super) fn of(spec: &ToolSpec) -> Self {
        let ToolSpec { name, description, parameters, class, source, .. } = spec.clone();
        Self { name, description, parameters, source: source.to_string(), class: class.as_str() }
    }
}

/// What a tool has answered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ToolOutput)]
pub(crate) struct ToolOutputView {
    /// Any JSON, as the tool describes it.
    output: Value,
    /// From the start of the run to its end.
    duration_ms: i64,
    run_id: Uuid,
}

impl ToolOutputView {
    pub(super) fn of(run: Run) -> Self {
        let ended = run.started_at.zip(run.ended_at);
        Self {
            output: run.output.unwrap_or_default(),
            duration_ms: ended.map_or(0, |(started, ended)| (ended - started).num_milliseconds()),
            run_id: run.id.as_uuid(),
        }
    }
}
