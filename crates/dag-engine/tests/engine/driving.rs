//! What happens to a run while it is driven: cancel, deadlines, time-outs, retries, effects, stopping. Under virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gathering_dag_engine::testing::{MemoryStore, StoredRun, VirtualClock};
use gathering_dag_engine::{
    Attempt, ChildKind, ChildRuns, Clock, DriveEnd, EffectClass, Engine, EngineSettings, Fields,
    JournalEvent, NewChild, NewRun, NodeExecutor, NodeFailure, NodeRun, NodeSpec, NodeState, NodeTypes,
    Outcome, Parent, PollOutcome, RunStore, Shape, Signals, Wait,
};
use gathering_domain::{
    Digest, FailureKind, InstanceId, NodeId, ProjectId, RunEvent, RunId, RunState, WaitingFor,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// A node type made of a function.
struct Do<F>(F);

impl<F: Send + Sync + 'static> NodeSpec for Do<F> {
    fn check(&self, config: &mut Fields<'_>) {
        config.optional("value", Shape::Any);
    }
}

#[async_trait]
impl<F, Fut> NodeExecutor for Do<F>
where
    F: Fn(Attempt) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Value, NodeFailure>> + Send,
{
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        (self.0)(attempt).await.map(Outcome::Done)
    }
}

struct Bench {
    store: MemoryStore,
    engine: Engine,
    clock: VirtualClock,
    stop: CancellationToken,
}

impl Bench {
    fn new(types: NodeTypes) -> Self {
        let clock = VirtualClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let store = MemoryStore::new(Arc::new(clock));
        let (engine, service) =
            Engine::new(Arc::new(store.clone()), types, Arc::new(clock), EngineSettings::default());
        let stop = CancellationToken::new();
        tokio::spawn(service.run(stop.clone()));
        Self { store, engine, clock, stop }
    }

    async fn accept(&self, definition: Value, timeout: Option<Duration>) -> RunId {
        let graph = Digest::of_json(&definition);
        RunStore::ensure_graph(&self.store, graph, &definition).await.unwrap();
        let (id, project) = (RunId::new(), ProjectId::new());
        let input = json!({"n": 7});
        self.store
            .enqueue(NewRun { id, project, graph, input, priority: 5, available_at: None, timeout })
            .await
            .unwrap();
        id
    }

    async fn drive(&self, run: RunId, signals: Signals) -> DriveEnd {
        let claimed = self.store.claim_run(InstanceId::new(), run).await.unwrap().unwrap();
        self.engine.drive(claimed, signals).await
    }

    async fn run(&self, definition: Value) -> StoredRun {
        let run = self.accept(definition, None).await;
        self.drive(run, Signals::default()).await;
        self.store.run(run).unwrap()
    }

