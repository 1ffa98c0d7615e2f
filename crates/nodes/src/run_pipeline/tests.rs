//! Calls of `run_pipeline`, by agents and by `tool` nodes, with the runs that they start.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gathering_agents::{
    ChatModel, ChatReply, ChatRequest, FinishReason, Message, ModelError, Providers, ToolCall, Usage,
};
use gathering_dag_engine::testing::MemoryStore;
use gathering_dag_engine::{
    DriveEnd, Engine, EngineSettings, JournalEvent, NewChild, NewRun, NodeTypes, RunStore, Signals,
    SystemClock,
};
use gathering_domain::{Digest, InstanceId, ProjectId, RunEvent, RunId};
use gathering_tools::{Outbound, OutboundPolicy};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::testing::{OneDirectory, problems, tools, without_secrets};
use crate::{AgentNode, AgentSpec, ToolNode, ToolNodeSpec};

/// A model that gives its replies in their order, each a list of calls or the final text.
struct Replies {
    replies: Vec<Result<Vec<Value>, &'static str>>,
    n_calls: AtomicUsize,
}

#[async_trait]
impl ChatModel for Replies {
    fn provider(&self) -> &str {
        "replies"
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        self.n_calls.fetch_add(1, Ordering::SeqCst);
        let is_reply = |message: &&Message| matches!(message, Message::Assistant { .. });
        let nth = request.messages.iter().filter(is_reply).count();
        let call = |params: &Value| ToolCall {
            id: params.to_string(),
            name: RUN_PIPELINE.to_owned(),
            arguments: params.clone(),
        };
        let (content, tool_calls) = match &self.replies[nth] {
            Ok(calls) => (String::new(), calls.iter().map(call).collect()),
            Err(text) => ((*text).to_owned(), Vec::new()),
        };
        let (provider, model) = ("replies".to_owned(), "none".to_owned());
        let finish_reason = FinishReason::Stop;
        Ok(ChatReply { content, tool_calls, usage: Usage::default(), finish_reason, provider, model })
    }
}

/// The pipelines of a project: `twice` doubles `n`, `fails` fails, and there is no other.
struct Pipelines {
    store: MemoryStore,
    twice: PipelineId,
    fails: PipelineId,
    asked: Mutex<Vec<ChildPipeline>>,
}

#[async_trait]
impl ChildPipelines for Pipelines {
    async fn start(&self, child: ChildPipeline) -> Result<(), StartPipelineError> {
        self.asked.lock().unwrap().push(child.clone());
        let definition = match child.pipeline {
            id if id == self.twice => {
                json!({"nodes": [{"id": "t", "type": "trigger"}], "output": "input.n * 2"})
            }
            id if id == self.fails => {
                json!({"nodes": [{"id": "f", "type": "fail", "config": {"message": "no luck"}}]})
            }
            other => return Err(StartPipelineError::Missing(other)),
        };
        if child.pipeline == self.twice && !child.input["n"].is_number() {
            let problems = Problems::one(Pointer::root().join("input").join("n"), "must be of type number");
            return Err(StartPipelineError::InvalidInput(child.pipeline, problems));
        }
        let graph = Digest::of_json(&definition);
        ChildRuns::ensure_graph(&self.store, graph, &definition).await?;
        let (item, input) = (child.item, child.input);
        let new = NewChild { item, graph, input, pipeline: None, deadline_at: None, permit: None };
        Ok(ChildRuns::start(&self.store, &child.parent, child.kind, vec![new], &child.earlier_runs).await?)
    }
}

/// An engine on a store in memory, whose agents get their replies from a [`Replies`].
struct Bench {
    store: MemoryStore,
    pipelines: Arc<Pipelines>,
    model: Arc<Replies>,
    engine: Engine,
    stop: CancellationToken,
    service: JoinHandle<()>,
}

impl Bench {
    fn new(replies: impl Fn(PipelineId, PipelineId) -> Vec<Result<Vec<Value>, &'static str>>) -> Self {
        let store = MemoryStore::new(Arc::new(SystemClock));
        let (twice, fails) = (PipelineId::new(), PipelineId::new());
        let pipelines = Arc::new(Pipelines { store: store.clone(), twice, fails, asked: Mutex::default() });
        let model = Arc::new(Replies { replies: replies(twice, fails), n_calls: AtomicUsize::new(0) });
        let mut providers = Providers::new();
        providers.register(Arc::clone(&model) as Arc<dyn ChatModel>);
        let tools = tools(&Outbound::new(OutboundPolicy::public_only()).unwrap());
        let files = Arc::new(OneDirectory::new(std::env::temp_dir()));
        let agent = AgentNode::new(providers.clone(), tools.clone(), files.clone())
            .with_pipelines(pipelines.clone(), Arc::new(store.clone()));
        let tool =
            ToolNode::new(tools.clone(), files).with_pipelines(pipelines.clone(), Arc::new(store.clone()));
        let types = NodeTypes::builtin()
            .with_parts("agent", AgentSpec::new(providers, tools.clone()), without_secrets(agent))
            .with_parts("tool", ToolNodeSpec::new(tools), without_secrets(tool));
        let settings = EngineSettings::default();
        let (engine, service) = Engine::new(Arc::new(store.clone()), types, Arc::new(SystemClock), settings);
        let stop = CancellationToken::new();
        let service = tokio::spawn(service.run(stop.clone()));
        Self { store, pipelines, model, engine, stop, service }
    }

