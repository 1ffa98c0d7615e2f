//! Agents and their replies as they are shown.

use chrono::{DateTime, Utc};
use gathering_agents::{AgentDefinition, AgentLimits};
use gathering_control::{Agent, Run};
use gathering_edge::values::AnyObject;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// An agent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Agent)]
pub(crate) struct AgentView {
    id: Uuid,
    project_id: Uuid,
    name: String,
    role: String,
    instructions: String,
    provider: String,
    model: String,
    temperature: Option<f64>,
    /// The names of the tools that it may call.
    tools: Vec<String>,
    /// The pipelines that it may start with `run_pipeline`; every one if null.
    pipelines: Option<Vec<Uuid>>,
    competencies: Vec<String>,
    /// The JSON Schema of its answers; null: they are texts.
    #[schema(value_type = Option<AnyObject>)]
    output_schema: Option<Value>,
    limits: AgentLimitsView,
    /// The latest version, from 1.
    version: i32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// The limits of an agent for one prompt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AgentLimits)]
pub(crate) struct AgentLimitsView {
    max_steps: u32,
    max_tokens: u64,
    max_tool_calls: u32,
    timeout_seconds: u64,
    /// Null: a default.
    max_answer_tokens: Option<u64>,
}

impl AgentView {
    pub(super) fn of(agent: Agent) -> Self {
        let Agent { id, project, definition, version, created_at, updated_at } = agent;
        let AgentDefinition {
            name,
            role,
            instructions,
            provider,
            model,
            temperature,
            tools,
            pipelines,
            output_schema,
            competencies,
            limits,
        } = definition;
        let pipelines = pipelines.map(|pipelines| pipelines.into_iter().map(|id| id.as_uuid()).collect());
        let AgentLimits { max_steps, max_tokens, max_tool_calls, timeout_seconds, max_answer_tokens } =
            limits;
        let limits =
            AgentLimitsView { max_steps, max_tokens, max_tool_calls, timeout_seconds, max_answer_tokens };
        Self {
            id: id.as_uuid(),
            project_id: project.as_uuid(),
            name,
            role,
            instructions,
            provider,
            model,
            temperature,
            tools,
            pipelines,
            competencies,
            output_schema,
            limits,
            version,
            created_at,
            updated_at,
        }
    }
}

/// What an agent has replied.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatReply)]
pub(crate) struct ChatReplyView {
    /// Its answer.
    content: String,
    /// The value that the answer is, if the agent has an `output_schema`.
    output: Value,
    /// The calls of the model and of tools that led to it.
    #[schema(value_type = Vec<AnyObject>)]
    steps: Value,
    /// `input_tokens` and `output_tokens` of all calls of the model.
    #[schema(value_type = AnyObject)]
    usage: Value,
    /// The provider that answered; `scripted` is no model.
    provider: Option<String>,
    model: Option<String>,
    /// Why the answer ended; `length`: it was cut off.
    finish_reason: Option<String>,
    /// The version of the agent.
    agent_version: Option<i64>,
    run_id: Uuid,
}

impl ChatReplyView {
    pub(super) fn of(run: Run) -> Self {
        let mut output = run.output.unwrap_or_default();
        let mut take = |field: &str| output.get_mut(field).map(Value::take).unwrap_or_default();
        let text = |value: Value| value.as_str().map(str::to_owned);
        Self {
            content: text(take("content")).unwrap_or_default(),
            output: take("output"),
            steps: take("steps"),
            usage: take("usage"),
            provider: text(take("provider")),
            model: text(take("model")),
            finish_reason: text(take("finish_reason")),
            agent_version: take("agent_version").as_i64(),
            run_id: run.id.as_uuid(),
        }
    }
}
