//! What has only its end before it, under virtual time: it ends though there is no room, and begins nothing more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gathering_dag_engine::testing::{Faults, MemoryStore, VirtualClock};
use gathering_dag_engine::{
    Attempt, DriveEnd, Engine, EngineSettings, Fields, JournalEntry, JournalEvent, NewRun, NodeExecutor,
    NodeFailure, NodeRun, NodeSpec, NodeState, NodeTypes, Outcome, RunStore, Runner, RunnerHandle,
    RunnerSettings, Shape, Signals,
};
use gathering_domain::{Digest, InstanceId, ProjectId, RunEvent, RunId, RunState};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A node that counts.
struct Count(Arc<AtomicUsize>);

impl NodeSpec for Count {}

#[async_trait]
impl NodeExecutor for Count {
    async fn execute(&self, _attempt: Attempt) -> Result<Outcome, NodeFailure> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Outcome::Done(Value::Null))
    }
}

/// A node that never ends by itself.
struct Hang;

impl NodeSpec for Hang {}

#[async_trait]
impl NodeExecutor for Hang {
    async fn execute(&self, _attempt: Attempt) -> Result<Outcome, NodeFailure> {
        std::future::pending().await
    }
}

/// An engine on a store of its own.
struct Bench {
    store: MemoryStore,
    engine: Engine,
    stop: CancellationToken,
}

impl Bench {
    fn new(types: NodeTypes, faults: Faults) -> Self {
        Self::stopped_by(CancellationToken::new(), types, faults)
    }