    /// Accepts a run with this node.
    async fn accept(&self, node: &Value) -> RunId {
        let definition = json!({"nodes": [node]});
        let (id, graph) = (RunId::new(), Digest::of_json(&definition));
        RunStore::ensure_graph(&self.store, graph, &definition).await.unwrap();
        let (project, input) = (ProjectId::new(), json!({}));
        let new = NewRun { id, project, graph, input, priority: 5, available_at: None, timeout: None };
        self.store.enqueue(new).await.unwrap();
        id
    }

    async fn accept_agent(&self, more: &Value) -> RunId {
        let mut agent = json!({"provider": "replies", "tools": ["run_pipeline"]});
        agent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.accept(&json!({"id": "n", "type": "agent", "config": {"agent": agent, "prompt": "Go."}})).await
    }

    async fn drive(&self, run: RunId) -> DriveEnd {
        let claimed = self.store.claim_run(InstanceId::new(), run).await.unwrap().unwrap();
        self.engine.drive(claimed, Signals::default()).await
    }

    /// Drives a run that waits for child runs, and those, until it ends.
    async fn drive_all(&self, run: RunId) -> DriveEnd {
        loop {
            match self.drive(run).await {
                DriveEnd::Parked => {}
                end => return end,
            }
            for child in self.children(run) {
                self.drive(child).await;
            }
        }
    }

    /// The child runs of a run that have not ended.
    fn children(&self, run: RunId) -> Vec<RunId> {
        let runs = self.store.runs().into_iter();
        runs.filter(|other| other.new.id != run && !other.state.is_terminal())
            .map(|other| other.new.id)
            .collect()
    }

    fn output(&self, run: RunId) -> Value {
        let end = self.store.run(run).unwrap().end.unwrap();
        end.result.output().cloned().unwrap_or_else(|| panic!("{:?}", end.result))["n"].clone()
    }

    /// The results of the calls of an agent, in their order.
    fn results(&self, run: RunId) -> Vec<Value> {
        let output = self.output(run);
        let steps = output["steps"].as_array().unwrap().iter().filter(|step| step["type"] == "tool");
        steps.map(|step| step["output"].clone()).collect()
    }

    async fn end(self) {
        self.stop.cancel();
        self.service.await.unwrap();
    }
}

fn run(pipeline: PipelineId, input: &Value) -> Value {
    json!({ "pipeline_id": pipeline, "input": input })
}

#[tokio::test]
async fn an_agent_waits_parked_for_its_pipelines_and_pays_for_nothing_twice() {
    let bench = Bench::new(|twice, fails| {
        let both = vec![run(twice, &json!({"n": 4})), run(fails, &json!({}))];
        vec![Ok(both), Ok(vec![run(twice, &json!({"n": 5}))]), Err("Done.")]
    });
    let id = bench.accept_agent(&json!({})).await;
    assert_eq!(bench.drive(id).await, DriveEnd::Parked);
    assert_eq!(bench.children(id).len(), 2, "both calls of the reply run side by side");
    assert_eq!(bench.drive_all(id).await, DriveEnd::Ended(RunEvent::Succeeded));
    let results = bench.results(id);
    assert_eq!((&results[0]["output"], &results[2]["output"]), (&json!(8), &json!(10)), "{results:?}");
    assert_eq!(results[1]["error"]["kind"], "child_failed");
    let message = results[1]["error"]["message"].as_str().unwrap();
    assert!(message.contains("failed") && message.ends_with("no luck"), "{message}");
    assert_eq!(bench.model.n_calls.load(Ordering::SeqCst), 3);
    assert_eq!(bench.store.runs().len(), 4);
    bench.end().await;
}

#[tokio::test]
async fn an_agent_that_is_taken_over_finds_the_run_that_it_started() {
    let bench = Bench::new(|twice, _| vec![Ok(vec![run(twice, &json!({"n": 4}))]), Err("Done.")]);
    let id = bench.accept_agent(&json!({})).await;
    let first = InstanceId::new();
    let claimed = bench.store.claim_run(first, id).await.unwrap().unwrap();
    let signals = Signals::default();
    let fence = signals.fence.clone();
    let crash = async {
        while bench.children(id).is_empty() {
            tokio::task::yield_now().await;
        }
        fence.cancel();
    };
    tokio::join!(bench.engine.drive(claimed, signals), crash);
    bench.store.kill(first);
    bench.store.recover_dead_instances(20).await.unwrap();
    assert_eq!(bench.drive_all(id).await, DriveEnd::Ended(RunEvent::Succeeded));
    assert_eq!(bench.results(id)[0]["output"], 8);
    assert_eq!(bench.store.runs().len(), 2, "another run was started");
    bench.end().await;
}

