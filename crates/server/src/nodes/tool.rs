//! `tool {tool, params}`: one call of a tool.

use std::sync::Arc;

use async_trait::async_trait;
use gathering_dag_engine::{Attempt, Fields, NodeFailure, NodeType, Outcome, Shape};
use gathering_tools::{ToolError, Toolbox};
use serde_json::{Map, Value, json};

use super::{ProjectFiles, add_problems_below, failure_of_tool, is_computed_text, tool_context};

/// The node type `tool`; its output is the tool's.
pub struct ToolNode {
    tools: Toolbox,
    files: Arc<dyn ProjectFiles>,
}

impl ToolNode {
    /// Calls `tools` with the files of the run's project.
    pub fn new(tools: Toolbox, files: Arc<dyn ProjectFiles>) -> Self {
        Self { tools, files }
    }
}

#[async_trait]
impl NodeType for ToolNode {
    fn check(&self, config: &mut Fields<'_>) {
        let tool = config.required("tool", Shape::Text).and_then(Value::as_str);
        let params = config.optional("params", Shape::Object);
        let Some(tool) = tool.filter(|tool| !is_computed_text(tool)) else { return };
        let none = Value::Object(Map::new());
        let params = match params {
            // Computed as a whole, or not fitting, which was said already.
            Some(Value::String(_)) => return,
            None if config.has("params") => return,
            Some(params) => params,
            None => &none,
        };
        match self.tools.check(tool, params) {
            Ok(()) => {}
            Err(ToolError::InvalidParameters(found)) => add_problems_below(config, "params", params, found),
            Err(error) => config.problem("tool", error.to_string()),
        }
    }

    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let tool = attempt.config["tool"].as_str().unwrap_or_default().to_owned();
        let params = match attempt.config.get("params") {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(params) => params.clone(),
        };
        let failed = |error: ToolError| failure_of_tool(&error);
        self.tools.check(&tool, &params).map_err(failed)?;
        let class = self.tools.class_of(&tool, &params).map_err(failed)?;
        let context = tool_context(self.files.open(attempt.project).await?, attempt.idempotency_key());
        let request = json!({"tool": tool, "params": params});
        let call = || async { self.tools.call(&tool, params, &context).await.map_err(failed) };
        attempt.effects.once("tool", class, &request, call).await.map(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::problems;

    #[test]
    fn a_tool_that_is_not_there_is_named_with_those_that_are() {
        let found = problems("tool", &json!({"tool": "fly", "params": {}}));
        assert!(found[0].starts_with("/tool: no tool is named `fly`; there are: http_request"), "{found:?}");
    }

    #[test]
    fn parameters_that_do_not_fit_are_named_at_their_place() {
        let config = json!({"tool": "write_file", "params": {"content": 1, "mode": "w"}, "extra": 1});
        assert_eq!(
            problems("tool", &config),
            [
                "/params/content: must be of type string",
                "/params/mode: is unknown here",
                "/params/path: is required",
                "/extra: is not known here: the fields are tool, params"
            ]
        );
        assert_eq!(problems("tool", &json!({"tool": "read_file"})), ["/params/path: is required"]);
    }

    #[test]
    fn what_is_computed_is_judged_when_it_is_known() {
        for params in
            [json!("${{ input }}"), json!({"path": "${{ input.path }}", "max_bytes": "${{ 1 + 1 }}"})]
        {
            let found = problems("tool", &json!({"tool": "read_file", "params": params}));
            assert!(found.is_empty(), "{found:?}");
        }
        let partly = json!({"tool": "read_file", "params": {"path": "${{ input.path }}", "max_bytes": 0}});
        assert_eq!(problems("tool", &partly), ["/params/max_bytes: must be at least 1"]);
    }
}
