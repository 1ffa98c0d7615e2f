#![doc = include_str!("../README.md")]

mod action;
mod agent;
mod budget;
mod call_api;
mod execute_pipeline;
mod notification;
mod services;
mod tool;

use std::sync::Arc;

use gathering_agents::Providers;
use gathering_dag_engine::{ActFailed, Approval, Fields, MapNode, NodeFailure, NodeTypes};
use gathering_domain::{Pointer, Problems, with_causes};
use gathering_tools::{Outbound, ToolContext, ToolError, Toolbox, Workspace};
use serde_json::Value;

pub use action::Action;
pub use agent::Agent;
pub use services::{NodeServices, PipelineToRun, ProjectFiles, ProjectPipelines};
pub use tool::ToolNode;

/// The engine's own node types, and those of this module.
pub fn node_types(
    outbound: &Outbound,
    tools: &Toolbox,
    providers: &Providers,
    services: &NodeServices,
) -> NodeTypes {
    NodeTypes::builtin()
        .with("map", MapNode::new(Arc::clone(&services.children)))
        .with("approval", Approval::new(Arc::clone(&services.decisions)))
        .with("action", Action::new(outbound.clone(), tools.clone(), services))
        .with("tool", ToolNode::new(tools.clone(), services))
        .with("agent", Agent::new(providers.clone(), tools.clone(), services))
}

/// Whether a text holds `${{ }}`, so that its value is not known before the node runs.
fn is_computed_text(text: &str) -> bool {
    text.match_indices("${{").any(|(at, _)| !text[..at].ends_with('$'))
}

/// Whether anything in a value is computed.
fn is_computed(value: &Value) -> bool {
    match value {
        Value::String(text) => is_computed_text(text),
        Value::Array(items) => items.iter().any(is_computed),
        Value::Object(fields) => fields.values().any(is_computed),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Adds what is wrong with `value`, the content of the field `name`, leaving out what a computed part may still mend.
fn add_problems_below(config: &mut Fields<'_>, name: &str, value: &Value, found: Problems) {
    let at = config.place(name);
    for problem in found {
        if !value.pointer(problem.pointer.as_str()).is_some_and(is_computed) {
            let place = Pointer::from(format!("{at}{}", problem.pointer));
            config.problems().add(place, problem.message);
        }
    }
}

fn failure_of_tool(error: &ToolError) -> NodeFailure {
    let message = with_causes(error);
    if error.is_retryable() {
        NodeFailure::retryable(error.kind(), message)
    } else {
        NodeFailure::permanent(error.kind(), message)
    }
}

/// As [`failure_of_tool`], where the call is an effect.
fn act_failed(error: &ToolError) -> ActFailed {
    let failure = failure_of_tool(error);
    if error.may_have_taken_place() { failure.into() } else { ActFailed::before_it_took_place(failure) }
}

/// What a call of a tool may touch.
fn tool_context(workspace: Workspace, idempotency_key: String) -> ToolContext {
    ToolContext::new().with_workspace(workspace).with_idempotency_key(idempotency_key)
}

#[cfg(test)]
mod tests {
    use gathering_agents::Providers;
    use gathering_dag_engine::Graph;
    use gathering_tools::{BlockingPool, Outbound, OutboundPolicy, Toolbox};
    use serde_json::{Value, json};

    use super::*;

    pub(crate) fn types() -> NodeTypes {
        let outbound = Outbound::new(OutboundPolicy::public_only()).unwrap();
        let tools = Toolbox::with_builtin(&outbound, BlockingPool::new(2)).unwrap();
        node_types(&outbound, &tools, &Providers::with_scripted(), &NodeServices::none())
    }

    /// The problems of one node's config, without `/nodes/0/config`.
    pub(crate) fn problems(node_type: &str, config: &Value) -> Vec<String> {
        let document = json!({"nodes": [{"id": "n", "type": node_type, "config": config}]});
        match Graph::validate(&document, &types()) {
            Ok(_) => Vec::new(),
            Err(problems) => problems
                .into_iter()
                .map(|problem| problem.to_string().replacen("/nodes/0/config", "", 1))
                .collect(),
        }
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

    #[test]
    fn only_an_unescaped_opening_makes_a_text_computed() {
        assert!(is_computed_text("a ${{ input.x }}"));
        assert!(!is_computed_text("a $${{ input.x }}"));
        assert!(is_computed(&json!({"a": [1, "${{ 2 }}"]})));
        assert!(!is_computed(&json!({"a": [1, "{{ 2 }}"]})));
    }
}
