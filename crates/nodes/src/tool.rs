//! `tool {tool, params}`: one call of a tool.

use std::sync::Arc;

use async_trait::async_trait;
use gathering_dag_engine::{
    ActFailed, Attempt, BudgetLedger, ChildRuns, EffectClass, Fields, NodeFailure, NodeSpec, Outcome,
    PollOutcome, SecretFields, Shape,
};
use gathering_domain::{FailureKind, McpServerName};
use gathering_tools::{ToolContext, ToolError, Toolbox};
use serde_json::{Map, Value, json};

use crate::budget::{CallBudget, CallStop, cost_of_tool_call};
use crate::child_pipelines::ChildPipelines;
use crate::config::{add_problems_below, is_computed_text};
use crate::failure::{act_failed, failure_of_tool};
use crate::files::ProjectFiles;
use crate::people::People;
use crate::project_tools::{NodeTools, ProjectTools, SameTools, is_not_there};
use crate::run_pipeline::{PipelineCall, PipelineRuns, RUN_PIPELINE};
use crate::secrets::{AttemptSecrets, OutsideNode};

/// The key of the node's only effect.
const EFFECT: &str = "tool";

/// The spec of `tool`.
pub struct ToolNodeSpec {
    tools: Toolbox,
    is_project_known: bool,
}

impl ToolNodeSpec {
    /// A spec that accepts calls of `tools`, and leaves a tool that may be one of a mounted server to the run.
    pub const fn new(tools: Toolbox) -> Self {
        Self { tools, is_project_known: false }
    }

    /// A spec that accepts calls of `tools`, which are all that the project has.
    pub const fn of_project(tools: Toolbox) -> Self {
        Self { tools, is_project_known: true }
    }
}

impl NodeSpec for ToolNodeSpec {
    fn check(&self, config: &mut Fields<'_>) {
        let tool = config.required("tool", Shape::Text).and_then(Value::as_str);
        let params = config.optional("params", Shape::Object);
        let Some(tool) = tool.filter(|tool| !is_computed_text(tool)) else { return };
        let none = Value::Object(Map::new());
        let params = match params {
            // All of it is computed, or it has the wrong type and `optional` has reported it.
            Some(Value::String(_)) => return,
            None if config.has("params") => return,
            Some(params) => params,
            None => &none,
        };
        if self.tools.get(tool).is_none() && McpServerName::of_tool(tool).is_some() {
            if self.is_project_known {
                config.problem("tool", is_not_there(tool));
            }
            return;
        }
        match self.tools.check(tool, params) {
            Ok(()) => {}
            Err(ToolError::InvalidParameters(found)) => add_problems_below(config, "params", params, found),
            Err(error) => config.problem("tool", error.to_string()),
        }
    }

    /// Not in a URL: those are in logs, here and at the receiver. Not in the input of a run, which is stored and shown.
    fn secret_fields(&self, config: &Value) -> SecretFields {
        if config["tool"] == RUN_PIPELINE {
            return SecretFields::default();
        }
        SecretFields { within: &["/params"], except: &["/params/url"] }
    }
}

/// The executor of `tool`; the node's output is the tool's.
pub struct ToolNode {
    tools: NodeTools,
    files: Arc<dyn ProjectFiles>,
    budgets: Option<Arc<dyn BudgetLedger>>,
    pipelines: Option<PipelineRuns>,
    people: People,
}

impl ToolNode {
    /// An executor that calls `tools` with the files of the run's project. No budget bounds its calls.
    pub fn new(tools: Toolbox, files: Arc<dyn ProjectFiles>) -> Self {
        let tools = NodeTools::new(tools.clone(), Arc::new(SameTools(tools)));
        Self { tools, files, budgets: None, pipelines: None, people: People::default() }
    }

    /// The same executor, which calls the tools of the run's project, too.
    #[must_use]
    pub fn with_project_tools(self, tools: Arc<dyn ProjectTools>) -> Self {
        Self { tools: self.tools.with_projects(tools), ..self }
    }

