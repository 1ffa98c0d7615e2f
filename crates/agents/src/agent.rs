//! The definition of an agent.

use std::sync::LazyLock;
use std::time::Duration;

use gathering_domain::{PipelineId, Pointer, Problems};
use gathering_tools::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// An agent: its instructions, its model and its tools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentDefinition {
    /// A name for people.
    #[serde(default)]
    pub name: String,
    /// Its role, in a few words. The system prompt begins with it.
    #[serde(default)]
    pub role: String,
    /// Its instructions, which the system prompt ends with.
    #[serde(default)]
    pub instructions: String,
    /// The provider that answers, such as `openai` or `scripted`.
    pub provider: String,
    /// The provider's name of the model; `scripted` needs none.
    #[serde(default)]
    pub model: String,
    /// The randomness of its answers, 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The names of the tools that it may call.
    #[serde(default)]
    pub tools: Vec<String>,
    /// The pipelines that it may start with `run_pipeline`; if absent, every pipeline of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipelines: Option<Vec<PipelineId>>,
    /// The JSON Schema of its answers, if they are values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// Its strengths, by which circles route tasks.
    #[serde(default)]
    pub competencies: Vec<String>,
    /// Its limits per prompt.
    #[serde(default)]
    pub limits: AgentLimits,
}

/// The limits of an agent for one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentLimits {
    /// Model calls.
    pub max_steps: u32,
    /// Input and output tokens of all calls.
    pub max_tokens: u64,
    /// Tool calls.
    pub max_tool_calls: u32,
    /// Wall-clock time, in seconds.
    pub timeout_seconds: u64,
    /// Tokens of one answer; if absent, the provider's bound, or 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_answer_tokens: Option<u64>,
}

impl Default for AgentLimits {
    fn default() -> Self {
        Self {
            max_steps: 16,
            max_tokens: 200_000,
            max_tool_calls: 64,
            timeout_seconds: 600,
            max_answer_tokens: None,
        }
    }
}

impl AgentLimits {
    /// The limit of wall-clock time.
    pub const fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }
}

/// How the id of a pipeline is written.
const PIPELINE_ID: &str = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let names = |what: &str| {
        json!({
            "description": what, "type": "array", "maxItems": 128, "uniqueItems": true,
            "items": {"type": "string", "minLength": 1, "maxLength": 64}
        })
    };
    let count = |what: &str, most: u64| json!({"description": what, "type": "integer", "minimum": 1, "maximum": most});
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["provider"],
        "properties": {
            "name": {"description": "A name for people.", "type": "string", "maxLength": 200},
            "role": {"description": "The agent's role, in a few words.", "type": "string", "maxLength": 2000},
            "instructions": {"description": "The agent's instructions.", "type": "string", "maxLength": 100_000},
            "provider": {"description": "The model provider.", "type": "string", "minLength": 1, "maxLength": 64},
            "model": {"description": "The provider's name of the model.", "type": "string", "maxLength": 200},
            "temperature": {"description": "0 to 2.", "type": ["number", "null"], "minimum": 0, "maximum": 2},
            "tools": names("The tools that the agent may call."),
            "pipelines": {
                "description": "The ids of the pipelines that `run_pipeline` may start; every one if absent.",
                "type": ["array", "null"], "minItems": 1, "maxItems": 128, "uniqueItems": true,
                "items": {"type": "string", "pattern": PIPELINE_ID}
            },
            "output_schema": {
                "description": "The JSON Schema of the agent's answers, if they are values.",
                "type": ["object", "null"], "minProperties": 1
            },
            "competencies": names("The agent's strengths."),
            "limits": {
                "description": "The limits for one prompt.",
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "max_steps": count("Model calls.", 1000),
                    "max_tokens": count("Input and output tokens.", 1_000_000_000),
                    "max_tool_calls": count("Tool calls.", 10_000),
                    "timeout_seconds": count("Wall clock.", 86_400),
                    "max_answer_tokens": count("Tokens of one answer.", 1_000_000)
                }
            }
        }
    })
});

impl AgentDefinition {
    /// The JSON Schema of a definition.
    pub fn schema() -> &'static Value {
        &SCHEMA
    }

    /// Parses a definition.
    ///
    /// # Errors
    /// Every problem, each with its location.
    pub fn parse(value: &Value) -> Result<Self, Problems> {
        let whole = |error: String| Problems::one(Pointer::root(), error);
        let schema = JsonSchema::compile(&SCHEMA).map_err(|error| whole(error.to_string()))?;
        schema.check(value)?;
        if let Some(schema) = value.get("output_schema").filter(|schema| !schema.is_null())
            && let Err(error) = JsonSchema::compile(schema)
        {
            return Err(Problems::one(Pointer::root().join("output_schema"), error.to_string()));
        }
        serde_json::from_value(value.clone()).map_err(|error| whole(error.to_string()))
    }

    /// The system prompt: the role, then the instructions.
    pub fn system_prompt(&self) -> String {
        let parts = [self.role.trim(), self.instructions.trim()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_definition_reports_every_problem() {
        let bad = json!({"model": 1, "temperature": 3, "tools": ["a", ""], "limits": {"max_steps": 0, "x": 1}, "y": 1});
        let problems = AgentDefinition::parse(&bad).unwrap_err();
        let places: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(
            places,
            ["/limits/max_steps", "/limits/x", "/model", "/provider", "/temperature", "/tools/1", "/y"]
        );
    }

    #[test]
    fn pipelines_are_named_by_their_ids() {
        let id = PipelineId::new();
        let agent = AgentDefinition::parse(&json!({"provider": "scripted", "pipelines": [id]})).unwrap();
        assert_eq!(agent.pipelines, Some(vec![id]));
        assert_eq!(AgentDefinition::parse(&json!({"provider": "scripted"})).unwrap().pipelines, None);
        let bad = json!({"provider": "scripted", "pipelines": [id, "reports", id]});
        let problems = AgentDefinition::parse(&bad).unwrap_err();
        let places: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(places, ["/pipelines", "/pipelines/1"]);
    }

    #[test]
    fn a_small_definition_has_the_default_limits() {
        let agent =
            AgentDefinition::parse(&json!({"provider": "scripted", "limits": {"max_steps": 3}})).unwrap();
        assert_eq!(agent.limits, AgentLimits { max_steps: 3, ..AgentLimits::default() });
        let stored = serde_json::to_value(&agent).unwrap();
        assert_eq!(AgentDefinition::parse(&stored).unwrap(), agent);
        assert_eq!(stored["limits"].get("max_answer_tokens"), None, "stored definitions stay the same");
    }
}