    fn stopped_by(stop: CancellationToken, types: NodeTypes, faults: Faults) -> Self {
        let clock = Arc::new(VirtualClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()));
        let store = MemoryStore::new(Arc::clone(&clock) as _);
        let seen = Arc::new(store.seen_with(Arc::new(faults)));
        let (engine, service) = Engine::new(seen, types, clock, EngineSettings::default());
        tokio::spawn(service.run(stop.clone()));
        Self { store, engine, stop }
    }

    /// Claims and drives from now on.
    fn run(&self, settings: RunnerSettings) -> RunnerHandle {
        let runner = Runner::new(self.engine.clone(), InstanceId::new(), settings);
        let handle = runner.handle();
        tokio::spawn(runner.run(self.stop.clone(), CancellationToken::new()));
        handle
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(store: &MemoryStore, node: Value, timeout: Option<Duration>) -> RunId {
    accept_graph(store, json!({"nodes": [node]}), timeout).await
}

async fn accept_graph(store: &MemoryStore, definition: Value, timeout: Option<Duration>) -> RunId {
    let graph = Digest::of_json(&definition);
    RunStore::ensure_graph(store, graph, &definition).await.unwrap();
    let (id, project, input) = (RunId::new(), ProjectId::new(), json!({}));
    store
        .enqueue(NewRun { id, project, graph, input, priority: 5, available_at: None, timeout })
        .await
        .unwrap();
    id
}

/// Waits until a run is in this state; answers how long that took.
async fn until(store: &MemoryStore, run: RunId, state: RunState) -> Duration {
    let begin = tokio::time::Instant::now();
    while store.run(run).unwrap().state != state {
        assert!(begin.elapsed() < Duration::from_secs(60), "it is {:?}", store.run(run).unwrap().state);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    begin.elapsed()
}

#[tokio::test(start_paused = true)]
async fn i4_cancelled_and_overdue_runs_end_though_there_is_no_room_for_another() {
    let bench = Bench::new(NodeTypes::builtin().with("hang", Hang), Faults::default());
    let handle = bench.run(RunnerSettings { max_concurrent_runs: 1, ..RunnerSettings::default() });
    let store = bench.store.clone();

    let delay = json!({"id": "a", "type": "delay", "config": {"seconds": 3600}});
    let parked = accept(&store, delay, None).await;
    until(&store, parked, RunState::Waiting).await;
    let hanging = accept(&store, json!({"id": "a", "type": "hang"}), None).await;
    handle.wake();
    until(&store, hanging, RunState::Running).await;
    let late = accept(&store, json!({"id": "a", "type": "hang"}), Some(Duration::from_secs(5))).await;
    handle.wake();

    tokio::time::sleep(Duration::from_secs(2)).await;
    store.request_cancel(parked);
    handle.wake();
    let took = until(&store, parked, RunState::Cancelled).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    let nodes = NodeRun::fold(&store.journal(parked)).unwrap();
    assert!(nodes.values().all(|node| node.state == NodeState::Cancelled), "{nodes:?}");
    let took = until(&store, late, RunState::TimedOut).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(store.journal(late).is_empty(), "nothing of it was begun");
    assert_eq!(store.run(hanging).unwrap().state, RunState::Running);
}

#[tokio::test(start_paused = true)]
async fn i5_a_run_that_is_driven_after_its_deadline_executes_nothing() {
    let executed = Arc::new(AtomicUsize::new(0));
    let types = NodeTypes::builtin().with("count", Count(Arc::clone(&executed)));
    let bench = Bench::new(types, Faults::default());
    let (store, engine) = (bench.store.clone(), bench.engine.clone());
    let limit = Duration::from_secs(5);
    for idempotent in [true, false] {
        let node = json!({"id": "a", "type": "count", "idempotent": idempotent});
        // Claimed in time, or too late.
        for wait in [Duration::ZERO, limit] {
            let run = accept(&store, node.clone(), Some(limit)).await;
            tokio::time::sleep(wait).await;
            let claimed = store.claim_run(InstanceId::new(), run).await.unwrap().unwrap();
            // What the claim begins, it begins in time.
            let n_begun = store.journal(run).len();
            tokio::time::sleep(limit - wait).await;
            let end = engine.drive(claimed, Signals::default()).await;
            assert_eq!(end, DriveEnd::Ended(RunEvent::TimedOut));
            assert_eq!(executed.load(Ordering::SeqCst), 0);
            let began = |entry: &JournalEntry| entry.record.event == JournalEvent::Started;
            let later = &store.journal(run)[n_begun..];
            assert!(!later.iter().any(began), "it was begun too late: {later:?}");
        }
    }
}

/// A node that waits for its turn and hands on the value of its config.
struct Echo(Arc<Notify>);

impl NodeSpec for Echo {
    fn check(&self, config: &mut Fields<'_>) {
        config.required("value", Shape::Any);
    }
}

#[async_trait]
impl NodeExecutor for Echo {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        self.0.notified().await;
        Ok(Outcome::Done(attempt.config["value"].clone()))
    }
}

#[tokio::test(start_paused = true)]
async fn i4_a_checkpoint_that_cannot_be_written_ends_its_run_and_holds_up_no_other() {
    let turn = Arc::new(Notify::new());
    let types = NodeTypes::builtin().with("echo", Echo(Arc::clone(&turn))).with("hang", Hang);
    let bench = Bench::new(types, Faults::refusing(json!("too much")));
    let (store, engine) = (bench.store.clone(), bench.engine.clone());
    let mut driving = tokio::task::JoinSet::new();
    let mut runs = Vec::new();
    for value in ["fine", "too much", "fine"] {
        let definition = json!({"nodes": [
            {"id": "a", "type": "echo", "config": {"value": value}},
            {"id": "b", "type": if value == "fine" { "trigger" } else { "hang" }},
        ]});
        let run = accept_graph(&store, definition, None).await;
        let claimed = store.claim_run(InstanceId::new(), run).await.unwrap().unwrap();
        let engine = engine.clone();
        driving.spawn(async move { engine.drive(claimed, Signals::default()).await });
        runs.push(run);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // All at once, so that they come into one batch.
    turn.notify_waiters();
    driving.join_all().await;
    let ends: Vec<RunState> = runs.iter().map(|run| store.run(*run).unwrap().state).collect();
    assert_eq!(ends, [RunState::Succeeded, RunState::Failed, RunState::Succeeded]);
    let error = store.run(runs[1]).unwrap().end.and_then(|end| end.result.error().cloned()).unwrap();
    assert_eq!(error.kind.as_str(), "checkpoint_refused");
    let nodes = NodeRun::fold(&store.journal(runs[1])).unwrap();
    assert!(nodes.values().all(|node| node.state == NodeState::Cancelled), "I5: {nodes:?}");
}

/// A node at which the engine itself breaks off, as for a mistake in it.
struct Broken {
    times: AtomicUsize,
    /// Ends what would go on for ever, and leave no time for any limit.
    give_up: CancellationToken,
}

impl NodeSpec for Broken {
    #[expect(clippy::panic, reason = "that is what it is for")]
    fn collects_upstream(&self) -> bool {
        if self.times.fetch_add(1, Ordering::SeqCst) > 1_000 {
            self.give_up.cancel();
        }
        panic!("as planned");
    }
}

#[async_trait]
impl NodeExecutor for Broken {
    async fn execute(&self, _attempt: Attempt) -> Result<Outcome, NodeFailure> {
        Ok(Outcome::Done(Value::Null))
    }
}

#[tokio::test(start_paused = true)]
async fn i4_a_run_at_which_the_engine_breaks_off_fails_instead_of_being_driven_for_ever() {
    let give_up = CancellationToken::new();
    let broken = Broken { times: AtomicUsize::new(0), give_up: give_up.clone() };
    let bench = Bench::stopped_by(give_up, NodeTypes::builtin().with("broken", broken), Faults::default());
    let store = bench.store.clone();
    let run = accept(&store, json!({"id": "a", "type": "broken"}), None).await;
    bench.run(RunnerSettings::default());
    until(&store, run, RunState::Failed).await;
    let stored = store.run(run).unwrap();
    assert_eq!(stored.end.and_then(|end| end.result.error().cloned()).unwrap().kind.as_str(), "internal");
    let nodes = NodeRun::fold(&store.journal(run)).unwrap();
    assert!(nodes.values().all(|node| node.state == NodeState::Cancelled), "I5: {nodes:?}");
}