    fn node(&self, run: RunId, id: &str) -> NodeRun {
        NodeRun::fold(&self.store.journal(run))
            .unwrap()
            .remove(&id.parse::<NodeId>().unwrap())
            .unwrap_or_default()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn output(run: &StoredRun) -> Value {
    run.end.as_ref().and_then(|end| end.result.output().cloned()).unwrap_or_default()
}

fn message(run: &StoredRun) -> String {
    run.end.as_ref().and_then(|end| end.result.error()).map(|error| error.message.clone()).unwrap_or_default()
}

fn types() -> NodeTypes {
    NodeTypes::builtin()
        .with("echo", Do(|attempt: Attempt| async move { Ok(attempt.config["value"].clone()) }))
        .with("hang", Do(|_| std::future::pending()))
        .with(
            "panic",
            Do(|attempt: Attempt| async move {
                assert!(attempt.attempt > 100, "as planned");
                Ok(Value::Null)
            }),
        )
}

#[tokio::test(start_paused = true)]
async fn outputs_flow_along_the_edges_that_are_taken() {
    let bench = Bench::new(types());
    let run = bench
        .run(json!({
            "nodes": [
                {"id": "start", "type": "trigger"},
                {"id": "big", "type": "condition", "config": {"expression": "nodes.start.output.n > 5"}},
                {"id": "yes", "type": "echo", "config": {"value": {"n": "${{ input.n * 2 }}", "text": "n is ${{ input.n }}"}}},
                {"id": "no", "type": "echo"},
                {"id": "end", "type": "parallel"},
            ],
            "edges": [
                {"from": "start", "to": "big"}, {"from": "big", "to": "yes"},
                {"from": "big", "to": "no", "when": "!nodes.big.output.result"},
                {"from": "yes", "to": "end"}, {"from": "no", "to": "end"},
            ],
        }))
        .await;
    assert_eq!(output(&run), json!({"end": {"yes": {"n": 14, "text": "n is 7"}}}));
    assert_eq!(bench.node(run.new.id, "no").state, NodeState::Skipped);
}

#[tokio::test(start_paused = true)]
async fn i5_a_cancelled_run_ends_at_once_and_nothing_of_it_executes() {
    let bench = Bench::new(types());
    let run = bench.accept(json!({"nodes": [{"id": "a", "type": "hang"}, {"id": "b", "type": "delay", "config": {"seconds": 3}}]}), None).await;
    let signals = Signals::default();
    let cancel = signals.cancel.clone();
    let asked = async {
        while bench.node(run, "b").state != NodeState::Waiting {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let began = bench.clock.now();
    let (end, ()) = tokio::join!(bench.drive(run, signals), asked);
    assert_eq!(end, DriveEnd::Ended(RunEvent::Cancelled));
    assert_eq!(bench.clock.now(), began, "no time passed");
    assert_eq!(bench.store.run(run).unwrap().state, RunState::Cancelled);
    assert_eq!(bench.node(run, "a").state, NodeState::Cancelled);
    assert_eq!(bench.node(run, "b").state, NodeState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_run_past_its_deadline_times_out() {
    let bench = Bench::new(types());
    let run =
        bench.accept(json!({"nodes": [{"id": "a", "type": "hang"}]}), Some(Duration::from_secs(90))).await;
    let began = bench.clock.now();
    assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Ended(RunEvent::TimedOut));
    assert_eq!((bench.clock.now() - began).num_seconds(), 90);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_a_later_time_is_timed_out_at_its_deadline_wherever_it_is_claimed() {
    let bench = Bench::new(types());
    let definition = json!({"nodes": [{"id": "a", "type": "delay", "config": {"seconds": 3600}}]});
    let run = bench.accept(definition, Some(Duration::from_secs(90))).await;
    let began = bench.clock.now();
    assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Parked);
    // Claimed when its deadline has come, as the queue does.
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Ended(RunEvent::TimedOut));
    assert_eq!((bench.clock.now() - began).num_seconds(), 90);
    assert_eq!(bench.node(run, "a").state, NodeState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_too_long_is_tried_again_and_then_timed_out() {
    let bench = Bench::new(types());
    let run = bench
        .run(json!({"nodes": [{"id": "a", "type": "hang", "timeout_seconds": 2, "retry": {"max_attempts": 3, "initial_backoff_ms": 100, "jitter": 0}}]}))
        .await;
    let node = bench.node(run.new.id, "a");
    assert_eq!((node.state, node.attempt), (NodeState::TimedOut, 3));
    assert_eq!(message(&run), "node `a` failed: took longer than 2 s");
    assert_eq!((bench.clock.now() - run.created_at).num_milliseconds(), 3 * 2000 + 100 + 200);
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_its_node_and_nothing_else() {
    let bench = Bench::new(types());
    let run = bench
        .run(json!({
            "nodes": [{"id": "a", "type": "panic"}, {"id": "b", "type": "echo", "config": {"value": "${{ nodes.a.error.kind }}"}}],
            "edges": [{"from": "a", "to": "b", "on": "failure"}],
        }))
        .await;
    assert_eq!(output(&run), json!({"b": "panic"}));
}

#[tokio::test(start_paused = true)]
async fn ten_delays_of_a_second_take_one_second() {
    let bench = Bench::new(types());
    let nodes: Vec<Value> =
        (0..10).map(|n| json!({"id": format!("d{n}"), "type": "delay", "config": {"seconds": 1}})).collect();
    let run = bench.run(json!({ "nodes": nodes })).await;
    assert_eq!(run.state, RunState::Succeeded);
    assert_eq!((bench.clock.now() - run.created_at).num_milliseconds(), 1000);
}

#[tokio::test(start_paused = true)]
async fn a_long_delay_holds_no_driver() {
    let bench = Bench::new(types());
    let run = bench
        .accept(json!({"nodes": [{"id": "a", "type": "delay", "config": {"seconds": 3600}}]}), None)
        .await;
    assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Parked);
    let parked = bench.store.run(run).unwrap();
    assert_eq!(parked.state, RunState::Waiting);
    assert_eq!(parked.available_at, Some(parked.created_at + Duration::from_secs(3600)));
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Ended(RunEvent::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn at_most_max_concurrency_nodes_execute_at_once() {
    static ACTIVE: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let types = NodeTypes::builtin().with(
        "busy",
        Do(|_| async {
            MOST.fetch_max(ACTIVE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            ACTIVE.fetch_sub(1, Ordering::SeqCst);
            Ok(Value::Null)
        }),
    );
    let nodes: Vec<Value> = (0..12).map(|n| json!({"id": format!("b{n}"), "type": "busy"})).collect();
    let run = Bench::new(types).run(json!({"nodes": nodes, "max_concurrency": 4})).await;
    assert_eq!(run.state, RunState::Succeeded);
    assert_eq!(MOST.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn a_drained_run_finishes_its_nodes_and_is_handed_back() {
    static EXECUTED: AtomicUsize = AtomicUsize::new(0);
    let types = types().with(
        "slow",
        Do(|_| async {
            EXECUTED.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(10)).await;
            Ok(json!("done"))
        }),
    );
    let bench = Bench::new(types);
    let definition = json!({
        "nodes": [{"id": "a", "type": "slow"}, {"id": "b", "type": "echo", "config": {"value": "${{ nodes.a.output }}"}}],
        "edges": [{"from": "a", "to": "b"}],
    });
    let run = bench.accept(definition, None).await;
    let signals = Signals::default();
    signals.drain.cancel();
    // Stopped before it began: nothing executes, though the claim recorded a start.
    assert_eq!(bench.drive(run, signals).await, DriveEnd::Requeued);
    assert_eq!(EXECUTED.load(Ordering::SeqCst), 0);
    let signals = Signals::default();
    let drain = signals.drain.clone();
    let stop = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drain.cancel();
    };
    let (end, ()) = tokio::join!(bench.drive(run, signals), stop);
    assert_eq!(end, DriveEnd::Requeued);
    assert_eq!(bench.node(run, "a").state, NodeState::Succeeded, "what executed was finished");
    assert_eq!(bench.node(run, "b").state, NodeState::Pending, "nothing new was started");
    assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Ended(RunEvent::Succeeded));
    assert_eq!(output(&bench.store.run(run).unwrap()), json!({"b": "done"}));
}

#[tokio::test(start_paused = true)]
async fn i2_a_fenced_drive_writes_nothing_more() {
    let bench = Bench::new(types());
    let run = bench.accept(json!({"nodes": [{"id": "a", "type": "hang"}]}), None).await;
    let signals = Signals::default();
    let fence = signals.fence.clone();
    let lose = async {
        while bench.node(run, "a").state != NodeState::Running {
            tokio::task::yield_now().await;
        }
        fence.cancel();
    };
    let (end, ()) = tokio::join!(bench.drive(run, signals), lose);
    assert_eq!(end, DriveEnd::Abandoned);
    assert_eq!(bench.store.journal(run).len(), 1);
    assert_eq!(
        bench.store.run(run).unwrap().state,
        RunState::Running,
        "its successor finds it through recovery"
    );
}

/// Kills the owner while node `a` hangs in its first attempt, then drives the run to its end elsewhere.
async fn interrupt(bench: &Bench, definition: Value) -> StoredRun {
    let run = bench.accept(definition, None).await;
    let owner = InstanceId::new();
    let claimed = bench.store.claim_run(owner, run).await.unwrap().unwrap();
    let hanging = async {
        let is_hanging = |entry: &gathering_dag_engine::JournalEntry| {
            matches!(entry.record.event, JournalEvent::EffectDone { .. })
                || entry.record.event == JournalEvent::Started && bench.store.journal(run).len() == 1
        };
        while !bench.store.journal(run).last().is_some_and(is_hanging) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        end = bench.engine.drive(claimed, Signals::default()) => panic!("{end:?}"),
        () = hanging => {}
    }
    bench.store.kill(owner);
    bench.store.recover_dead_instances(20).await.unwrap();
    bench.drive(run, Signals::default()).await;
    bench.store.run(run).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_node_is_tried_again_unless_it_must_not_be() {
    let types = types().with(
        "hang_once",
        Do(|attempt: Attempt| async move {
            if attempt.attempt == 1 {
                std::future::pending::<()>().await;
            }
            Ok(json!(attempt.attempt))
        }),
    );
    let bench = Bench::new(types);
    let run = interrupt(&bench, json!({"nodes": [{"id": "a", "type": "hang_once"}]})).await;
    assert_eq!(output(&run), json!({"a": 2}));
    let run =
        interrupt(&bench, json!({"nodes": [{"id": "a", "type": "hang_once", "idempotent": false}]})).await;
    assert_eq!(run.state, RunState::Failed);
    assert!(message(&run).contains("declared not idempotent"), "{}", message(&run));
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_is_done_is_not_repeated_after_a_crash() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let types = types().with(
        "pays",
        Do(|attempt: Attempt| async move {
            let paid = attempt
                .effects
                .once("pay", EffectClass::Unsafe, &json!({"amount": 1}), || async {
                    Ok(json!(CALLS.fetch_add(1, Ordering::SeqCst)))
                })
                .await?;
            if attempt.attempt == 1 {
                attempt
                    .effects
                    .once("second", EffectClass::Pure, &json!(null), || async { Ok(json!(null)) })
                    .await?;
                std::future::pending::<()>().await;
            }
            Ok(paid)
        }),
    );
    let run = interrupt(&Bench::new(types), json!({"nodes": [{"id": "a", "type": "pays"}]})).await;
    assert_eq!(output(&run), json!({"a": 0}));
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unsafe_effect_of_unknown_fate_fails_and_a_pure_one_is_repeated() {
    let act = |class: EffectClass| {
        Do(move |attempt: Attempt| async move {
            let first = attempt.attempt == 1;
            let hang_first = || async move {
                if first {
                    std::future::pending::<()>().await;
                }
                Ok(json!("did"))
            };
            attempt.effects.once("act", class, &json!({}), hang_first).await
        })
    };
    let bench =
        Bench::new(types().with("unsafe", act(EffectClass::Unsafe)).with("pure", act(EffectClass::Pure)));
    for (node_type, state) in [("unsafe", RunState::Failed), ("pure", RunState::Succeeded)] {
        let run = bench.accept(json!({"nodes": [{"id": "a", "type": node_type}]}), None).await;
        let owner = InstanceId::new();
        let claimed = bench.store.claim_run(owner, run).await.unwrap().unwrap();
        let announced = async {
            while bench.store.journal(run).len() < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            end = bench.engine.drive(claimed, Signals::default()) => panic!("{end:?}"),
            () = announced => {}
        }
        bench.store.kill(owner);
        bench.store.recover_dead_instances(20).await.unwrap();
        bench.drive(run, Signals::default()).await;
        let ended = bench.store.run(run).unwrap();
        assert_eq!(ended.state, state, "{node_type}: {}", message(&ended));
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_definition_does_not_hold_any_more_fails_and_says_so() {
    let bench = Bench::new(NodeTypes::builtin());
    let run = bench.run(json!({"nodes": [{"id": "a", "type": "gone"}]})).await;
    assert_eq!(run.state, RunState::Failed);
    assert!(message(&run).contains("there is no node type `gone`"), "{}", message(&run));
}

/// Looks slowly, and finds something that came for its first attempt alone.
struct LooksSlowly;

impl NodeSpec for LooksSlowly {}

#[async_trait]
impl NodeExecutor for LooksSlowly {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        match (attempt.failures, attempt.woken) {
            (0, true) => Err(NodeFailure::retryable(FailureKind::TimedOut, "as planned")),
            (_, true) => Ok(Outcome::Done(json!("second"))),
            (failures, false) => {
                let until = attempt.now + Duration::from_millis(if failures == 0 { 500 } else { 3000 });
                Ok(Outcome::Wait(Wait { on: WaitingFor::Child, until: Some(until) }))
            }
        }
    }

    async fn poll(&self, attempt: Attempt) -> Result<PollOutcome, NodeFailure> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok((attempt.failures == 0).then(|| Outcome::Done(json!("first"))).into())
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_attempt_finds_too_late_is_not_what_the_next_one_waits_for() {
    let bench = Bench::new(types().with("slow", LooksSlowly));
    let node = json!({"id": "a", "type": "slow", "retry": {"max_attempts": 2, "initial_backoff_ms": 10}});
    assert_eq!(output(&bench.run(json!({"nodes": [node]})).await), json!({"a": "second"}));
}

/// Starts a child run, and then hangs.
struct StartsAndHangs(MemoryStore);

impl NodeSpec for StartsAndHangs {}

#[async_trait]
impl NodeExecutor for StartsAndHangs {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let definition = json!({"nodes": [{"id": "a", "type": "trigger"}]});
        let graph = Digest::of_json(&definition);
        ChildRuns::ensure_graph(&self.0, graph, &definition).await.unwrap();
        let child =
            NewChild { item: 0, graph, input: json!({}), pipeline: None, deadline_at: None, permit: None };
        self.0.start(&Parent::of(&attempt), ChildKind::Awaited, vec![child], &[]).await.unwrap();
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn i4_what_an_interrupted_node_had_started_is_asked_to_end_with_its_run() {
    let mut bench = Bench::new(types());
    let types = types().with("start", StartsAndHangs(bench.store.clone()));
    let (engine, service) =
        Engine::new(Arc::new(bench.store.clone()), types, Arc::new(bench.clock), EngineSettings::default());
    tokio::spawn(service.run(bench.stop.clone()));
    bench.engine = engine;
    let run = bench.accept(json!({"nodes": [{"id": "s", "type": "start"}]}), None).await;
    let victim = InstanceId::new();
    let claimed = bench.store.claim_run(victim, run).await.unwrap().unwrap();
    let died = tokio::time::timeout(Duration::from_secs(1), bench.engine.drive(claimed, Signals::default()));
    assert!(died.await.is_err(), "it hangs");
    bench.store.kill(victim);
    bench.store.recover_dead_instances(20).await.unwrap();
    bench.store.request_cancel(run);
    assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Ended(RunEvent::Cancelled));
    let child = bench.store.runs().into_iter().find(|child| child.place.is_some()).unwrap();
    assert!(child.cancel_requested, "{child:?}");
}