#[tokio::test]
async fn a_call_that_cannot_be_made_is_told_to_the_model_with_every_place() {
    let bench = Bench::new(|twice, fails| {
        let calls = vec![
            json!({"pipeline_id": "reports", "inputs": {}}),
            run(fails, &json!({})),
            run(PipelineId::new(), &json!({})),
            run(twice, &json!({"n": "four"})),
        ];
        vec![Ok(calls), Err("Done.")]
    });
    let twice = bench.pipelines.twice;
    let id = bench.accept_agent(&json!({"pipelines": [twice]})).await;
    assert_eq!(bench.drive(id).await, DriveEnd::Ended(RunEvent::Succeeded));
    let results = bench.results(id);
    let error = |nth: usize| results[nth]["error"]["message"].as_str().unwrap();
    assert!(error(0).contains("/inputs") && error(0).contains("/pipeline_id"), "{}", error(0));
    for nth in [1, 2] {
        assert_eq!(results[nth]["error"]["kind"], "invalid_parameters");
        assert!(
            error(nth).contains("/pipeline_id") && error(nth).contains(&twice.to_string()),
            "{}",
            error(nth)
        );
    }
    assert_eq!(results[3]["error"]["kind"], "invalid_input");
    assert!(error(3).contains("/input/n: must be of type number"), "{}", error(3));
    assert_eq!(bench.pipelines.asked.lock().unwrap().len(), 1, "only what is allowed and valid is asked for");
    assert_eq!(bench.store.runs().len(), 1);
    bench.end().await;
}

#[tokio::test]
async fn an_agent_whose_time_is_over_ends_its_runs() {
    let bench = Bench::new(|twice, _| vec![Ok(vec![run(twice, &json!({"n": 4}))]), Err("Done.")]);
    let agent = json!({"provider": "replies", "tools": ["run_pipeline"]});
    let config = json!({"agent": agent, "prompt": "Go."});
    let id = bench.accept(&json!({"id": "n", "type": "agent", "timeout_seconds": 1, "config": config})).await;
    assert_eq!(bench.drive(id).await, DriveEnd::Ended(RunEvent::Failed));
    let events = bench.store.journal(id).into_iter().map(|entry| entry.record.event);
    let failed: Vec<NodeFailure> = events
        .filter_map(|event| if let JournalEvent::Failed(failure) = event { Some(failure) } else { None })
        .collect();
    assert_eq!(failed[0].kind, FailureKind::TimedOut);
    assert_eq!(failed[0].message, "the pipelines that it runs took too long");
    assert!(bench.children(id).is_empty(), "its run goes on");
    bench.end().await;
}

#[tokio::test]
async fn a_tool_node_runs_a_pipeline_and_fails_with_it() {
    let bench = Bench::new(|_, _| Vec::new());
    let node = |params: Value| json!({"id": "n", "type": "tool", "config": {"tool": "run_pipeline", "params": params}});
    let id = bench.accept(&node(run(bench.pipelines.twice, &json!({"n": 4})))).await;
    assert_eq!(bench.drive_all(id).await, DriveEnd::Ended(RunEvent::Succeeded));
    assert_eq!(bench.output(id)["output"], 8);
    for (params, kind) in [
        (run(bench.pipelines.fails, &json!({})), "child_failed"),
        (run(PipelineId::new(), &json!({})), "no_pipeline"),
        (run(bench.pipelines.twice, &json!({})), "invalid_input"),
    ] {
        let id = bench.accept(&node(params)).await;
        assert_eq!(bench.drive_all(id).await, DriveEnd::Ended(RunEvent::Failed));
        let kinds: Vec<String> = bench
            .store
            .journal(id)
            .into_iter()
            .filter_map(|entry| match entry.record.event {
                JournalEvent::Failed(failure) => Some(failure.kind.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(kinds, [kind]);
    }
    bench.end().await;
}

#[test]
fn bad_configs_are_named_at_their_places() {
    let agent = |agent: Value| problems("agent", &json!({"agent": agent, "prompt": "x"}));
    let id = PipelineId::new();
    let fine = json!({"provider": "scripted", "tools": ["run_pipeline"], "pipelines": [id]});
    assert!(agent(fine).is_empty());
    let computed =
        json!({"provider": "scripted", "tools": ["run_pipeline"], "pipelines": ["${{ input.id }}"]});
    assert!(agent(computed).is_empty());
    let unused = json!({"provider": "scripted", "tools": ["now"], "pipelines": [id]});
    assert_eq!(
        agent(unused),
        ["/agent/pipelines: has no effect: `run_pipeline` is not one of the agent's tools"]
    );
    let params = json!({"pipeline_id": "reports", "more": 1});
    let found = problems("tool", &json!({"tool": "run_pipeline", "params": params}));
    let places: Vec<&str> = found.iter().filter_map(|problem| problem.split(": ").next()).collect();
    assert_eq!(places, ["/params/more", "/params/pipeline_id"]);
    let secret = json!({"pipeline_id": id, "input": {"token": "${{ secrets.TOKEN }}"}});
    let found = problems("tool", &json!({"tool": "run_pipeline", "params": secret}));
    assert!(
        found.len() == 1 && found[0].starts_with("/params/input/token: no secret may stand here"),
        "{found:?}"
    );
}
