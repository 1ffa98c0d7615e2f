//! The loop without a provider: its limits, its keys and its replay.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use gathering_agents::{
    AgentDefinition, AgentError, AgentOutcome, ChatModel, ChatReply, ChatRequest, Conversation, DirectRunner,
    Limit, ModelError, Scripted, Step, StepKey, StepRunner, ToolCall, ToolDescription, ToolResult, run_agent,
};
use gathering_tools::{BlockingPool, Outbound, OutboundPolicy, ToolContext, Toolbox, Workspace};
use serde_json::{Value, json};
use tokio::sync::Barrier;

fn agent(extra: Value) -> AgentDefinition {
    let mut definition = json!({"provider": "scripted"});
    definition.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    AgentDefinition::parse(&definition).unwrap()
}

fn call(name: &str, arguments: Value) -> ToolCall {
    ToolCall { id: "same".to_owned(), name: name.to_owned(), arguments }
}

fn no_tools() -> Toolbox {
    Toolbox::new(BlockingPool::new(1))
}

async fn run(agent: &AgentDefinition, model: Scripted) -> Result<AgentOutcome, AgentError<ModelError>> {
    let runner = DirectRunner::new(Arc::new(model), no_tools(), ToolContext::new());
    run_agent(Conversation::new(agent, Vec::new(), "Go on."), &runner).await
}

fn stopped_at(ended: Result<AgentOutcome, AgentError<ModelError>>) -> Limit {
    match ended {
        Err(AgentError::Stopped { limit, .. }) => limit,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_limit_stops_the_agent_and_is_named() {
    let endless = || Scripted::tools_then(vec![vec![call("x", json!({})), call("x", json!({}))]; 50], "done");
    let steps = run(&agent(json!({"limits": {"max_steps": 3}})), endless()).await;
    assert_eq!(stopped_at(steps), Limit::Steps);
    let calls = run(&agent(json!({"limits": {"max_tool_calls": 5}})), endless()).await;
    assert_eq!(stopped_at(calls), Limit::ToolCalls);
    let tokens = run(&agent(json!({"limits": {"max_tokens": 20}})), endless()).await;
    assert!(tokens.as_ref().unwrap_err().to_string().contains("max_tokens"), "{tokens:?}");
    assert_eq!(stopped_at(tokens), Limit::Tokens);
    let enough = run(&agent(json!({"limits": {"max_steps": 51, "max_tool_calls": 100}})), endless()).await;
    assert_eq!(enough.unwrap().content, "done");
}

#[tokio::test(start_paused = true)]
async fn the_wall_clock_limit_stops_the_agent() {
    let slow = agent(json!({"instructions": "scripted: wait 60000", "limits": {"timeout_seconds": 30}}));
    assert_eq!(stopped_at(run(&slow, Scripted::from_prompt()).await), Limit::Timeout);
}

#[tokio::test]
async fn a_failing_model_ends_the_agent_and_names_the_step() {
    let error = run(&agent(json!({})), Scripted::replies(Vec::<String>::new())).await.unwrap_err();
    match error {
        AgentError::Step { key, source: ModelError::ScriptEnded { .. } } => {
            assert_eq!(key.as_str(), "model/1")
        }
        other => panic!("{other:?}"),
    }
}

/// A journal around a runner: recorded steps are not performed again.
struct Journaled<'a> {
    inner: Option<&'a DirectRunner>,
    journal: &'a Mutex<BTreeMap<StepKey, Value>>,
}

impl Journaled<'_> {
    fn found<T: serde::de::DeserializeOwned>(&self, key: &StepKey) -> Option<T> {
        let entry = self.journal.lock().unwrap().get(key).cloned();
        entry.map(|entry| serde_json::from_value(entry).unwrap())
    }

    fn record(&self, key: &StepKey, entry: impl serde::Serialize) {
        let entry = serde_json::to_value(entry).unwrap();
        assert!(self.journal.lock().unwrap().insert(key.clone(), entry).is_none(), "{key} came twice");
    }
}

#[derive(Debug, thiserror::Error)]
#[error("crashed")]
struct Crashed;

