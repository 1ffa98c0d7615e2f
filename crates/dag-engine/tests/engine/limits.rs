//! What a run does with values that are too deep or too large to be stored and handed on: it fails with a clean reason.

use std::sync::Arc;

use async_trait::async_trait;
use gathering_dag_engine::testing::{MemoryStore, StoredRun};
use gathering_dag_engine::{
    Attempt, EffectClass, Engine, EngineSettings, Fields, JournalEvent, MAX_VALUE_BYTES, MAX_VALUE_DEPTH,
    NewRun, NodeExecutor, NodeFailure, NodeRun, NodeSpec, NodeTypes, Outcome, RunStore, Shape, Signals,
    SystemClock,
};
use gathering_domain::{Digest, InstanceId, ProjectId, RunId, RunState};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Its output is a value of so many levels, or so many bytes.
struct Make;

fn made(config: &Value) -> Value {
    let bytes = config["bytes"].as_u64().map_or(1, |bytes| usize::try_from(bytes).unwrap());
    let levels = config["levels"].as_u64().unwrap_or(0);
    (0..levels).fold(json!("x".repeat(bytes)), |inner, _| json!([inner]))
}

impl NodeSpec for Make {
    fn check(&self, config: &mut Fields<'_>) {
        config.optional("levels", Shape::Whole(0, 1000));
        config.optional("bytes", Shape::Whole(0, 1 << 30));
        config.optional("outside", Shape::Bool);
        config.optional("value", Shape::Any);
    }
}

#[async_trait]
impl NodeExecutor for Make {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        if !attempt.config["value"].is_null() {
            return Ok(Outcome::Done(json!("it was handed on")));
        }
        if attempt.config["outside"] == true {
            let act = || async { Ok(made(&attempt.config)) };
            let result = attempt.effects.once("call", EffectClass::Pure, &json!({}), act).await?;
            return Ok(Outcome::Done(json!(result.is_array())));
        }
        Ok(Outcome::Done(made(&attempt.config)))
    }
}

async fn run_on(store: &MemoryStore, definition: &Value, input: Value) -> StoredRun {
    let types = NodeTypes::builtin().with("make", Make).with_map(Arc::new(store.clone()));
    let clock = Arc::new(SystemClock);
    let (engine, service) = Engine::new(Arc::new(store.clone()), types, clock, EngineSettings::default());
    let stop = CancellationToken::new();
    let service = tokio::spawn(service.run(stop.clone()));
    let graph = Digest::of_json(definition);
    RunStore::ensure_graph(store, graph, definition).await.unwrap();
    let (id, project) = (RunId::new(), ProjectId::new());
    store
        .enqueue(NewRun { id, project, graph, input, priority: 5, available_at: None, timeout: None })
        .await
        .unwrap();
    let claimed = store.claim_run(InstanceId::new(), id).await.unwrap().unwrap();
    engine.drive(claimed, Signals::default()).await;
    stop.cancel();
    service.await.unwrap();
    store.run(id).unwrap()
}

async fn run(definition: Value) -> (StoredRun, MemoryStore) {
    let store = MemoryStore::new(Arc::new(SystemClock));
    let run = run_on(&store, &definition, json!({"n": 1})).await;
    (run, store)
}

fn failure_of(run: &StoredRun, store: &MemoryStore, id: &str) -> NodeFailure {
    let mut nodes = NodeRun::fold(&store.journal(run.new.id)).unwrap();
    nodes.remove(&id.parse().unwrap()).unwrap().failure.unwrap()
}

fn error(run: &StoredRun) -> (String, String) {
    let error = run.end.as_ref().unwrap().result.error().unwrap();
    (error.kind.to_string(), error.message.clone())
}

#[tokio::test]
async fn a_node_whose_output_is_too_deep_or_too_large_fails_for_good() {
    for (config, kind) in [
        (json!({"levels": MAX_VALUE_DEPTH + 1}), "output_too_deep"),
        (json!({"bytes": MAX_VALUE_BYTES}), "output_too_large"),
        (json!({"levels": MAX_VALUE_DEPTH + 1, "outside": true}), "output_too_deep"),
        (json!({"bytes": MAX_VALUE_BYTES, "outside": true}), "output_too_large"),
    ] {
        let (run, store) = run(json!({
            "nodes": [{"id": "a", "type": "make", "config": config, "retry": {"max_attempts": 3}}],
            "output": "'done'",
        }))
        .await;
        let failure = failure_of(&run, &store, "a");
        assert_eq!((failure.kind.as_str(), failure.retryable), (kind, false), "{config}");
        assert_eq!(run.state, RunState::Failed);
        let done = |entry: &gathering_dag_engine::JournalEntry| {
            matches!(entry.record.event, JournalEvent::EffectDone { .. } | JournalEvent::Succeeded { .. })
        };
        assert!(!store.journal(run.new.id).iter().any(done), "nothing of it is recorded");
    }
    let (run, _) = run(json!({
        "nodes": [{"id": "a", "type": "make", "config": {"levels": MAX_VALUE_DEPTH}}],
        "output": "nodes.a.output",
    }))
    .await;
    assert_eq!(run.state, RunState::Succeeded, "what is just within the limit is handed on");
}

