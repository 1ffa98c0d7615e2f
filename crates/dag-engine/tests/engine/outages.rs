//! Stores that do not answer, or only with faults: what waits for them, for how long, and what must not fail for it.
//! Under virtual time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gathering_dag_engine::testing::{Fault, Faults, MemoryStore, VirtualClock};
use gathering_dag_engine::{
    Attempt, Breaker, BreakerKey, BreakerStore, Breakers, Decision, Decisions, DriveEnd, Engine,
    EngineSettings, NewRun, NodeExecutor, NodeFailure, NodeRun, NodeSpec, NodeState, NodeTypes, Outcome,
    RunStore, Runner, RunnerSettings, Signals, StoreError,
};
use gathering_domain::{
    CircuitBreaker, Digest, InstanceId, NodeId, PipelineId, ProjectId, RunEvent, RunId, RunState,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How a port answers from some time on.
#[derive(Debug, Clone, Copy)]
enum Outage {
    /// Each call fails.
    Refuses,
    /// No call ends.
    Hangs,
}

/// A port of which the store behind it is away from some time on.
struct AwayFrom {
    store: MemoryStore,
    from: Instant,
    outage: Outage,
}

impl AwayFrom {
    async fn reach(&self) -> Result<&MemoryStore, StoreError> {
        match self.outage {
            _ if Instant::now() < self.from => Ok(&self.store),
            Outage::Refuses => Err(StoreError::Unavailable("connection refused".into())),
            Outage::Hangs => std::future::pending().await,
        }
    }
}

#[async_trait]
impl BreakerStore for AwayFrom {
    async fn list_unhealthy(&self) -> Result<Vec<(BreakerKey, Breaker)>, StoreError> {
        self.reach().await?.list_unhealthy().await
    }

    async fn note_failure(
        &self,
        key: &BreakerKey,
        run: RunId,
        settings: &CircuitBreaker,
    ) -> Result<Breaker, StoreError> {
        self.reach().await?.note_failure(key, run, settings).await
    }

    async fn note_success(&self, key: &BreakerKey, run: RunId) -> Result<Option<Breaker>, StoreError> {
        self.reach().await?.note_success(key, run).await
    }

    async fn try_probe(
        &self,
        key: &BreakerKey,
        run: RunId,
        limit: Duration,
    ) -> Result<Option<Breaker>, StoreError> {
        self.reach().await?.try_probe(key, run, limit).await
    }
}

#[async_trait]
impl Decisions for AwayFrom {
    async fn find_decision(&self, run: RunId, node: &NodeId) -> Result<Option<Decision>, StoreError> {
        self.reach().await?.find_decision(run, node).await
    }
}

struct Bench {
    store: MemoryStore,
    clock: Arc<VirtualClock>,
    engine: Engine,
    stop: CancellationToken,
}

impl Bench {
    fn new(faults: Faults, types: impl FnOnce(&MemoryStore) -> NodeTypes) -> Self {
        let clock = Arc::new(VirtualClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()));
        let store = MemoryStore::new(Arc::clone(&clock) as _);
        let types = types(&store);
        let seen = Arc::new(store.seen_with(Arc::new(faults)));
        let (engine, service) = Engine::new(seen, types, Arc::clone(&clock) as _, EngineSettings::default());
        let stop = CancellationToken::new();
        tokio::spawn(service.run(stop.clone()));
        Self { store, clock, engine, stop }
    }

    async fn accept(&self, definition: Value) -> RunId {
        let graph = Digest::of_json(&definition);
        RunStore::ensure_graph(&self.store, graph, &definition).await.unwrap();
        let (id, project, input) = (RunId::new(), ProjectId::new(), json!({}));
        let new = NewRun { id, project, graph, input, priority: 5, available_at: None, timeout: None };
        self.store.enqueue(new).await.unwrap();
        id
    }

    /// Drives a run to its end; answers how long that took, and with its node `a`.
    async fn drive(&self, engine: &Engine, run: RunId) -> (Duration, NodeRun) {
        let claimed = self.store.claim_run(InstanceId::new(), run).await.unwrap().unwrap();
        let began = Instant::now();
        let end =
            tokio::time::timeout(Duration::from_secs(24 * 3600), engine.drive(claimed, Signals::default()));
        assert!(matches!(end.await.unwrap(), DriveEnd::Ended(_)));
        let node: NodeId = "a".parse().unwrap();
        (began.elapsed(), NodeRun::fold(&self.store.journal(run)).unwrap().remove(&node).unwrap())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A node that fails, with a breaker that opens at once.
fn guarded(timeout_seconds: f64) -> Value {
    json!({"nodes": [{
        "id": "a", "type": "condition", "config": {"expression": "false"}, "timeout_seconds": timeout_seconds,
        "circuit_breaker": {"failure_threshold": 1, "reset_seconds": 5},
    }]})
}

#[tokio::test(start_paused = true)]
async fn a_node_waits_no_longer_than_its_timeout_for_the_store_of_its_breaker() {
    for outage in [Outage::Refuses, Outage::Hangs] {
        let bench = Bench::new(Faults::default(), |_| NodeTypes::builtin());
        let pipeline = PipelineId::new();
        let run = bench.accept(guarded(30.0)).await;
        bench.store.make_run_of(pipeline, run);
        // The breaker was opened by an earlier run, and its time has passed: the next attempt asks to be the probe.
        let key = BreakerKey { pipeline, node: "a".parse().unwrap() };
        let settings = CircuitBreaker { failure_threshold: 1, reset: Duration::from_secs(5) };
        bench.store.note_failure(&key, RunId::new(), &settings).await.unwrap();
        let away =
            AwayFrom { store: bench.store.clone(), from: Instant::now() + Duration::from_secs(1), outage };
        let breakers = Breakers::new(Arc::new(away), Arc::clone(&bench.clock) as _);
        breakers.reload().await.unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        let engine = bench.engine.clone().with_breakers(breakers);
        let (took, node) = bench.drive(&engine, run).await;
        assert_eq!(node.state, NodeState::TimedOut, "{outage:?}: {node:?}");
        assert!(took < Duration::from_secs(31), "{outage:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_node_does_not_wait_for_its_breaker_to_note_it() {
    for outage in [Outage::Refuses, Outage::Hangs] {
        let bench = Bench::new(Faults::default(), |_| NodeTypes::builtin().with("fail", Fails));
        let mut definition = guarded(30.0);
        definition["nodes"][0]["type"] = json!("fail");
        definition["nodes"][0]["config"] = json!({});
        let run = bench.accept(definition).await;
        bench.store.make_run_of(PipelineId::new(), run);
        let away = AwayFrom { store: bench.store.clone(), from: Instant::now(), outage };
        let breakers = Breakers::new(Arc::new(away), Arc::clone(&bench.clock) as _);
        let (took, node) = bench.drive(&bench.engine.clone().with_breakers(breakers), run).await;
        assert_eq!(node.state, NodeState::Failed, "{outage:?}");
        assert!(took < Duration::from_secs(2), "{outage:?}: {took:?}");
    }
}

struct Fails;

impl NodeSpec for Fails {}

#[async_trait]
impl NodeExecutor for Fails {
    async fn execute(&self, _attempt: Attempt) -> Result<Outcome, NodeFailure> {
        Err(NodeFailure::permanent("planned".parse().unwrap(), "as planned"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_wait_times_out_does_not_wait_again_for_a_store_that_is_away() {
    for outage in [Outage::Refuses, Outage::Hangs] {
        let bench = Bench::new(Faults::default(), |store| {
            let from = Instant::now() + Duration::from_secs(2);
            let away = AwayFrom { store: store.clone(), from, outage };
            NodeTypes::builtin().with_approval(Arc::new(away))
        });
        let approval =
            json!({"id": "a", "type": "approval", "config": {"message": "?"}, "timeout_seconds": 300});
        let run = bench.accept(json!({"nodes": [approval]})).await;
        let began = Instant::now();
        loop {
            let claimed = bench.store.claim_run(InstanceId::new(), run).await.unwrap().unwrap();
            match bench.engine.drive(claimed, Signals::default()).await {
                DriveEnd::Ended(RunEvent::Failed) => break,
                DriveEnd::Parked => tokio::time::sleep(Duration::from_secs(1)).await,
                end => panic!("{end:?}"),
            }
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(310), "{outage:?}: {took:?}");
        let nodes = NodeRun::fold(&bench.store.journal(run)).unwrap();
        assert_eq!(nodes[&"a".parse::<NodeId>().unwrap()].state, NodeState::TimedOut, "{outage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_not_held_up_by_a_store_that_writes_nothing() {
    let (_broken, is_broken) = watch::channel(true);
    let bench = Bench::new(Faults::broken_while(is_broken), |_| NodeTypes::builtin());
    bench.accept(json!({"nodes": [{"id": "a", "type": "delay", "config": {"seconds": 1}}]})).await;
    let stop = CancellationToken::new();
    let settings = RunnerSettings { grace: Duration::from_secs(5), ..RunnerSettings::default() };
    let runner = Runner::new(bench.engine.clone(), InstanceId::new(), settings);
    let running = tokio::spawn(runner.run(stop.clone(), CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    stop.cancel();
    let began = Instant::now();
    tokio::time::timeout(Duration::from_secs(3600), running).await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(16), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_the_load_of_a_run() {
    // The first call loads the graph.
    let faults = Faults::planned([(0, Fault::Delay(Duration::from_secs(24 * 3600)))]);
    let bench = Bench::new(faults, |_| NodeTypes::builtin());
    let run = bench.accept(json!({"nodes": [{"id": "a", "type": "trigger"}]})).await;
    let claimed = bench.store.claim_run(InstanceId::new(), run).await.unwrap().unwrap();
    let signals = Signals::default();
    let drain = signals.drain.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drain.cancel();
    });
    let began = Instant::now();
    assert_eq!(bench.engine.drive(claimed, signals).await, DriveEnd::Requeued);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn i4_a_checkpoint_that_times_out_again_and_again_fails_no_run() {
    // Every second call: between two checkpoints that time out, the store answers.
    for parity in [0, 1] {
        let plan = (0..40).filter(|number| number % 2 == parity).map(|number| (number, Fault::FailAfter));
        let bench = Bench::new(Faults::planned(plan), |_| NodeTypes::builtin());
        let run = bench.accept(json!({"nodes": [{"id": "a", "type": "trigger"}]})).await;
        let claimed = bench.store.claim_run(InstanceId::new(), run).await.unwrap().unwrap();
        let end = bench.engine.drive(claimed, Signals::default()).await;
        assert_eq!(end, DriveEnd::Ended(RunEvent::Succeeded), "{parity}");
    }
}

#[tokio::test(start_paused = true)]
async fn i4_a_fault_that_meets_every_checkpoint_fails_no_run() {
    for broken_ms in (50..3000).step_by(50) {
        let (broken, is_broken) = watch::channel(false);
        let bench = Bench::new(Faults::broken_while(is_broken), |_| NodeTypes::builtin());
        let mut runs = Vec::new();
        let mut driving = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let definition = json!({"nodes": [{"id": "a", "type": "trigger"}, {"id": "b", "type": "delay",
                "config": {"seconds": 0.5}}], "edges": [{"from": "a", "to": "b"}]});
            let run = bench.accept(definition).await;
            let claimed = bench.store.claim_run(InstanceId::new(), run).await.unwrap().unwrap();
            let engine = bench.engine.clone();
            driving.spawn(async move { engine.drive(claimed, Signals::default()).await });
            runs.push(run);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        broken.send_replace(true);
        tokio::time::sleep(Duration::from_millis(broken_ms)).await;
        broken.send_replace(false);
        for end in driving.join_all().await {
            assert_eq!(end, DriveEnd::Ended(RunEvent::Succeeded), "broken for {broken_ms} ms");
        }
        assert!(runs.iter().all(|run| bench.store.run(*run).unwrap().state == RunState::Succeeded));
    }
}
