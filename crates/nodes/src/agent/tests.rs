//! Agent nodes: their configs, and their steps across a take-over.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gathering_agents::{ChatReply, ChatRequest, ModelError, Scripted, ToolCall};
use gathering_dag_engine::testing::MemoryStore;
use gathering_dag_engine::{
    DriveEnd, Engine, EngineSettings, JournalEvent, NewRun, NodeTypes, RunStore, Signals, SystemClock,
};
use gathering_domain::{Digest, InstanceId, ProjectId, RunEvent, RunId};
use gathering_tools::{Outbound, OutboundPolicy};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::testing::{OneDirectory, problems, tools, without_secrets};

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
fn a_known_provider_needs_no_configuration_to_be_valid() {
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

#[test]
fn a_node_names_a_stored_agent_or_has_one_of_its_own() {
    let id = gathering_domain::AgentId::new();
    for good in
        [json!({"agent_id": id, "prompt": "x"}), json!({"agent_id": "${{ input.agent }}", "prompt": "x"})]
    {
        assert!(problems("agent", &good).is_empty(), "{good}");
    }
    let both = json!({"agent_id": id, "agent": {"provider": "scripted"}, "prompt": "x"});
    assert_eq!(problems("agent", &both), ["/agent: has no effect beside `agent_id`: remove one of them"]);
    let found = problems("agent", &json!({"agent_id": "clerk", "prompt": "x"}));
    assert!(found.len() == 1 && found[0].starts_with("/agent_id: "), "{found:?}");
    assert_eq!(problems("agent", &json!({"prompt": "x"})), ["/agent: is missing: it must be an object"]);
}

#[test]
fn an_agent_with_a_schema_has_an_output() {
    let spec = AgentSpec::new(
        Providers::with_scripted(),
        tools(&Outbound::new(OutboundPolicy::public_only()).unwrap()),
    );
    let has_output = |config: Value| {
        gathering_dag_engine::NodeSpec::output_fields(&spec, &config).unwrap().contains(&"output")
    };
    assert!(has_output(json!({"agent": {"output_schema": {"type": "object"}}})));
    assert!(!has_output(json!({"agent": {"output_schema": null}})));
    assert!(has_output(json!({"agent_id": "a"})), "nobody knows before the run");
}

#[test]
fn a_definition_by_itself_has_no_expressions() {
    let spec = AgentSpec::new(
        Providers::with_scripted(),
        tools(&Outbound::new(OutboundPolicy::public_only()).unwrap()),
    );
    let literal = json!({"provider": "scripted", "instructions": "Say ${{ input.x }}."});
    assert_eq!(spec.read(&literal).unwrap().instructions, "Say ${{ input.x }}.");
    let computed = json!({"provider": "${{ input.provider }}", "tools": ["${{ input.tool }}"]});
    let problems = spec.read(&computed).unwrap_err();
    let places: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
    assert_eq!(places, ["/tools/0", "/provider"]);
}

fn provider_of(agent: &Value) -> Result<String, NodeFailure> {
    let tools = tools(&Outbound::new(OutboundPolicy::public_only()).unwrap());
    let node = AgentNode::new(Providers::with_scripted(), tools, Arc::new(OneDirectory::new("/nonexistent")));
    node.model_of(&AgentDefinition::parse(agent).unwrap()).map(|model| model.provider().to_owned())
}

#[test]
fn only_auto_falls_back_to_scripted() {
    assert_eq!(provider_of(&json!({"provider": "auto"})).unwrap(), "scripted");
    let failure = provider_of(&json!({"provider": "openai", "model": "m"})).unwrap_err();
    assert!(!failure.retryable && failure.message.contains("OPENAI_BASE_URL"), "{failure:?}");
}

/// A scripted model that counts its calls. The call of the number `lost` never returns.
struct Counted {
    script: Scripted,
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

#[tokio::test]
async fn no_step_is_paid_twice_when_an_agent_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let script = Scripted::from_prompt();
    let model =
        Arc::new(Counted { script, n_calls: AtomicUsize::new(0), lost: 2, reached_it: Notify::new() });
    let mut providers = Providers::new();
    providers.register(Arc::clone(&model) as Arc<dyn ChatModel>);
    let memory = MemoryStore::new(Arc::new(SystemClock));
    let types = agents(providers, directory.path());
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
        // The tool's result may become durable only after the second call of the model starts.
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
    assert_eq!(model.n_calls.load(Ordering::SeqCst), 3, "the first call once, the lost one twice");
    assert!(!directory.path().join("a.md").exists(), "the tool was called twice");
}

#[tokio::test]
async fn a_model_is_told_where_its_arguments_are_not_json_and_nothing_is_executed() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = json!("{\"path\": \"a.md\", \"content\": \"x}");
    let call = ToolCall { id: "c0".to_owned(), name: "write_file".to_owned(), arguments };
    let mut providers = Providers::new();
    providers.register(Arc::new(Scripted::tools_then([vec![call]], "done")));
    let memory = MemoryStore::new(Arc::new(SystemClock));
    let types = agents(providers, directory.path());
    let settings = EngineSettings::default();
    let (engine, service) = Engine::new(Arc::new(memory.clone()), types, Arc::new(SystemClock), settings);
    let stop = CancellationToken::new();
    let service = tokio::spawn(service.run(stop.clone()));
    let agent = json!({"provider": "scripted", "tools": ["write_file"]});
    let config = json!({"agent": agent, "prompt": "Write."});
    let run = start(&memory, &json!({"nodes": [{"id": "writer", "type": "agent", "config": config}]})).await;
    let claimed = memory.claim_run(InstanceId::new(), run).await.unwrap().unwrap();
    assert_eq!(engine.drive(claimed, Signals::default()).await, DriveEnd::Ended(RunEvent::Succeeded));
    stop.cancel();
    service.await.unwrap();
    let journal = memory.journal(run);
    let mut results = journal.iter().filter_map(|entry| match &entry.record.event {
        JournalEvent::EffectDone { key, result } if key == "tool/1/0" => Some(result.to_string()),
        _ => None,
    });
    let result = results.next().unwrap();
    assert!(result.contains("the arguments are not JSON") && result.contains("line 1 column 31"), "{result}");
    assert!(!directory.path().join("a.md").exists());
}

