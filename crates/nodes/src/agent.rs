//! `agent {agent, prompt}`: one prompt's way through a model and its tools, each step recorded.

use std::sync::Arc;

use async_trait::async_trait;
use gathering_agents::{
    AgentDefinition, AgentError, ChatModel, ChatReply, ChatRequest, Conversation, ModelError, Providers,
    StepKey, StepRunner, ToolCall, ToolDescription, ToolResult, Usage, run_agent,
};
use gathering_dag_engine::{
    ActFailed, Attempt, BudgetLedger, EffectClass, Fields, NodeFailure, NodeType, Outcome, PollOutcome, Shape,
};
use gathering_domain::{Amounts, Resource, with_causes};
use gathering_tools::{ToolContext, Toolbox};
use serde_json::{Value, json};

use crate::budget::{CallBudget, CallStop, cost_of_model_call, cost_of_tool_call};
use crate::{NodeServices, ProjectFiles, add_problems_below, is_computed_text, tool_context};

/// The provider that stands for "a model if one is configured, else `scripted`".
const AUTO: &str = "auto";

/// The provider that needs a model's name.
const OPENAI: &str = "openai";

/// The provider that needs nothing.
const SCRIPTED: &str = "scripted";

/// The node type `agent`; its output is `{content, steps, usage, provider, model, finish_reason}`.
pub struct Agent {
    providers: Providers,
    tools: Toolbox,
    files: Arc<dyn ProjectFiles>,
    budgets: Option<Arc<dyn BudgetLedger>>,
}

impl Agent {
    /// Agents that ask `providers` and may be given `tools`, with the files, and for the budget, of the run's project.
    pub fn new(providers: Providers, tools: Toolbox, services: &NodeServices) -> Self {
        Self { providers, tools, files: Arc::clone(&services.files), budgets: services.budgets.clone() }
    }

    /// What the schema of an agent cannot know: the tools and providers of this installation.
    fn check_names(&self, agent: &Value, config: &mut Fields<'_>) {
        let at = config.place("agent");
        let names = agent["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (index, name) in names.iter().enumerate() {
            let Some(name) = name.as_str().filter(|name| !is_computed_text(name)) else { continue };
            if let Err(error) = self.tools.select([name]) {
                config.problems().add(at.join("tools").join(index), error.to_string());
            }
        }
        let known =
            |name: &str| name == AUTO || name == OPENAI || self.providers.names().any(|known| known == name);
        match agent["provider"].as_str() {
            Some(name) if !is_computed_text(name) && !known(name) => {
                let mut names: Vec<&str> = self.providers.names().chain([AUTO, OPENAI]).collect();
                names.sort_unstable();
                names.dedup();
                let name: String = name.chars().take(64).collect();
                let message = format!("there is no provider `{name}`: there are {}", names.join(", "));
                config.problems().add(at.join("provider"), message);
            }
            Some(OPENAI) if agent["model"].as_str().is_none_or(|model| model.trim().is_empty()) => {
                config.problems().add(at.join("model"), "is missing: `openai` needs the name of a model");
            }
            _ => {}
        }
    }

    fn model_of(&self, agent: &AgentDefinition) -> Result<Arc<dyn ChatModel>, NodeFailure> {
        let name = match agent.provider.as_str() {
            AUTO if self.providers.get(OPENAI).is_ok() => OPENAI,
            AUTO => SCRIPTED,
            name => name,
        };
        if name == OPENAI && agent.model.trim().is_empty() {
            let message = "a model is configured, so the agent must name one: set `model`";
            return Err(NodeFailure::permanent("model_missing", message));
        }
        self.providers.get(name).map_err(|error| NodeFailure::permanent("provider", error.to_string()))
    }

