//! `tool {tool, params}`: one call of a tool.

use std::sync::Arc;

use async_trait::async_trait;
use gathering_dag_engine::{
    Attempt, BudgetLedger, Fields, NodeFailure, NodeType, Outcome, PollOutcome, Shape,
};
use gathering_tools::{ToolError, Toolbox};
use serde_json::{Map, Value, json};

use crate::budget::{CallBudget, CallStop, cost_of_tool_call};
use crate::{
    NodeServices, ProjectFiles, act_failed, add_problems_below, failure_of_tool, is_computed_text,
    tool_context,
};

/// The node type `tool`; its output is the tool's.
pub struct ToolNode {
    tools: Toolbox,
    files: Arc<dyn ProjectFiles>,
    budgets: Option<Arc<dyn BudgetLedger>>,
}

impl ToolNode {
    /// Calls `tools` with the files, and for the budget, of the run's project.
    pub fn new(tools: Toolbox, services: &NodeServices) -> Self {
        Self { tools, files: Arc::clone(&services.files), budgets: services.budgets.clone() }
    }

    async fn call(&self, attempt: &Attempt, budget: &CallBudget<'_>) -> Result<Value, CallStop> {
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
        let call =
            |_| async { self.tools.call(&tool, params, &context).await.map_err(|error| act_failed(&error)) };
        let cost = cost_of_tool_call();
        budget.once(("tool", class, &request), &cost, call, |_| cost.clone()).await
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
        let called = self.call(&attempt, &CallBudget::of(self.budgets.as_deref(), &attempt)).await;
        called.map(Outcome::Done).or_else(CallStop::into_outcome)
    }

    async fn poll(&self, attempt: Attempt) -> Result<PollOutcome, NodeFailure> {
        let budget = CallBudget::of(self.budgets.as_deref(), &attempt).only_looking();
        budget.poll(self.call(&attempt, &budget).await.err())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gathering_agents::Providers;
    use gathering_dag_engine::testing::MemoryStore;
    use gathering_dag_engine::{
        Engine, EngineSettings, JournalEvent, NewRun, RunStore as _, Signals, SystemClock,
    };
    use gathering_domain::{Digest, InstanceId, ProjectId, RunId};
    use gathering_tools::{BlockingPool, Outbound, OutboundPolicy, Workspace};
    use serde_json::json;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::tests::problems;
    use crate::{NodeServices, node_types};

    struct InDirectory(std::path::PathBuf);

    #[async_trait]
    impl ProjectFiles for InDirectory {
        async fn open(&self, _: ProjectId) -> Result<Workspace, NodeFailure> {
            Ok(Workspace::open(&self.0, BlockingPool::new(1)).await.unwrap())
        }
    }

    /// Drives a run whose only node posts to `url`, and may do so three times; answers with the kinds of failure and how
    /// often it posted.
    async fn post(url: &str) -> (Vec<String>, usize) {
        let directory = tempfile::tempdir().unwrap();
        let policy = OutboundPolicy::allowing(["127.0.0.0/8".parse().unwrap()]);
        let outbound = Outbound::new(policy).unwrap();
        let tools = Toolbox::with_builtin(&outbound, BlockingPool::new(1)).unwrap();
        let services = NodeServices {
            files: Arc::new(InDirectory(directory.path().to_owned())),
            ..NodeServices::none()
        };
        let types = node_types(&outbound, &tools, &Providers::with_scripted(), &services);
        let memory = MemoryStore::new(Arc::new(SystemClock));
        let (engine, service) =
            Engine::new(Arc::new(memory.clone()), types, Arc::new(SystemClock), EngineSettings::default());
        let stop = CancellationToken::new();
        let service = tokio::spawn(service.run(stop.clone()));
        let params = json!({"method": "POST", "url": url, "timeout_seconds": 0.3});
        let definition = json!({"nodes": [{
            "id": "post", "type": "tool", "config": {"tool": "http_request", "params": params},
            "retry": {"max_attempts": 3, "initial_backoff_ms": 1},
        }]});
        let (id, graph, project) = (RunId::new(), Digest::of_json(&definition), ProjectId::new());
        memory.ensure_graph(graph, &definition).await.unwrap();
        let input = json!({});
        let new = NewRun { id, project, graph, input, priority: 5, available_at: None, timeout: None };
        memory.enqueue(new).await.unwrap();
        let claimed = memory.claim_run(InstanceId::new(), id).await.unwrap().unwrap();
        engine.drive(claimed, Signals::default()).await;
        stop.cancel();
        service.await.unwrap();
        let mut failures = Vec::new();
        let mut n_posts = 0;
        for entry in memory.journal(id) {
            match entry.record.event {
                JournalEvent::EffectStarted(_) => n_posts += 1,
                JournalEvent::Failed(failure) | JournalEvent::Retrying { failure, .. } => {
                    failures.push(failure.kind);
                }
                _ => {}
            }
        }
        (failures, n_posts)
    }

    #[tokio::test]
    async fn a_post_without_an_answer_is_not_sent_again() {
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
    async fn a_post_that_found_no_connection_is_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        assert_eq!(post(&url).await, (vec!["connection".to_owned(); 3], 3));
    }

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