#[tokio::test]
async fn a_run_whose_output_is_too_deep_or_too_large_fails() {
    let half = json!({"bytes": MAX_VALUE_BYTES / 2});
    let halves = json!([
        {"id": "a", "type": "make", "config": half},
        {"id": "b", "type": "make", "config": half},
    ]);
    let (deep, _) = run(json!({
        "nodes": [{"id": "a", "type": "make", "config": {"levels": MAX_VALUE_DEPTH}}],
        "output": "[nodes.a.output]",
    }))
    .await;
    assert_eq!(error(&deep).0, "output_too_deep");
    let (large, _) = run(json!({ "nodes": halves })).await;
    let (kind, message) = error(&large);
    assert_eq!(kind, "output_too_large");
    assert_eq!(message, "the run's output has more than 16777216 bytes when written as JSON");
}

#[tokio::test]
async fn a_barrier_of_outputs_that_are_too_large_together_fails() {
    let half = json!({"bytes": MAX_VALUE_BYTES / 2});
    let (run, store) = run(json!({
        "nodes": [
            {"id": "a", "type": "make", "config": half},
            {"id": "b", "type": "make", "config": half},
            {"id": "both", "type": "parallel", "join": "all"},
        ],
        "edges": [{"from": "a", "to": "both"}, {"from": "b", "to": "both"}],
    }))
    .await;
    assert_eq!(failure_of(&run, &store, "both").kind.as_str(), "output_too_large");
}

#[tokio::test]
async fn a_chain_of_barriers_may_be_as_long_as_a_graph_and_a_lattice_of_them_does_not_grow() {
    let n = 6000;
    let id = |at: usize| format!("n{at}");
    let nodes: Vec<Value> = (0..n)
        .map(|at| json!({"id": id(at), "type": if at == 0 { "trigger" } else { "parallel" }}))
        .collect();
    let chain: Vec<Value> = (1..n).map(|at| json!({"from": id(at - 1), "to": id(at)})).collect();
    let (run_of_chain, _) = run(json!({ "nodes": nodes, "edges": chain })).await;
    let output = run_of_chain.end.unwrap().result.output().cloned().unwrap();
    assert_eq!(output, json!({ id(n - 1): { id(n - 2): {} } }));

    let nodes: Vec<Value> = (0..200).map(|at| json!({"id": id(at), "type": "parallel"})).collect();
    let lattice: Vec<Value> = (2..200)
        .flat_map(|at| [0, 1].map(|other| json!({"from": id(at / 2 * 2 - 2 + other), "to": id(at)})))
        .collect();
    let (lattice, _) = run(json!({ "nodes": nodes, "edges": lattice, "output": "nodes.n199.output" })).await;
    assert_eq!(lattice.end.unwrap().result.output(), Some(&json!({"n196": {}, "n197": {}})));
}

#[tokio::test]
async fn a_config_whose_computed_values_are_too_large_together_fails_its_node() {
    let part = "${{ nodes.a.output }}";
    let (run, store) = run(json!({
        "nodes": [
            {"id": "a", "type": "make", "config": {"bytes": MAX_VALUE_BYTES / 4}},
            {"id": "b", "type": "make", "config": {"value": vec![part; 5]}},
        ],
        "edges": [{"from": "a", "to": "b"}],
    }))
    .await;
    assert_eq!(failure_of(&run, &store, "b").kind.as_str(), "config_too_large");
}

#[tokio::test]
async fn items_that_are_too_deep_start_no_run() {
    let (run, store) = run(json!({
        "nodes": [
            {"id": "a", "type": "make", "config": {"levels": MAX_VALUE_DEPTH}},
            {"id": "each", "type": "map", "config": {
                "items": "[nodes.a.output]",
                "graph": {"nodes": [{"id": "x", "type": "trigger"}]},
            }},
        ],
        "edges": [{"from": "a", "to": "each"}],
    }))
    .await;
    assert_eq!(failure_of(&run, &store, "each").kind.as_str(), "config_too_deep");
}
