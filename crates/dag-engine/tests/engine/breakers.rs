//! Circuit breakers as the nodes of runs meet them. Under virtual time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gathering_dag_engine::testing::{MemoryStore, VirtualClock};
use gathering_dag_engine::{
    Attempt, Breaker, BreakerStore, Breakers, DriveEnd, Engine, EngineSettings, Fields, NewRun, NodeExecutor,
    NodeFailure, NodeRun, NodeSpec, NodeState, NodeTypes, Outcome, RunStore, Shape, Signals, Wait,
};
use gathering_domain::{Digest, InstanceId, NodeId, PipelineId, ProjectId, RunId};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Takes or waits as long as the run's input says, and fails if it says so; knows how often each run called it.
#[derive(Clone, Default)]
struct Call(Arc<Mutex<HashMap<RunId, usize>>>);

impl Call {
    fn n_calls(&self, run: RunId) -> usize {
        self.0.lock().unwrap().get(&run).copied().unwrap_or(0)
    }
}

impl NodeSpec for Call {
    fn check(&self, config: &mut Fields<'_>) {
        config.required("takes_ms", Shape::Any);
        config.required("fails", Shape::Any);
    }
}

#[async_trait]
impl NodeExecutor for Call {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        if attempt.woken {
            return Ok(Outcome::Done(json!({})));
        }
        *self.0.lock().unwrap().entry(attempt.run).or_default() += 1;
        if let Some(waits_ms) = attempt.input["waits_ms"].as_u64() {
            return Ok(Outcome::Wait(Wait::until(attempt.now + Duration::from_millis(waits_ms))));
        }
        tokio::time::sleep(Duration::from_millis(attempt.config["takes_ms"].as_u64().unwrap())).await;
        match attempt.config["fails"].as_bool().unwrap() {
            true => Err(NodeFailure::retryable("planned".parse().unwrap(), "as planned")),
            false => Ok(Outcome::Done(json!({}))),
        }
    }
}

/// One instance, and runs of one pipeline whose only node has a breaker.
struct Bench {
    store: MemoryStore,
    engine: Engine,
    breakers: Breakers,
    call: Call,
    pipeline: PipelineId,
    circuit_breaker: Value,
    stop: CancellationToken,
}

