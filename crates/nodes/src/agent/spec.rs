//! The config of an agent node.

use gathering_agents::{AgentDefinition, Providers};
use gathering_dag_engine::{Fields, NodeSpec, Shape};
use gathering_domain::McpServerName;
use gathering_tools::Toolbox;
use serde_json::Value;

use super::{AUTO, OPENAI};
use crate::config::{add_problems_below, is_computed_text};
use crate::project_tools::is_not_there;
use crate::run_pipeline::RUN_PIPELINE;

/// The spec of `agent`.
pub struct AgentSpec {
    providers: Providers,
    tools: Toolbox,
    is_project_known: bool,
}

impl AgentSpec {
    /// A spec that accepts agents of these `providers` with any of these `tools`, and leaves a tool that may be one of a
    /// mounted server to the run.
    pub const fn new(providers: Providers, tools: Toolbox) -> Self {
        Self { providers, tools, is_project_known: false }
    }

    /// A spec that accepts agents of these `providers` with any of these `tools`, which are all that the project has.
    pub const fn of_project(providers: Providers, tools: Toolbox) -> Self {
        Self { providers, tools, is_project_known: true }
    }

    /// What is wrong with a tool of this name.
    fn tool_problem(&self, name: &str) -> Option<String> {
        if self.tools.get(name).is_some() {
            return None;
        }
        match McpServerName::of_tool(name) {
            Some(_) => self.is_project_known.then(|| is_not_there(name)),
            None => self.tools.select([name]).err().map(|error| error.to_string()),
        }
    }

    /// Checks the names of tools and providers, which differ between installations.
    fn check_names(&self, agent: &Value, config: &mut Fields<'_>) {
        let at = config.place("agent");
        let names = agent["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (index, name) in names.iter().enumerate() {
            let Some(name) = name.as_str().filter(|name| !is_computed_text(name)) else { continue };
            if let Some(problem) = self.tool_problem(name) {
                config.problems().add(at.join("tools").join(index), problem);
            }
        }
        let is_computed = |name: &Value| name.as_str().is_some_and(is_computed_text);
        if agent["pipelines"].is_array()
            && !names.iter().any(|name| name == RUN_PIPELINE || is_computed(name))
        {
            let message = format!("has no effect: `{RUN_PIPELINE}` is not one of the agent's tools");
            config.problems().add(at.join("pipelines"), message);
        }
        let known =
            |name: &str| name == AUTO || name == OPENAI || self.providers.names().any(|known| known == name);
        match agent["provider"].as_str() {
            Some(name) if !is_computed_text(name) && !known(name) => {
                let mut names: Vec<&str> = self.providers.names().chain([AUTO, OPENAI]).collect();
                names.sort_unstable();
                names.dedup();
                let name: String = name.chars().take(64).collect();
                let message = format!("unknown provider `{name}`: the providers are {}", names.join(", "));
                config.problems().add(at.join("provider"), message);
            }
            Some(OPENAI) if agent["model"].as_str().is_none_or(|model| model.trim().is_empty()) => {
                config.problems().add(at.join("model"), "is missing: `openai` needs the name of a model");
            }
            _ => {}
        }
    }
}

impl NodeSpec for AgentSpec {
    fn check(&self, config: &mut Fields<'_>) {
        if let Some(agent) = config.required("agent", Shape::Object).filter(|agent| agent.is_object()) {
            if let Err(found) = AgentDefinition::parse(agent) {
                add_problems_below(config, "agent", agent, found);
            }
            self.check_names(agent, config);
        }
        config.required("prompt", Shape::Text);
    }

    fn output_fields(&self, _config: &Value) -> Option<&'static [&'static str]> {
        Some(&["content", "steps", "usage", "provider", "model", "finish_reason"])
    }
}
