//! The engine's node types and those of this crate, under their names.

use std::sync::Arc;

use gathering_agents::Providers;
use gathering_dag_engine::{BudgetLedger, ChildRuns, Decisions, NodeSpecs, NodeTypes};
use gathering_tools::{Outbound, Toolbox};

use crate::{
    ActionNode, ActionSpec, AgentNode, AgentSpec, ChildPipelines, OutsideNode, People, ProjectFiles,
    ProjectSecrets, ProjectTools, StoredAgents, ToolNode, ToolNodeSpec, WithSecrets,
};

/// The ports that the node types need when they execute. Cloning is cheap.
#[derive(Clone)]
pub struct NodeServices {
    /// The files of each project.
    pub files: Arc<dyn ProjectFiles>,
    /// Starts pipelines as child runs.
    pub pipelines: Arc<dyn ChildPipelines>,
    /// The child runs.
    pub children: Arc<dyn ChildRuns>,
    /// The decisions that approvals wait for.
    pub decisions: Arc<dyn Decisions>,
    /// The secrets of each project.
    pub secrets: Arc<dyn ProjectSecrets>,
    /// The stored agents of each project.
    pub agents: Arc<dyn StoredAgents>,
    /// The tools of each project, those of its mounted MCP servers included.
    pub tools: Arc<dyn ProjectTools>,
    /// The budgets that bound calls; `None` for no bounds.
    pub budgets: Option<Arc<dyn BudgetLedger>>,
    /// Who follows what tools tell, and answers what they ask.
    pub people: People,
}

/// The specs of all node types, for validation.
pub fn node_specs(tools: &Toolbox, providers: &Providers) -> NodeSpecs {
    NodeSpecs::builtin()
        .with("action", ActionSpec)
        .with("tool", ToolNodeSpec::new(tools.clone()))
        .with("agent", AgentSpec::new(providers.clone(), tools.clone()))
}

/// All node types, for an engine. Their specs are those of [`node_specs`].
pub fn node_types(
    outbound: &Outbound,
    tools: &Toolbox,
    providers: &Providers,
    services: &NodeServices,
) -> NodeTypes {
    let (files, children) = (&services.files, &services.children);
    let action = ActionNode::new(
        outbound.clone(),
        tools.clone(),
        Arc::clone(files),
        Arc::clone(&services.pipelines),
        Arc::clone(children),
    );
    let mut tool = ToolNode::new(tools.clone(), Arc::clone(files))
        .with_project_tools(Arc::clone(&services.tools))
        .with_people(services.people.clone())
        .with_pipelines(Arc::clone(&services.pipelines), Arc::clone(children));
    let mut agent = AgentNode::new(providers.clone(), tools.clone(), Arc::clone(files))
        .with_stored_agents(Arc::clone(&services.agents))
        .with_project_tools(Arc::clone(&services.tools))
        .with_people(services.people.clone())
        .with_pipelines(Arc::clone(&services.pipelines), Arc::clone(children));
    if let Some(budgets) = &services.budgets {
        tool = tool.with_budgets(Arc::clone(budgets));
        agent = agent.with_budgets(Arc::clone(budgets));
    }
    NodeTypes::builtin()
        .with_map(Arc::clone(children))
        .with_approval(Arc::clone(&services.decisions))
        .with_parts("action", ActionSpec, with_secrets(action, services))
        .with_parts("tool", ToolNodeSpec::new(tools.clone()), with_secrets(tool, services))
        .with_parts("agent", AgentSpec::new(providers.clone(), tools.clone()), with_secrets(agent, services))
}

fn with_secrets<N: OutsideNode>(node: N, services: &NodeServices) -> WithSecrets<N> {
    WithSecrets::new(node, Arc::clone(&services.secrets))
}

#[cfg(test)]
mod tests {
    use gathering_dag_engine::SystemClock;
    use gathering_dag_engine::testing::MemoryStore;
    use serde_json::{Value, json};

    use super::*;
    use crate::NoSecrets;
    use crate::testing::{NoPipelines, OneDirectory, problems, tools};

    #[test]
    fn an_engine_executes_every_type_that_validation_accepts() {
        let outbound = Outbound::new(gathering_tools::OutboundPolicy::public_only()).unwrap();
        let (tools, providers) = (tools(&outbound), Providers::with_scripted());
        let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        let services = NodeServices {
            files: Arc::new(OneDirectory::new("/nonexistent")),
            pipelines: Arc::new(NoPipelines),
            children: store.clone(),
            decisions: store,
            secrets: Arc::new(NoSecrets),
            agents: Arc::new(crate::NoStoredAgents),
            tools: Arc::new(crate::SameTools(tools.clone())),
            budgets: None,
            people: People::default(),
        };
        let types = node_types(&outbound, &tools, &providers, &services);
        let specs = node_specs(&tools, &providers);
        assert!(types.specs().names().eq(specs.names()), "{types:?} {specs:?}");
    }

    #[test]
    fn null_is_no_value_of_a_required_field() {
        let agent = json!({"provider": "scripted"});
        for (node_type, config, required) in [
            ("action", json!({"action": "call_api", "url": "https://example.org"}), ["action", "url"]),
            (
                "action",
                json!({"action": "execute_pipeline", "pipeline_id": "0197b8a4-9ab1-7000-8000-000000000000"}),
                ["action", "pipeline_id"],
            ),
            (
                "action",
                json!({"action": "send_notification", "channel": "webhook", "url": "https://example.org", "message": "x"}),
                ["channel", "url"],
            ),
            (
                "action",
                json!({"action": "send_notification", "channel": "webhook", "url": "https://example.org", "message": "x"}),
                ["action", "message"],
            ),
            (
                "action",
                json!({"action": "send_notification", "channel": "email", "to": "a@b.org", "subject": "x", "message": "x"}),
                ["to", "subject"],
            ),
            ("agent", json!({"agent": agent, "prompt": "x"}), ["agent", "prompt"]),
            ("agent", json!({"agent": agent, "prompt": "x"}), ["agent/provider", "prompt"]),
            ("tool", json!({"tool": "read_file", "params": {"path": "x"}}), ["tool", "params/path"]),
        ] {
            assert!(problems(node_type, &config).is_empty(), "{config}");
            for field in required {
                let mut config = config.clone();
                *config.pointer_mut(&format!("/{field}")).unwrap() = Value::Null;
                let found = problems(node_type, &config);
                assert!(
                    found.iter().any(|problem| problem.starts_with(&format!("/{field}: "))),
                    "{config}: {found:?}"
                );
            }
        }
    }
}