    /// Walks through the steps that are recorded, and does the others for as long as `account` can pay.
    async fn walk(&self, attempt: &Attempt, budget: &CallBudget<'_>) -> Result<Value, CallStop> {
        let agent = AgentDefinition::parse(&attempt.config["agent"]).map_err(|problems| {
            NodeFailure::permanent("config", format!("the agent is not usable: {problems}"))
        })?;
        let prompt = match &attempt.config["prompt"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let model = self.model_of(&agent)?;
        let tools = self
            .tools
            .select(agent.tools.iter().map(String::as_str))
            .map_err(|error| NodeFailure::permanent(error.kind(), error.to_string()))?;
        let descriptions = tools.list().map(ToolDescription::from).collect();
        let context = if agent.tools.is_empty() {
            ToolContext::new()
        } else {
            tool_context(self.files.open(attempt.project).await?, attempt.idempotency_key())
        };
        let recorded = Recorded { budget, model, tools, context, key: attempt.idempotency_key() };
        let outcome = run_agent(Conversation::new(&agent, descriptions, prompt), &recorded).await;
        Ok(to_json(&outcome.map_err(failure_of)?)?)
    }
}

#[async_trait]
impl NodeType for Agent {
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

    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let walked = self.walk(&attempt, &CallBudget::of(self.budgets.as_deref(), &attempt)).await;
        walked.map(Outcome::Done).or_else(CallStop::into_outcome)
    }

    async fn poll(&self, attempt: Attempt) -> Result<PollOutcome, NodeFailure> {
        let budget = CallBudget::of(self.budgets.as_deref(), &attempt).only_looking();
        budget.poll(self.walk(&attempt, &budget).await.err())
    }
}

fn failure_of(error: AgentError<CallStop>) -> CallStop {
    let failure = match error {
        AgentError::Step { source: stopped @ CallStop::Waits { .. }, .. } => return stopped,
        AgentError::Step { key, source: CallStop::Failed(failure) } => {
            NodeFailure { message: format!("step {key}: {}", failure.message), ..failure }
        }
        AgentError::Stopped { limit, .. } => {
            NodeFailure::permanent(format!("limit_{limit}"), error.to_string())
        }
        AgentError::OutOfTurn(error) => NodeFailure::permanent("internal", error.to_string()),
    };
    failure.into()
}

/// Does each step once per run: what the journal holds already is not done, or paid, again.
struct Recorded<'a> {
    budget: &'a CallBudget<'a>,
    model: Arc<dyn ChatModel>,
    tools: Toolbox,
    context: ToolContext,
    key: String,
}

#[async_trait]
impl StepRunner for Recorded<'_> {
    type Error = CallStop;

    async fn call_model(&self, key: &StepKey, request: &ChatRequest) -> Result<ChatReply, CallStop> {
        let asked = to_json(request)?;
        // Asking again changes nothing in the world, though it costs: so only what is not done is asked again.
        let ask = |bounded: Vec<Resource>| async move {
            // Where tokens are bounded, so must be the answer.
            let request = request.clone();
            let request = if bounded.contains(&Resource::Tokens) { request.bounded() } else { request };
            Ok(to_json(&self.model.complete(&request).await.map_err(|error| model_failed(&error))?)?)
        };
        let worst = cost_of_model_call(request.worst_usage());
        let used = |reply: &Value| {
            let usage = serde_json::from_value(reply["usage"].clone()).unwrap_or_default();
            // A provider that does not say what it used may have used everything.
            if usage == Usage::default() { worst.clone() } else { cost_of_model_call(usage) }
        };
        let reply = self.budget.once((key.as_str(), EffectClass::Pure, &asked), &worst, ask, used).await?;
        Ok(from_json(reply)?)
    }

    /// An unknown tool, bad parameters or a failure is what the model is told, so that it can do better.
    async fn call_tool(&self, key: &StepKey, call: &ToolCall) -> Result<ToolResult, CallStop> {
        let class = self.tools.class_of(&call.name, &call.arguments).unwrap_or(EffectClass::Pure);
        let mut context = self.context.clone();
        context.idempotency_key = Some(format!("{}/{key}", self.key));
        let asked = json!({"tool": call.name, "params": call.arguments});
        let act = |_| async move {
            let result: ToolResult =
                self.tools.call(&call.name, call.arguments.clone(), &context).await.into();
            Ok(to_json(&result)?)
        };
        let cost = cost_of_tool_call();
        let used = |result: &Value| if was_called(result) { cost.clone() } else { Amounts::new() };
        let result = self.budget.once((key.as_str(), class, &asked), &cost, act, used).await?;
        Ok(from_json(result)?)
    }
}

