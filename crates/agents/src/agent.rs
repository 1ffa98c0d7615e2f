//! An agent as its author describes it.

use std::sync::LazyLock;
use std::time::Duration;

use gathering_domain::Problems;
use gathering_tools::ParameterSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// An agent: who it is, which model answers for it, and what it may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentDefinition {
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// What it is, in a few words.
    #[serde(default)]
    pub role: String,
    /// How it shall act.
    #[serde(default)]
    pub instructions: String,
    /// The provider that answers, such as `openai` or `scripted`.
    pub provider: String,
    /// The model, as its provider names it; `scripted` needs none.
    #[serde(default)]
    pub model: String,
    /// How much chance there is in its answers, 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The names of the tools that it may use.
    #[serde(default)]
    pub tools: Vec<String>,
    /// What it is good at; circles route tasks by it.
    #[serde(default)]
    pub competencies: Vec<String>,
    /// How much it may spend on one prompt.
    #[serde(default)]
    pub limits: AgentLimits,
}

/// How much an agent may spend on one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentLimits {
    /// Calls of the model.
    pub max_steps: u32,
    /// Tokens read and written, over all calls.
    pub max_tokens: u64,
    /// Calls of tools.
    pub max_tool_calls: u32,
    /// Wall clock, in seconds.
    pub timeout_seconds: u64,
}

impl Default for AgentLimits {
    fn default() -> Self {
        Self { max_steps: 16, max_tokens: 200_000, max_tool_calls: 64, timeout_seconds: 600 }
    }
}

impl AgentLimits {
    /// The wall clock's share.
    pub const fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }
}

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
            "name": {"description": "What people call it.", "type": "string", "maxLength": 200},
            "role": {"description": "What it is, in a few words.", "type": "string", "maxLength": 2000},
            "instructions": {"description": "How it shall act.", "type": "string", "maxLength": 100_000},
            "provider": {"description": "Who answers.", "type": "string", "minLength": 1, "maxLength": 64},
            "model": {"description": "The model, as its provider names it.", "type": "string", "maxLength": 200},
            "temperature": {"description": "0 to 2.", "type": ["number", "null"], "minimum": 0, "maximum": 2},
            "tools": names("The tools that it may use."),
            "competencies": names("What it is good at."),
            "limits": {
                "description": "How much it may spend on one prompt.",
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "max_steps": count("Calls of the model.", 1000),
                    "max_tokens": count("Tokens read and written.", 1_000_000_000),
                    "max_tool_calls": count("Calls of tools.", 10_000),
                    "timeout_seconds": count("Wall clock.", 86_400)
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

    /// Reads a definition.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub fn parse(value: &Value) -> Result<Self, Problems> {
        let whole = |error: String| Problems::one(gathering_domain::Pointer::root(), error);
        let schema = ParameterSchema::compile(&SCHEMA).map_err(|error| whole(error.to_string()))?;
        schema.check(value)?;
        serde_json::from_value(value.clone()).map_err(|error| whole(error.to_string()))
    }

    /// What the model is told it is: role, then instructions.
    pub fn system_prompt(&self) -> String {
        let parts = [self.role.trim(), self.instructions.trim()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_definition_names_every_problem() {
        let bad = json!({"model": 1, "temperature": 3, "tools": ["a", ""], "limits": {"max_steps": 0, "x": 1}, "y": 1});
        let problems = AgentDefinition::parse(&bad).unwrap_err();
        let places: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(
            places,
            ["/limits/max_steps", "/limits/x", "/model", "/provider", "/temperature", "/tools/1", "/y"]
        );
    }

    #[test]
    fn a_small_definition_has_the_default_limits() {
        let agent =
            AgentDefinition::parse(&json!({"provider": "scripted", "limits": {"max_steps": 3}})).unwrap();
        assert_eq!(agent.limits, AgentLimits { max_steps: 3, ..AgentLimits::default() });
        let back = AgentDefinition::parse(&serde_json::to_value(&agent).unwrap()).unwrap();
        assert_eq!(back, agent);
    }
}