#[async_trait]
impl StepRunner for Journaled<'_> {
    type Error = Crashed;

    async fn call_model(&self, key: &StepKey, request: &ChatRequest) -> Result<ChatReply, Crashed> {
        if let Some(reply) = self.found(key) {
            return Ok(reply);
        }
        let reply = self.inner.ok_or(Crashed)?.call_model(key, request).await.map_err(|_| Crashed)?;
        self.record(key, &reply);
        Ok(reply)
    }

    async fn call_tool(&self, key: &StepKey, call: &ToolCall) -> Result<ToolResult, Crashed> {
        if let Some(result) = self.found(key) {
            return Ok(result);
        }
        let result = self.inner.ok_or(Crashed)?.call_tool(key, call).await.map_err(|_| Crashed)?;
        self.record(key, &result);
        Ok(result)
    }
}

#[tokio::test]
async fn a_recorded_conversation_replays_to_the_same_outcome_without_any_call() {
    let turns = vec![vec![call("a", json!({})), call("b", json!(1))], vec![call("a", json!({"x": 1}))]];
    let live =
        DirectRunner::new(Arc::new(Scripted::tools_then(turns, "done")), no_tools(), ToolContext::new());
    let journal = Mutex::default();
    let conversation = Conversation::new(&agent(json!({})), Vec::new(), "Go on.");
    let first =
        run_agent(conversation.clone(), &Journaled { inner: Some(&live), journal: &journal }).await.unwrap();
    let again = run_agent(conversation.clone(), &Journaled { inner: None, journal: &journal }).await.unwrap();
    assert_eq!(first, again);
    let keys: Vec<String> = journal.lock().unwrap().keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["model/1", "model/2", "model/3", "tool/1/0", "tool/1/1", "tool/2/0"]);

    // Whatever the crash left of the journal, the missing steps are the next ones.
    journal.lock().unwrap().retain(|key, _| key.as_str() != "tool/2/0" && key.as_str() != "model/3");
    let cut = run_agent(conversation, &Journaled { inner: None, journal: &journal }).await.unwrap_err();
    assert!(matches!(&cut, AgentError::Step { key, .. } if key.as_str() == "tool/2/0"), "{cut:?}");
}

/// Every tool waits for all the others.
struct Together(Barrier, Scripted);

#[async_trait]
impl StepRunner for Together {
    type Error = ModelError;

    async fn call_model(&self, _key: &StepKey, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        self.1.complete(request).await
    }

    async fn call_tool(&self, key: &StepKey, _call: &ToolCall) -> Result<ToolResult, ModelError> {
        self.0.wait().await;
        Ok(ToolResult::success(json!(key.as_str())))
    }
}

#[tokio::test]
async fn a_call_uses_no_more_than_its_worst_case() {
    let prompt = "Aa b c. ".repeat(2000);
    let Step::CallModel(_, request) = Conversation::new(&agent(json!({})), Vec::new(), prompt).next() else {
        panic!("the model comes first")
    };
    let request = request.bounded();
    let worst = request.worst_usage();
    assert_eq!((request.max_tokens, worst.output_tokens), (Some(4096), 4096));
    assert!(worst.input_tokens >= 16_000);
    let reply = Scripted::from_prompt().complete(&request).await.unwrap();
    assert!(reply.usage.total() <= worst.total(), "{:?}", reply.usage);
}

/// The first tool fails at once, the others take longer.
struct FirstFails(Scripted, AtomicUsize);

#[async_trait]
impl StepRunner for FirstFails {
    type Error = ModelError;

    async fn call_model(&self, _key: &StepKey, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        self.0.complete(request).await
    }

    async fn call_tool(&self, key: &StepKey, _call: &ToolCall) -> Result<ToolResult, ModelError> {
        if key.as_str() == "tool/1/0" {
            return Err(ModelError::ScriptEnded { call: 1 });
        }
        tokio::task::yield_now().await;
        self.1.fetch_add(1, Ordering::SeqCst);
        Ok(ToolResult::success(json!("done")))
    }
}

