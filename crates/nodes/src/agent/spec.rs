//! The config of an agent node.

use gathering_agents::{AgentDefinition, Providers};
use gathering_dag_engine::{Fields, NodeSpec, Shape};
use gathering_domain::{AgentId, McpServerName, Pointer, Problems};
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

    /// Reads a definition by itself, where `${{ }}` has no meaning.
    ///
    /// # Errors
    /// Everything that is wrong with it, the names of tools and providers included, with its place in the definition.
    pub fn read(&self, agent: &Value) -> Result<AgentDefinition, Problems> {
        let parsed = AgentDefinition::parse(agent);
        let mut problems = parsed.as_ref().err().cloned().unwrap_or_default();
        self.check_names(agent, |_| false, &mut problems);
        if problems.is_empty() { parsed } else { Err(problems) }
    }

    /// Checks the names of tools and providers, which differ between installations; a computed one is unknown yet.
    fn check_names(&self, agent: &Value, is_computed: fn(&str) -> bool, problems: &mut Problems) {
        let at = Pointer::root();
        let names = agent["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (index, name) in names.iter().enumerate() {
            let Some(name) = name.as_str().filter(|name| !is_computed(name)) else { continue };
            if let Some(problem) = self.tool_problem(name) {
                problems.add(at.join("tools").join(index), problem);
            }
        }
        let may_start = |name: &str| name == RUN_PIPELINE || is_computed(name);
        if agent["pipelines"].is_array() && !names.iter().filter_map(Value::as_str).any(may_start) {
            let message = format!("has no effect: `{RUN_PIPELINE}` is not one of the agent's tools");
            problems.add(at.join("pipelines"), message);
        }
        let known =
            |name: &str| name == AUTO || name == OPENAI || self.providers.names().any(|known| known == name);
        match agent["provider"].as_str() {
            Some(name) if !is_computed(name) && !known(name) => {
                let mut names: Vec<&str> = self.providers.names().chain([AUTO, OPENAI]).collect();
                names.sort_unstable();
                names.dedup();
                let name: String = name.chars().take(64).collect();
                let message = format!("unknown provider `{name}`: the providers are {}", names.join(", "));
                problems.add(at.join("provider"), message);
            }
            Some(OPENAI) if agent["model"].as_str().is_none_or(|model| model.trim().is_empty()) => {
                problems.add(at.join("model"), "is missing: `openai` needs the name of a model");
            }
            _ => {}
        }
    }
}

impl NodeSpec for AgentSpec {
    fn check(&self, config: &mut Fields<'_>) {
        if config.has("agent_id") {
            check_id(config);
        } else if let Some(agent) = config.required("agent", Shape::Object).filter(|agent| agent.is_object())
        {
            if let Err(found) = AgentDefinition::parse(agent) {
                add_problems_below(config, "agent", agent, found);
            }
            let (at, mut found) = (config.place("agent"), Problems::new());
            self.check_names(agent, is_computed_text, &mut found);
            for problem in found.below(&at) {
                config.problems().add(problem.pointer, problem.message);
            }
        }
        config.required("prompt", Shape::Text);
    }

    fn output_fields(&self, config: &Value) -> Option<&'static [&'static str]> {
        if config.get("agent_id").is_some() {
            return Some(&OF_STORED);
        }
        let has_output = config["agent"].get("output_schema").is_some_and(|schema| !schema.is_null());
        Some(if has_output { &OF_STORED[2..] } else { &OF_STORED[2..8] })
    }
}

/// The fields of the output of a stored agent. The first two say which it was; the last is there if it has a schema.
const OF_STORED: [&str; 9] = [
    "agent_id",
    "agent_version",
    "content",
    "steps",
    "usage",
    "provider",
    "model",
    "finish_reason",
    "output",
];

/// Checks the id of a stored agent. Whether the project has it, the run finds out: it may be created later.
fn check_id(config: &mut Fields<'_>) {
    let id = config.optional("agent_id", Shape::Text).and_then(Value::as_str);
    if let Some(Err(error)) = id.filter(|id| !is_computed_text(id)).map(str::parse::<AgentId>) {
        config.problem("agent_id", error.to_string());
    }
    if config.optional("agent", Shape::Object).is_some() {
        config.problem("agent", "has no effect beside `agent_id`: remove one of them");
    }
}