    /// The same executor with calls bounded by `budgets`.
    #[must_use]
    pub fn with_budgets(self, budgets: Arc<dyn BudgetLedger>) -> Self {
        Self { budgets: Some(budgets), ..self }
    }

    /// The same executor, which starts pipelines if the tool is `run_pipeline`.
    #[must_use]
    pub fn with_pipelines(self, pipelines: Arc<dyn ChildPipelines>, children: Arc<dyn ChildRuns>) -> Self {
        Self { pipelines: Some(PipelineRuns::new(pipelines, children)), ..self }
    }

    /// The same executor, whose tools tell these people what they do and ask them what they want to know.
    #[must_use]
    pub fn with_people(self, people: People) -> Self {
        Self { people, ..self }
    }

    /// Starts pipelines for this attempt, if that is its tool.
    fn pipelines_of(&self, attempt: &Attempt) -> Option<&PipelineRuns> {
        self.pipelines.as_ref().filter(|_| attempt.config["tool"] == RUN_PIPELINE)
    }

    /// Runs a pipeline and waits until it has ended.
    async fn run_pipeline(
        &self,
        runs: &PipelineRuns,
        attempt: &Attempt,
        (secrets, budget): (&AttemptSecrets, &CallBudget<'_>),
    ) -> Result<Value, CallStop> {
        if secrets.are_used() {
            let message = "the input of a pipeline must not contain secrets: it is stored and shown";
            return Err(NodeFailure::permanent(FailureKind::Config, message).into());
        }
        let params = &params_of(&attempt.config);
        let tools = self.tools.open(attempt.project, [RUN_PIPELINE]).await?;
        tools.check(RUN_PIPELINE, params).map_err(|error| failure_of_tool(&error))?;
        let request = json!({"tool": RUN_PIPELINE, "params": params});
        let result = if budget.is_done(EFFECT, &request) {
            None
        } else {
            runs.result_of(&PipelineCall { attempt, key: EFFECT, item: 0, params }, budget).await?
        };
        let cost = cost_of_tool_call();
        let act = |_| async {
            // Without a result the effect is done, or this is a poll: then nothing is recorded.
            let mut result = result.unwrap_or(Ok(Value::Null))?;
            secrets.redact(&mut result);
            Ok(tools.bound(result))
        };
        budget.once((EFFECT, EffectClass::Idempotent, &request), &cost, act, |_| cost.clone()).await
    }

    async fn call(
        &self,
        attempt: &Attempt,
        secrets: &AttemptSecrets,
        budget: &CallBudget<'_>,
    ) -> Result<Value, CallStop> {
        if let Some(runs) = self.pipelines_of(attempt) {
            return self.run_pipeline(runs, attempt, (secrets, budget)).await;
        }
        let tool = attempt.config["tool"].as_str().unwrap_or_default().to_owned();
        let params = params_of(&attempt.config);
        let failed = |error: ToolError| failure_of_tool(&error);
        let tools = self.tools.open(attempt.project, [tool.as_str()]).await?;
        // With secrets the call itself checks them: what is known before may not fit.
        if !secrets.are_used() {
            tools.check(&tool, &params).map_err(failed)?;
        }
        let class = tools.class_of(&tool, &params).map_err(failed)?;
        let request = json!({"tool": tool, "params": params});
        let key = attempt.effects.idempotency_key(EFFECT, &request);
        let mut context = ToolContext::new().with_idempotency_key(key);
        if tools.uses_files(&tool) {
            context.workspace = Some(self.files.open(attempt.project).await.map_err(NodeFailure::from)?);
        }
        let context = self.people.of_call(context, attempt, &tool, secrets);
        let call = |_| async {
            let revealed = secrets.reveal(&attempt.config).map_err(ActFailed::before_it_took_place)?;
            let redact = |result: &mut Value| secrets.redact(result);
            let called = tools.call_and_edit(&tool, params_of(&revealed), &context, redact).await;
            called.map_err(|error| act_failed(&error))
        };
        let cost = cost_of_tool_call();
        budget.once((EFFECT, class, &request), &cost, call, |_| cost.clone()).await
    }
}

fn params_of(config: &Value) -> Value {
    match config.get("params") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(params) => params.clone(),
    }
}