/// A model that wants no request for a minute.
struct Limited;

#[async_trait]
impl ChatModel for Limited {
    fn provider(&self) -> &str {
        "limited"
    }

    async fn complete(&self, _request: &ChatRequest) -> Result<ChatReply, ModelError> {
        let retry_after = Some(Duration::from_secs(60));
        Err(ModelError::RateLimited { provider: "limited".to_owned(), retry_after })
    }
}

#[tokio::test]
async fn an_agent_is_retried_when_its_provider_wants_requests_again() {
    let mut providers = Providers::new();
    providers.register(Arc::new(Limited));
    let memory = MemoryStore::new(Arc::new(SystemClock));
    let types = agents(providers, Path::new("/nonexistent"));
    let settings = EngineSettings::default();
    let (engine, service) = Engine::new(Arc::new(memory.clone()), types, Arc::new(SystemClock), settings);
    let stop = CancellationToken::new();
    let service = tokio::spawn(service.run(stop.clone()));
    let config = json!({"agent": {"provider": "limited", "model": "m"}, "prompt": "Write."});
    let retry = json!({"max_attempts": 2, "initial_backoff_ms": 10});
    let node = json!({"id": "writer", "type": "agent", "config": config, "retry": retry});
    let run = start(&memory, &json!({"nodes": [node]})).await;
    let claimed = memory.claim_run(InstanceId::new(), run).await.unwrap().unwrap();
    assert_eq!(engine.drive(claimed, Signals::default()).await, DriveEnd::Parked);
    stop.cancel();
    service.await.unwrap();
    let journal = memory.journal(run);
    let mut waits = journal.iter().filter_map(|entry| match &entry.record.event {
        JournalEvent::Retrying { until, .. } => Some(*until - entry.at),
        _ => None,
    });
    let wait = waits.next().unwrap().to_std().unwrap();
    assert!((59..=60).contains(&wait.as_secs()), "{wait:?}");
}

/// The types of nodes, with agents of these providers that work in this directory.
fn agents(providers: Providers, directory: &Path) -> NodeTypes {
    let tools = tools(&Outbound::new(OutboundPolicy::public_only()).unwrap());
    let agent = AgentNode::new(providers.clone(), tools.clone(), Arc::new(OneDirectory::new(directory)));
    NodeTypes::builtin().with_parts("agent", AgentSpec::new(providers, tools), without_secrets(agent))
}

fn is_done(event: &JournalEvent, effect: &str) -> bool {
    matches!(event, JournalEvent::EffectDone { key, .. } if key == effect)
}

async fn start(store: &MemoryStore, definition: &Value) -> RunId {
    let (id, graph) = (RunId::new(), Digest::of_json(definition));
    RunStore::ensure_graph(store, graph, definition).await.unwrap();
    let run = NewRun {
        id,
        project: ProjectId::new(),
        graph,
        input: json!({}),
        priority: 5,
        available_at: None,
        timeout: None,
    };
    store.enqueue(run).await.unwrap();
    id
}