#[tokio::test]
async fn a_tool_that_cannot_be_called_does_not_cut_off_the_others() {
    let model = Scripted::tools_then(vec![vec![call("x", json!({})); 3]], "done");
    let runner = FirstFails(model, AtomicUsize::new(0));
    let failed = run_agent(Conversation::new(&agent(json!({})), Vec::new(), "Go on."), &runner).await;
    assert!(matches!(&failed, Err(AgentError::Step { key, .. }) if key.as_str() == "tool/1/0"), "{failed:?}");
    assert_eq!(runner.1.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_tools_of_one_reply_run_concurrently_and_keep_their_order() {
    let model = Scripted::tools_then(vec![vec![call("x", json!({})); 8]], "done");
    let runner = Together(Barrier::new(8), model);
    let outcome =
        run_agent(Conversation::new(&agent(json!({})), Vec::new(), "Go on."), &runner).await.unwrap();
    let outputs: Vec<Value> = outcome
        .steps
        .iter()
        .filter_map(|step| serde_json::to_value(step).unwrap().get("output").cloned())
        .collect();
    assert_eq!(outputs, (0..8).map(|index| json!(format!("tool/1/{index}"))).collect::<Vec<_>>());
}

#[test]
fn steps_out_of_turn_are_rejected() {
    let mut conversation = Conversation::new(&agent(json!({})), Vec::new(), "Go on.");
    assert!(conversation.after_tools(Vec::new()).is_err());
    assert!(matches!(conversation.next(), Step::CallModel(..)));
    assert_eq!(conversation.next(), conversation.next());
}

#[test]
fn the_last_answer_is_cut_to_the_remaining_budget() {
    let bound = |limits: Value| {
        let agent = agent(json!({"limits": limits}));
        match Conversation::new(&agent, Vec::new(), "Go on.").next() {
            Step::CallModel(_, request) => request.max_tokens,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(bound(json!({"max_tokens": 100})), Some(100));
    assert_eq!(bound(json!({"max_tokens": 100_000})), None);
    assert_eq!(bound(json!({"max_tokens": 100, "max_answer_tokens": 50})), Some(50));
    assert_eq!(bound(json!({"max_tokens": 100, "max_answer_tokens": 200})), Some(100));
    assert_eq!(bound(json!({"max_answer_tokens": 10_000})), Some(10_000));
}

#[tokio::test]
async fn a_scripted_agent_reads_and_writes_and_names_its_provider() {
    let directory = tempfile::tempdir().unwrap();
    let pool = BlockingPool::new(2);
    let workspace = Workspace::open(directory.path(), pool.clone()).await.unwrap();
    let text = "The moon makes tides. Tides move the sea. The sea follows the moon. Soup is hot.";
    workspace.write(&"tides.md".parse().unwrap(), text).await.unwrap();
    let tools = Toolbox::with_builtin(&Outbound::new(OutboundPolicy::public_only()).unwrap(), pool).unwrap();
    let agent = agent(json!({
        "instructions": "scripted: keywords\nscripted: call read_file {\"path\": \"tides.md\"}\n\
                         scripted: call write_file {\"path\": \"out.md\", \"content\": \"$answer\"}",
        "tools": ["read_file", "write_file"]
    }));
    let tools = tools.select(agent.tools.iter().map(String::as_str)).unwrap();
    let described: Vec<ToolDescription> = tools.list().map(ToolDescription::from).collect();
    let context = ToolContext::new().with_workspace(workspace.clone());
    let runner = DirectRunner::new(Arc::new(Scripted::from_prompt()), tools, context);
    let outcome =
        run_agent(Conversation::new(&agent, described, "Keywords, please."), &runner).await.unwrap();
    assert!(outcome.content.contains("- moon (2)"), "{}", outcome.content);
    assert_eq!((outcome.provider.as_str(), outcome.model.as_str()), ("scripted", "scripted"));
    let written = workspace.read(&"out.md".parse().unwrap(), 10_000).await.unwrap();
    assert_eq!(written.bytes, outcome.content.as_bytes());
    assert!(outcome.usage.input_tokens > 0 && outcome.usage.output_tokens > 0);
}

#[tokio::test]
async fn a_scripted_answer_reports_a_failed_tool() {
    let agent = agent(json!({"instructions": "scripted: call nothing_like_it {}"}));
    let outcome = run(&agent, Scripted::from_prompt()).await.unwrap();
    assert!(
        outcome.content.contains("A tool call failed: unknown tool `nothing_like_it`"),
        "{}",
        outcome.content
    );
}