impl Bench {
    fn new(circuit_breaker: Value) -> Self {
        let clock = Arc::new(VirtualClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()));
        let store = MemoryStore::new(clock.clone());
        let call = Call::default();
        let types = NodeTypes::builtin().with("call", call.clone());
        let (engine, service) =
            Engine::new(Arc::new(store.clone()), types, clock.clone(), EngineSettings::default());
        let breakers = Breakers::new(Arc::new(store.clone()), clock);
        let stop = CancellationToken::new();
        tokio::spawn(service.run(stop.clone()));
        let (engine, pipeline) = (engine.with_breakers(breakers.clone()), PipelineId::new());
        Self { store, engine, breakers, call, pipeline, circuit_breaker, stop }
    }

    /// Drives a run to its end and answers with its node.
    async fn run(&self, takes_ms: u64, fails: bool) -> (RunId, NodeRun) {
        self.run_with(json!({"takes_ms": takes_ms, "fails": fails})).await
    }

    async fn run_with(&self, input: Value) -> (RunId, NodeRun) {
        let id = self.accept(input).await;
        (id, self.drive(id).await)
    }

    async fn accept(&self, input: Value) -> RunId {
        let definition = json!({"nodes": [{
            "id": "a", "type": "call", "circuit_breaker": self.circuit_breaker,
            "config": {"takes_ms": "${{ input.takes_ms }}", "fails": "${{ input.fails }}"},
            "retry": {"max_attempts": 3, "initial_backoff_ms": 10},
        }]});
        let graph = Digest::of_json(&definition);
        RunStore::ensure_graph(&self.store, graph, &definition).await.unwrap();
        let (id, project) = (RunId::new(), ProjectId::new());
        let new = NewRun { id, project, graph, input, priority: 5, available_at: None, timeout: None };
        self.store.enqueue(new).await.unwrap();
        self.store.make_run_of(self.pipeline, id);
        id
    }

    async fn drive(&self, id: RunId) -> NodeRun {
        let claimed = self.store.claim_run(InstanceId::new(), id).await.unwrap().unwrap();
        let end = self.engine.drive(claimed, Signals::default()).await;
        assert!(matches!(end, DriveEnd::Ended(_)), "{end:?}");
        let node: NodeId = "a".parse().unwrap();
        NodeRun::fold(&self.store.journal(id)).unwrap().remove(&node).unwrap()
    }

    async fn stands(&self) -> Option<Breaker> {
        self.store.list_unhealthy().await.unwrap().pop().map(|(_, breaker)| breaker)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn kind(node: &NodeRun) -> &str {
    node.failure.as_ref().map_or("", |failure| failure.kind.as_str())
}

#[tokio::test(start_paused = true)]
async fn a_late_success_does_not_close_an_open_breaker() {
    let bench = Bench::new(json!({"failure_threshold": 1, "reset_seconds": 60}));
    let (late, early) = tokio::join!(bench.run(1000, false), bench.run(10, true));
    assert_eq!((late.1.state, kind(&early.1)), (NodeState::Succeeded, "circuit_open"));
    assert!(matches!(bench.stands().await, Some(Breaker::Open { .. })));
    let (refused, node) = bench.run(0, false).await;
    assert_eq!((kind(&node), bench.call.n_calls(refused)), ("circuit_open", 0), "it is still open");
}

#[tokio::test(start_paused = true)]
async fn a_success_of_another_run_does_not_close_a_half_open_breaker() {
    let bench = Bench::new(json!({"failure_threshold": 1, "reset_seconds": 5}));
    let others = async {
        bench.run(10, true).await;
        tokio::time::sleep(Duration::from_millis(5500)).await;
        // The probe, which takes longer than the late success takes to come.
        bench.run(3000, false).await
    };
    let third = async {
        tokio::time::sleep(Duration::from_millis(7000)).await;
        bench.run(0, false).await
    };
    let (late, probe, third) = tokio::join!(bench.run(6500, false), others, third);
    assert_eq!((late.1.state, probe.1.state), (NodeState::Succeeded, NodeState::Succeeded));
    assert_eq!((kind(&third.1), bench.call.n_calls(third.0)), ("circuit_open", 0), "one probe at a time");
    assert_eq!(bench.stands().await, None, "the probe closed it");
    bench.breakers.reload().await.unwrap();
    assert_eq!(bench.run(0, false).await.1.state, NodeState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_an_open_breaker_refuses_calls_nothing_and_is_not_tried_again() {
    let bench = Bench::new(json!({"failure_threshold": 2, "reset_seconds": 60}));
    // Two attempts fail; the third meets the breaker that they opened.
    let (opener, node) = bench.run(1, true).await;
    assert_eq!((node.attempt, node.failures, bench.call.n_calls(opener)), (3, 3, 2));
    assert_eq!((node.state, kind(&node)), (NodeState::Failed, "circuit_open"));
    let (refused, node) = bench.run(1, false).await;
    assert_eq!((node.attempt, bench.call.n_calls(refused)), (1, 0), "an attempt that called nothing");
    let failure = node.failure.unwrap();
    assert!(!failure.retryable && failure.message.contains("until 2026-01-01T00:01"), "{failure:?}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.run(1, false).await.1.state, NodeState::Succeeded, "the probe");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_waited_goes_on_though_the_breaker_opened_meanwhile() {
    let bench = Bench::new(json!({"failure_threshold": 1, "reset_seconds": 60}));
    let waits = bench.run_with(json!({"waits_ms": 1000, "takes_ms": 0, "fails": false}));
    let (waited, early) = tokio::join!(waits, bench.run(10, true));
    assert_eq!(kind(&early.1), "circuit_open");
    assert_eq!(
        (waited.1.state, bench.call.n_calls(waited.0)),
        (NodeState::Succeeded, 1),
        "it had begun before"
    );
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_a_crash_interrupted_is_taken_up_again_by_its_own_run() {
    let bench = Bench::new(json!({"failure_threshold": 1, "reset_seconds": 5}));
    bench.run(1, true).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let probe = bench.accept(json!({"takes_ms": 2000, "fails": false})).await;
    let victim = InstanceId::new();
    let claimed = bench.store.claim_run(victim, probe).await.unwrap().unwrap();
    let died = tokio::time::timeout(Duration::from_secs(1), bench.engine.drive(claimed, Signals::default()));
    assert!(died.await.is_err(), "it takes longer");
    assert!(matches!(bench.stands().await, Some(Breaker::HalfOpen { probe: run, .. }) if run == probe));
    bench.store.kill(victim);
    bench.store.recover_dead_instances(20).await.unwrap();
    bench.breakers.reload().await.unwrap();
    let node = bench.drive(probe).await;
    assert_eq!((node.state, kind(&node)), (NodeState::Succeeded, ""));
    assert_eq!(bench.stands().await, None, "the probe closed it");
}
