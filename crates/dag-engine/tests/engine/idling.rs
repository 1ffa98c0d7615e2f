//! How often a runner polls, under virtual time: rarely while there is nothing to do, and soon when there is.

use std::sync::Arc;
use std::time::Duration;

use gathering_dag_engine::testing::{Faults, MemoryStore, VirtualClock};
use gathering_dag_engine::{
    Clock, Engine, EngineSettings, NewRun, NodeTypes, RunStore, Runner, RunnerHandle, RunnerSettings,
};
use gathering_domain::{Digest, InstanceId, ProjectId, RunId, RunState};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

const SAFETY_NET: Duration = Duration::from_secs(60);

/// A runner on a store that counts its queries.
struct Bench {
    store: MemoryStore,
    clock: VirtualClock,
    faults: Arc<Faults>,
    runner: RunnerHandle,
    _stop: DropGuard,
}

impl Bench {
    /// A runner that has found nothing to do.
    async fn idle() -> Self {
        let clock = VirtualClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let (store, faults) = (MemoryStore::new(Arc::new(clock)), Arc::<Faults>::default());
        let seen = Arc::new(store.seen_with(Arc::clone(&faults)));
        let (engine, service) =
            Engine::new(seen, NodeTypes::builtin(), Arc::new(clock), EngineSettings::default());
        let runner = Runner::new(engine, InstanceId::new(), RunnerSettings::default());
        let (stop, handle) = (CancellationToken::new(), runner.handle());
        tokio::spawn(service.run(stop.clone()));
        tokio::spawn(runner.run(stop.clone(), CancellationToken::new()));
        let bench = Self { store, clock, faults, runner: handle, _stop: stop.drop_guard() };
        // Between two polls of the safety net.
        tokio::time::sleep(SAFETY_NET * 3 / 2).await;
        bench
    }

    async fn accept(&self, wait: Duration) -> RunId {
        let definition = json!({"nodes": [{"id": "a", "type": "delay", "config": {"seconds": 3}}]});
        let graph = Digest::of_json(&definition);
        self.store.ensure_graph(graph, &definition).await.unwrap();
        let (id, project) = (RunId::new(), ProjectId::new());
        let available_at = Some(self.clock.now() + wait);
        let run = NewRun { id, project, graph, input: json!({}), priority: 5, available_at, timeout: None };
        self.store.enqueue(run).await.unwrap();
        id
    }

    async fn n_calls_in(&self, duration: Duration) -> usize {
        let before = self.faults.n_calls();
        tokio::time::sleep(duration).await;
        self.faults.n_calls() - before
    }

    /// How long until the run is driven here.
    async fn until_driven(&self) -> Duration {
        let begin = Instant::now();
        self.runner.driving().wait_for(|is_driving| *is_driving).await.unwrap();
        begin.elapsed()
    }

    /// Another instance claims a run.
    async fn claimed_elsewhere(&self, run: RunId) -> InstanceId {
        let other = InstanceId::new();
        assert!(self.store.claim_run(other, run).await.unwrap().is_some());
        other
    }
}

#[tokio::test(start_paused = true)]
async fn while_no_instance_drives_a_runner_polls_twice_a_minute() {
    let bench = Bench::idle().await;
    let n_calls = bench.n_calls_in(Duration::from_secs(24 * 3600)).await;
    assert!(n_calls <= 2 * 24 * 60 + 2, "{n_calls} questions a day");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_tomorrow_does_not_make_a_runner_ask_more() {
    let bench = Bench::idle().await;
    bench.accept(Duration::from_secs(36 * 3600)).await;
    bench.runner.wake();
    let n_calls = bench.n_calls_in(Duration::from_secs(24 * 3600)).await;
    assert!(n_calls <= 2 * 24 * 60 + 10, "{n_calls} questions a day");
}

#[tokio::test(start_paused = true)]
async fn i4_a_run_whose_owner_dies_is_taken_over_within_a_second_by_a_runner_that_was_idle() {
    let bench = Bench::idle().await;
    let run = bench.accept(Duration::ZERO).await;
    let other = bench.claimed_elsewhere(run).await;
    // The wake-up reaches all instances, but another one claims first.
    bench.runner.wake();
    let n_calls = bench.n_calls_in(Duration::from_secs(600)).await;
    assert!(
        (590..=630).contains(&n_calls),
        "while somebody drives it looks every second: {n_calls} in 600 s"
    );
    bench.store.kill(other);
    let took = bench.until_driven().await;
    assert!(took <= Duration::from_millis(1010), "{took:?}");
    assert_eq!(bench.store.run(run).unwrap().recoveries, 1);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.store.run(run).unwrap().state, RunState::Succeeded);
    assert!(!*bench.runner.driving().borrow(), "it reports that it drives nothing");
    let n_calls = bench.n_calls_in(Duration::from_secs(3600)).await;
    assert!(n_calls <= 122, "idle again: {n_calls} questions in an hour");
}

#[tokio::test(start_paused = true)]
async fn i4_an_owner_that_dies_right_after_the_wake_up_is_found_dead_within_a_second() {
    let bench = Bench::idle().await;
    let run = bench.accept(Duration::ZERO).await;
    let other = bench.claimed_elsewhere(run).await;
    bench.runner.wake();
    bench.store.kill(other);
    let took = bench.until_driven().await;
    assert!(took <= Duration::from_millis(1010), "{took:?}");
}

/// No wake-up tells of a claim at a due time; all instances that wait for it know that time.
#[tokio::test(start_paused = true)]
async fn i4_an_owner_that_dies_with_a_run_whose_time_came_is_found_dead_within_a_second() {
    let bench = Bench::idle().await;
    let due = Duration::from_secs(600);
    let run = bench.accept(due).await;
    let moment = Duration::from_millis(1);
    tokio::time::sleep(due - moment).await;
    let other = bench.claimed_elsewhere(run).await;
    tokio::time::sleep(moment).await;
    bench.store.kill(other);
    let took = bench.until_driven().await;
    assert!(took <= Duration::from_millis(1010), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn i4_an_owner_that_dies_before_the_wake_up_about_its_claim_is_found_dead_by_the_safety_net() {
    let bench = Bench::idle().await;
    let run = bench.accept(Duration::ZERO).await;
    let other = bench.claimed_elsewhere(run).await;
    bench.store.kill(other);
    let took = bench.until_driven().await;
    assert!(took <= SAFETY_NET + Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_for_the_queue_is_never_lost_among_others() {
    let bench = Bench::idle().await;
    for round in 0..200 {
        bench.accept(Duration::ZERO).await;
        bench.runner.wake();
        bench.until_driven().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let run = bench.accept(Duration::ZERO).await;
        // Other wake-ups come before it, and while the runner handles them.
        for n in 0..20 {
            if n == round % 20 {
                bench.runner.wake();
            }
            bench.runner.wake_up_driven();
            for _ in 0..round / 20 {
                tokio::task::yield_now().await;
            }
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let state = bench.store.run(run).unwrap().state;
        assert_eq!(state, RunState::Succeeded, "in round {round}");
    }
}
