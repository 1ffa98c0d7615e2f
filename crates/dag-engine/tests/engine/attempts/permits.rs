//! Nodes whose attempts are limited in all runs together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gathering_dag_engine::testing::{Fault, Faults};
use gathering_dag_engine::{Attempt, DriveEnd, NodeFailure, RunStore, Signals};
use gathering_domain::{InstanceId, PipelineId, RunEvent, RunId, RunState};
use serde_json::{Value, json};

use super::bench::{Bench, Do};

/// How many attempts execute, and how many did at most.
#[derive(Clone, Default)]
pub struct Counted {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Counted {
    pub fn bench(&self) -> Bench {
        let counted = self.clone();
        let work = move |attempt: Attempt| {
            let counted = counted.clone();
            async move {
                let n = counted.now.fetch_add(1, Ordering::SeqCst) + 1;
                counted.most.fetch_max(n, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(3)).await;
                counted.now.fetch_sub(1, Ordering::SeqCst);
                match attempt.input["fails"].as_bool() {
                    Some(true) if attempt.failures == 0 => {
                        Err(NodeFailure::retryable("planned".parse().unwrap(), "as planned"))
                    }
                    _ => Ok(json!(attempt.attempt)),
                }
            }
        };
        Bench::new(|types, _| types.with("work", Do(work)))
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

fn definition(concurrency: &Value) -> Value {
    json!({"nodes": [{
        "id": "a", "type": "work", "concurrency": concurrency, "timeout_seconds": 4,
        "retry": {"max_attempts": 2, "initial_backoff_ms": 1000, "jitter": 0},
    }]})
}

async fn accept(bench: &Bench, pipeline: PipelineId, concurrency: &Value, input: Value) -> RunId {
    let run = bench.accept_with(definition(concurrency), input).await;
    bench.store.make_run_of(pipeline, run);
    run
}

/// Does this once the first of several runs surely has the permit.
pub async fn after_the_first<T>(work: impl Future<Output = T>) -> T {
    tokio::time::sleep(Duration::from_millis(10)).await;
    work.await
}

/// Drives a run, also when it was parked, until it has ended.
pub async fn drive_to_end(bench: &Bench, run: RunId) -> RunState {
    loop {
        let end = bench.drive(run, Signals::default()).await;
        assert!(matches!(end, DriveEnd::Ended(_) | DriveEnd::Parked), "{end:?}");
        if end != DriveEnd::Parked {
            return bench.store.run(run).unwrap().state;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_attempts_execute_than_the_node_has_permits_and_waiting_is_no_time_of_the_attempt() {
    let counted = Counted::default();
    let bench = counted.bench();
    let pipeline = PipelineId::new();
    let limit = json!({"limit": 1});
    let [one, two, three] = [
        accept(&bench, pipeline, &limit, json!({})).await,
        accept(&bench, pipeline, &limit, json!({})).await,
        accept(&bench, pipeline, &limit, json!({})).await,
    ];
    let ends =
        tokio::join!(drive_to_end(&bench, one), drive_to_end(&bench, two), drive_to_end(&bench, three));
    assert_eq!(ends, (RunState::Succeeded, RunState::Succeeded, RunState::Succeeded));
    assert_eq!(counted.most(), 1);
    // The last of the line waited longer than its node may take. Each one waited once at most, and none was repeated.
    let mut n_entries = [one, two, three].map(|run| {
        let kinds = bench.kinds(run);
        assert!(!kinds.contains(&"node_retrying"), "{kinds:?}");
        kinds.iter().filter(|kind| kind.starts_with("node_")).count()
    });
    n_entries.sort_unstable();
    assert_eq!(n_entries, [2, 4, 4], "started, (waiting, woken,) succeeded");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_waits_for_a_time_waits_in_full_once_it_has_its_permit() {
    let bench = Counted::default().bench();
    let pipeline = PipelineId::new();
    let definition = json!({"nodes": [{
        "id": "rest", "type": "delay", "config": {"seconds": 5}, "concurrency": {"limit": 1}, "timeout_seconds": 6,
    }]});
    let [first, second] =
        [bench.accept(definition.clone()).await, bench.accept(definition).await].map(|run| {
            bench.store.make_run_of(pipeline, run);
            run
        });
    let ends = tokio::join!(drive_to_end(&bench, first), after_the_first(drive_to_end(&bench, second)));
    assert_eq!(ends, (RunState::Succeeded, RunState::Succeeded));
    let [first, second] = [first, second].map(|run| bench.store.journal(run).last().unwrap().at);
    let between = (second - first).to_std().unwrap();
    assert!(between >= Duration::from_secs(5), "{between:?}: the time in line is no part of the delay");
}

#[tokio::test(start_paused = true)]
async fn each_key_has_permits_of_its_own() {
    let counted = Counted::default();
    let bench = counted.bench();
    let pipeline = PipelineId::new();
    let limit = json!({"limit": 1, "key": "input.customer"});
    let runs = [
        accept(&bench, pipeline, &limit, json!({"customer": "a"})).await,
        accept(&bench, pipeline, &limit, json!({"customer": "b"})).await,
    ];
    tokio::join!(drive_to_end(&bench, runs[0]), drive_to_end(&bench, runs[1]));
    assert_eq!(counted.most(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_gives_its_permit_back_while_it_waits_for_its_next_attempt() {
    let counted = Counted::default();
    let bench = counted.bench();
    let pipeline = PipelineId::new();
    let limit = json!({"limit": 1});
    let fails = accept(&bench, pipeline, &limit, json!({"fails": true})).await;
    let other = accept(&bench, pipeline, &limit, json!({})).await;
    let ends = tokio::join!(drive_to_end(&bench, fails), after_the_first(drive_to_end(&bench, other)));
    assert_eq!(ends, (RunState::Succeeded, RunState::Succeeded));
    assert_eq!(counted.most(), 1);
    let ended = |run: RunId| bench.store.journal(run).last().unwrap().at;
    assert!(ended(other) < ended(fails), "the other one executed between the attempts");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_while_its_node_stands_in_line_leaves_the_line() {
    let counted = Counted::default();
    let bench = counted.bench();
    let pipeline = PipelineId::new();
    let limit = json!({"limit": 1});
    let first = accept(&bench, pipeline, &limit, json!({})).await;
    let leaves = accept(&bench, pipeline, &limit, json!({})).await;
    let last = accept(&bench, pipeline, &limit, json!({})).await;
    let leaving = async {
        let signals = Signals::default();
        let cancel = signals.cancel.clone();
        let cancelling = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            cancel.cancel();
        };
        tokio::join!(bench.drive(leaves, signals), cancelling).0
    };
    let ends =
        tokio::join!(drive_to_end(&bench, first), after_the_first(leaving), drive_to_end(&bench, last));
    assert_eq!(ends, (RunState::Succeeded, DriveEnd::Ended(RunEvent::Cancelled), RunState::Succeeded));
    assert_eq!(counted.most(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_only_after_its_question_is_answered_and_leaves_no_permit_behind() {
    let bench = Counted::default().bench();
    let (pipeline, limit) = (PipelineId::new(), json!({"limit": 1}));
    let asks = accept(&bench, pipeline, &limit, json!({})).await;
    let slow = Faults::planned([(0, Fault::Delay(Duration::from_secs(2)))]);
    let engine = bench.engine.clone().with_node_permits(Arc::new(bench.store.seen_with(Arc::new(slow))));
    let signals = Signals::default();
    let cancel = signals.cancel.clone();
    let claimed = bench.store.claim_run(InstanceId::new(), asks).await.unwrap().unwrap();
    let began = tokio::time::Instant::now();
    let cancelling = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cancel.cancel();
    };
    let (end, ()) = tokio::join!(engine.drive(claimed, signals), cancelling);
    assert_eq!(end, DriveEnd::Ended(RunEvent::Cancelled));
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}: the question was under way", began.elapsed());
    let later = accept(&bench, pipeline, &limit, json!({})).await;
    assert_eq!(drive_to_end(&bench, later).await, RunState::Succeeded);
    assert!(!bench.kinds(later).contains(&"node_waiting"), "the permit is free");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_none_fails_the_node_and_names_its_place() {
    let bench = Counted::default().bench();
    let limit = json!({"limit": 1, "key": "input.customer"});
    let run = accept(&bench, PipelineId::new(), &limit, json!({"customer": [1]})).await;
    assert_eq!(drive_to_end(&bench, run).await, RunState::Failed);
    let error = bench.store.run(run).unwrap().end.unwrap().result.error().unwrap().message.clone();
    let expected = "/nodes/0/concurrency/key: a key must be a string, a number, true or false";
    assert!(error.contains(expected), "{error}");
}