#[async_trait]
impl OutsideNode for ToolNode {
    async fn execute(&self, attempt: Attempt, secrets: &AttemptSecrets) -> Result<Outcome, NodeFailure> {
        if let Some(runs) = self.pipelines_of(&attempt) {
            if attempt.is_overdue {
                return Err(runs.give_up(&attempt).await);
            }
            runs.end_earlier_round(&attempt).await?;
        }
        let called = self.call(&attempt, secrets, &CallBudget::of(self.budgets.as_deref(), &attempt)).await;
        called.map(Outcome::Done).or_else(CallStop::into_outcome)
    }

    async fn poll(&self, attempt: Attempt, secrets: &AttemptSecrets) -> Result<PollOutcome, NodeFailure> {
        let budget = CallBudget::of(self.budgets.as_deref(), &attempt).without_calls();
        budget.poll(self.call(&attempt, secrets, &budget).await.err())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gathering_dag_engine::{JournalEvent, NodeTypes};
    use gathering_tools::{Outbound, OutboundPolicy};
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;
    use crate::testing::{OneDirectory, drive, problems, tools, without_secrets};

    /// Drives a run whose only node posts to `url` in at most three attempts; returns the kinds of failure and the number
    /// of posts.
    async fn post(url: &str) -> (Vec<String>, usize) {
        let directory = tempfile::tempdir().unwrap();
        let policy = OutboundPolicy::allowing(["127.0.0.0/8".parse().unwrap()]);
        let outbound = Outbound::new(policy).unwrap();
        let tools = tools(&outbound);
        let files = Arc::new(OneDirectory::new(directory.path()));
        let tool = ToolNode::new(tools.clone(), files);
        let types = NodeTypes::builtin().with_parts("tool", ToolNodeSpec::new(tools), without_secrets(tool));
        let params = json!({"method": "POST", "url": url, "timeout_seconds": 0.3});
        let definition = json!({"nodes": [{
            "id": "post", "type": "tool", "config": {"tool": "http_request", "params": params},
            "retry": {"max_attempts": 3, "initial_backoff_ms": 1},
        }]});
        let mut failures = Vec::new();
        let mut n_posts = 0;
        for event in drive(types, &definition).await {
            match event {
                JournalEvent::EffectStarted(_) => n_posts += 1,
                JournalEvent::Failed(failure) | JournalEvent::Retrying { failure, .. } => {
                    failures.push(failure.kind.to_string());
                }
                _ => {}
            }
        }
        (failures, n_posts)
    }

    #[tokio::test]
    async fn a_post_without_an_answer_is_not_repeated() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let peer = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok(connection) = listener.accept().await {
                held.push(connection);
            }
        });
        let posted = tokio::time::timeout(Duration::from_secs(30), post(&url)).await.unwrap();
        peer.abort();
        assert_eq!(posted, (vec!["effect_unknown".to_owned()], 1));
    }

    #[tokio::test]
    async fn a_post_without_a_connection_is_retried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        assert_eq!(post(&url).await, (vec!["connection".to_owned(); 3], 3));
    }

    #[test]
    fn an_unknown_tool_is_a_problem_that_lists_the_known_ones() {
        let found = problems("tool", &json!({"tool": "fly", "params": {}}));
        assert!(
            found[0].starts_with("/tool: unknown tool `fly`; known tools: edit_file, http_request, "),
            "{found:?}"
        );
    }

    #[test]
    fn every_bad_parameter_is_named_at_its_place() {
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
    fn a_computed_parameter_passes_validation() {
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
