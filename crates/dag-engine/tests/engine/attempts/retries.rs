//! When a failed attempt is followed by another one. Under virtual time.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use gathering_dag_engine::{Attempt, JournalEntry, JournalEvent, NodeFailure, RunStore, Signals};
use gathering_domain::{FailureKind, InstanceId, RunId, RunState};
use serde_json::{Value, json};

use super::bench::{Bench, Do, finish, output};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A node type whose first attempt fails, because the other side wants no request for so long.
fn bench(pause: Option<Duration>) -> Bench {
    let node = Do(move |attempt: Attempt| async move {
        if attempt.attempt > 1 {
            return Ok(json!({}));
        }
        Err(NodeFailure::retryable(FailureKind::RateLimited, "not now").with_retry_after(pause))
    });
    Bench::new(|types, _| types.with("limited", node))
}

fn definition(max_attempts: u32, initial_backoff_ms: u64) -> Value {
    let retry = json!({
        "max_attempts": max_attempts, "initial_backoff_ms": initial_backoff_ms, "max_backoff_ms": initial_backoff_ms,
        "jitter": 0,
    });
    json!({"nodes": [{"id": "a", "type": "limited", "retry": retry}]})
}

/// When the attempts of the only node started.
fn starts(bench: &Bench, run: RunId) -> Vec<DateTime<Utc>> {
    let is_start = |entry: &JournalEntry| entry.record.event == JournalEvent::Started;
    bench.store.journal(run).into_iter().filter(is_start).map(|entry| entry.at).collect()
}

/// How long after the first attempt's start the next one is due.
async fn wait_of(pause: Option<Duration>, initial_backoff_ms: u64) -> Duration {
    let bench = bench(pause);
    let run = bench.accept(definition(2, initial_backoff_ms)).await;
    let drives = bench.drive(run, Signals::default());
    // A short wait is driven to its end, a long one parks the run.
    tokio::time::timeout(Duration::from_secs(600), drives).await.unwrap();
    let journal = bench.store.journal(run);
    let mut waits = journal.iter().filter_map(|entry| match entry.record.event {
        JournalEvent::Retrying { until, .. } => Some(until - starts(&bench, run)[0]),
        _ => None,
    });
    waits.next().unwrap().to_std().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_as_long_as_the_other_side_asks_and_never_shorter_than_its_back_off() {
    let asked = Duration::from_millis(90_250);
    for (pause, initial_backoff_ms, expected) in [
        (None, 500, Duration::from_millis(500)),
        (Some(asked), 500, asked),
        (Some(asked), 120_000, Duration::from_secs(120)),
        (Some(Duration::ZERO), 500, Duration::from_millis(500)),
        (Some(Duration::from_micros(90_250_001)), 500, asked + Duration::from_millis(1)),
        (Some(DAY * 2), 500, DAY),
        (Some(Duration::MAX), 500, DAY),
    ] {
        assert_eq!(wait_of(pause, initial_backoff_ms).await, expected, "{pause:?}, {initial_backoff_ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_gives_no_attempts_to_a_node_that_has_none_left() {
    let bench = bench(Some(DAY));
    let run = bench.run(definition(1, 500)).await;
    assert_eq!(run.state, RunState::Failed);
    assert_eq!(starts(&bench, run.new.id).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_expression_reads_only_the_documented_fields_of_an_error() {
    let bench = bench(Some(DAY));
    let run = bench
        .run(json!({
            "nodes": [{"id": "a", "type": "limited"}, {"id": "b", "type": "trigger"}],
            "edges": [{"from": "a", "to": "b", "on": "failure"}],
            "output": "nodes.a.error",
        }))
        .await;
    let error = json!({"kind": "rate_limited", "message": "not now", "retryable": true});
    assert_eq!(output(&run), error);
}

#[tokio::test(start_paused = true)]
async fn the_next_owner_keeps_the_time_that_the_other_side_asked_for() {
    let bench = bench(Some(Duration::from_secs(20)));
    let run = bench.accept(definition(2, 500)).await;
    let claimed = bench.store.claim_run(InstanceId::new(), run).await.unwrap().unwrap();
    let signals = Signals::default();
    let fence = signals.fence.clone();
    let crash = async {
        while !bench.kinds(run).contains(&"node_retrying") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        fence.cancel();
    };
    let owner = claimed.claim.owner;
    tokio::join!(bench.engine.drive(claimed, signals), crash);
    bench.store.kill(owner);
    bench.store.recover_dead_instances(20).await.unwrap();
    assert_eq!(finish(&bench, run).await.state, RunState::Succeeded);
    let starts = starts(&bench, run);
    let waited = starts[1] - starts[0];
    assert!(waited >= TimeDelta::seconds(20) && waited < TimeDelta::seconds(22), "{waited}");
}