/// Whether there was a tool that could be called like that.
fn was_called(result: &Value) -> bool {
    let kind = result["content"]["error"]["kind"].as_str().unwrap_or_default();
    result["is_error"] != true || !["unknown_tool", "invalid_parameters"].contains(&kind)
}

fn from_json<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, NodeFailure> {
    serde_json::from_value(value).map_err(|error| NodeFailure::permanent("internal", error.to_string()))
}

fn to_json(value: &(impl serde::Serialize + Sync)) -> Result<Value, NodeFailure> {
    serde_json::to_value(value).map_err(|error| NodeFailure::permanent("internal", error.to_string()))
}

fn model_failed(error: &ModelError) -> ActFailed {
    let message = with_causes(error);
    let failure = if error.is_retryable() {
        NodeFailure::retryable(error.kind(), message)
    } else {
        NodeFailure::permanent(error.kind(), message)
    };
    if error.may_have_taken_place() { failure.into() } else { ActFailed::before_it_took_place(failure) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use gathering_dag_engine::testing::MemoryStore;
    use gathering_dag_engine::{
        DriveEnd, Engine, EngineSettings, JournalEvent, NewRun, RunStore, Signals, SystemClock,
    };
    use gathering_domain::{Digest, InstanceId, RunEvent, RunId};
    use gathering_tools::{BlockingPool, Outbound, OutboundPolicy};
    use tokio::sync::Notify;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::tests::problems;

    #[test]
    fn every_bad_field_is_named_at_its_place() {
        let config = json!({
            "agent": {"provider": "oracle", "temperature": 3, "tools": ["read_file", "fly"], "limits": {"max_steps": 0}},
            "promt": "x"
        });
        let found = problems("agent", &config);
        let places: Vec<&str> = found.iter().filter_map(|problem| problem.split(": ").next()).collect();
        assert_eq!(
            places,
            [
                "/agent/limits/max_steps",
                "/agent/temperature",
                "/agent/tools/1",
                "/agent/provider",
                "/prompt",
                "/promt"
            ]
        );
    }

    #[test]
    fn a_provider_that_is_known_but_not_configured_is_no_problem_of_the_definition() {
        for agent in [
            json!({"provider": "openai", "model": "m"}),
            json!({"provider": "scripted"}),
            json!({"provider": "auto", "temperature": "${{ input.t }}", "tools": "${{ input.tools }}"}),
            json!({"provider": "${{ input.provider }}", "model": "${{ input.model }}"}),
        ] {
            let found = problems("agent", &json!({"agent": agent, "prompt": "${{ input.prompt }}"}));
            assert!(found.is_empty(), "{found:?}");
        }
        let found = problems("agent", &json!({"agent": {"provider": "openai"}, "prompt": "x"}));
        assert_eq!(found, ["/agent/model: is missing: `openai` needs the name of a model"]);
    }

    fn provider_of(agent: &Value) -> Result<String, NodeFailure> {
        let outbound =
            gathering_tools::Outbound::new(gathering_tools::OutboundPolicy::public_only()).unwrap();
        let tools = Toolbox::with_builtin(&outbound, gathering_tools::BlockingPool::new(1)).unwrap();
        let node = Agent::new(Providers::with_scripted(), tools, &NodeServices::none());
        node.model_of(&AgentDefinition::parse(agent).unwrap()).map(|model| model.provider().to_owned())
    }

    #[test]
    fn only_auto_falls_back_to_the_script() {
        assert_eq!(provider_of(&json!({"provider": "auto"})).unwrap(), "scripted");
        let failure = provider_of(&json!({"provider": "openai", "model": "m"})).unwrap_err();
        assert!(!failure.retryable && failure.message.contains("OPENAI_BASE_URL"), "{failure:?}");
    }

    /// Counts the calls of a scripted model; the one of this number never gets its answer.
    struct Counted {
        script: gathering_agents::Scripted,
        n_calls: AtomicUsize,
        lost: usize,
        reached_it: Notify,
    }

    #[async_trait]
    impl ChatModel for Counted {
        fn provider(&self) -> &str {
            "scripted"
        }

        async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
            if self.n_calls.fetch_add(1, Ordering::SeqCst) + 1 == self.lost {
                self.reached_it.notify_one();
                std::future::pending::<()>().await;
            }
            self.script.complete(request).await
        }
    }

    struct InDirectory(std::path::PathBuf);

    #[async_trait]
    impl ProjectFiles for InDirectory {
        async fn open(
            &self,
            _: gathering_domain::ProjectId,
        ) -> Result<gathering_tools::Workspace, NodeFailure> {
            Ok(gathering_tools::Workspace::open(&self.0, BlockingPool::new(1)).await.unwrap())
        }
    }

    #[tokio::test]
    async fn no_step_is_paid_twice_when_an_agent_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let script = gathering_agents::Scripted::from_prompt();
        let model =
            Arc::new(Counted { script, n_calls: AtomicUsize::new(0), lost: 2, reached_it: Notify::new() });
        let mut providers = Providers::new();
        providers.register(Arc::clone(&model) as Arc<dyn ChatModel>);
        let outbound = Outbound::new(OutboundPolicy::public_only()).unwrap();
        let tools = Toolbox::with_builtin(&outbound, BlockingPool::new(1)).unwrap();
        let files: Arc<dyn ProjectFiles> = Arc::new(InDirectory(directory.path().to_owned()));
        let services = NodeServices { files, ..NodeServices::none() };
        let types = crate::node_types(&outbound, &tools, &providers, &services);
        let memory = MemoryStore::new(Arc::new(SystemClock));
        let settings = EngineSettings::default();
        let (engine, service) = Engine::new(Arc::new(memory.clone()), types, Arc::new(SystemClock), settings);
        let stop = CancellationToken::new();
        let service = tokio::spawn(service.run(stop.clone()));

        let instructions = "scripted: call write_file {\"path\": \"a.md\", \"content\": \"x\"}";
        let agent = json!({"provider": "scripted", "instructions": instructions, "tools": ["write_file"]});
        let config = json!({"agent": agent, "prompt": "One sentence. Another one."});
        let definition = json!({"nodes": [{"id": "writer", "type": "agent", "config": config}]});
        let run = start(&memory, &definition).await;

        let (first, second) = (InstanceId::new(), InstanceId::new());
        let claimed = memory.claim_run(first, run).await.unwrap().unwrap();
        let signals = Signals::default();
        let fence = signals.fence.clone();
        let crash = async {
            model.reached_it.notified().await;
            // The tool's result is durable before the second question is asked, or a moment later: wait for it.
            while !memory.journal(run).iter().any(|entry| is_done(&entry.record.event, "tool/1/0")) {
                tokio::task::yield_now().await;
            }
            fence.cancel();
        };
        tokio::join!(engine.drive(claimed, signals), crash);
        std::fs::remove_file(directory.path().join("a.md")).unwrap();
        memory.kill(first);
        memory.recover_dead_instances(20).await.unwrap();
        let claimed = memory.claim_run(second, run).await.unwrap().unwrap();
        let end = engine.drive(claimed, Signals::default()).await;
        stop.cancel();
        service.await.unwrap();

        assert_eq!(end, DriveEnd::Ended(RunEvent::Succeeded));
        assert_eq!(model.n_calls.load(Ordering::SeqCst), 3, "the first question once, the lost one twice");
        assert!(!directory.path().join("a.md").exists(), "the tool was called again");
    }

    fn is_done(event: &JournalEvent, effect: &str) -> bool {
        matches!(event, JournalEvent::EffectDone { key, .. } if key == effect)
    }

    async fn start(store: &MemoryStore, definition: &Value) -> RunId {
        let (id, graph) = (RunId::new(), Digest::of_json(definition));
        store.ensure_graph(graph, definition).await.unwrap();
        let run = NewRun {
            id,
            project: gathering_domain::ProjectId::new(),
            graph,
            input: json!({}),
            priority: 5,
            available_at: None,
            timeout: None,
        };
        store.enqueue(run).await.unwrap();
        id
    }
}
