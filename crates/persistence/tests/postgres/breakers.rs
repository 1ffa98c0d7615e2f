//! Circuit breakers, shared by all runs and instances.

use std::time::Duration;

use crate::common::World;
use gathering_dag_engine::testing::{PortsFixture, breaker_cases};
use gathering_dag_engine::{Breaker, BreakerKey, BreakerStore};
use gathering_domain::{CircuitBreaker, PipelineId, RunId};
use gathering_persistence::{PgRunStore, Wake, WakeBus};
use serde_json::json;

const HOUR: Duration = Duration::from_secs(3600);

pub async fn breaker(world: &World) -> BreakerKey {
    let pipeline = world.insert_pipeline(&json!({"nodes": [{"id": "a", "type": "trigger"}]})).await;
    BreakerKey { pipeline, node: "a".parse().unwrap() }
}

fn settings(failure_threshold: u32, reset: Duration) -> CircuitBreaker {
    CircuitBreaker { failure_threshold, reset }
}

#[tokio::test]
async fn the_store_passes_the_engine_s_cases_of_breakers() {
    breaker_cases(async || Box::new(World::new().await) as Box<dyn PortsFixture>).await;
}

#[tokio::test]
async fn it_opens_with_the_last_of_so_many_failures_in_a_row() {
    let world = World::new().await;
    let key = breaker(&world).await;
    let (store, run, settings) = (&world.store, RunId::new(), settings(3, HOUR));
    for failures in 1..=2 {
        assert_eq!(store.note_failure(&key, run, &settings).await.unwrap(), Breaker::Closed { failures });
    }
    store.note_success(&key, run).await.unwrap();
    assert_eq!(store.list_unhealthy().await.unwrap(), [], "a success ends the row");
    for failures in 1..=2 {
        let counted = store.note_failure(&key, RunId::new(), &settings).await.unwrap();
        assert_eq!(counted, Breaker::Closed { failures });
    }
    let open = store.note_failure(&key, run, &settings).await.unwrap();
    assert!(matches!(open, Breaker::Open { .. }), "{open:?}");
    assert_eq!(
        store.note_failure(&key, run, &settings).await.unwrap(),
        open,
        "it stays open as long as it was"
    );
    store.note_success(&key, run).await.unwrap();
    assert_eq!(store.list_unhealthy().await.unwrap(), [(key.clone(), open)], "whose attempt began before");
    assert_eq!(store.try_probe(&key, run, HOUR).await.unwrap(), Some(open), "too early");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_that_would_probe_at_once_one_does() {
    let world = World::new().await;
    let key = breaker(&world).await;
    world.store.note_failure(&key, RunId::new(), &settings(1, Duration::ZERO)).await.unwrap();
    let mut probes = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (store, key) = (world.store.clone(), key.clone());
        probes.spawn(async move {
            let run = RunId::new();
            (run, store.try_probe(&key, run, HOUR).await.unwrap())
        });
    }
    let answers = probes.join_all().await;
    let is_own = |(run, stands): &&(RunId, Option<Breaker>)| matches!(stands, Some(Breaker::HalfOpen { probe, .. }) if probe == run);
    assert_eq!(answers.iter().filter(is_own).count(), 1, "{answers:?}");
    let (winner, stands) = *answers.iter().find(is_own).unwrap();
    assert!(answers.iter().all(|answer| answer.1 == stands), "all hear of the same probe");
    assert_eq!(world.store.try_probe(&key, winner, HOUR).await.unwrap(), stands, "its answer got lost");
}

#[tokio::test]
async fn only_the_probe_closes_or_opens_it_again() {
    let world = World::new().await;
    let key = breaker(&world).await;
    let (store, probe, other) = (&world.store, RunId::new(), RunId::new());
    let at_once = settings(1, Duration::ZERO);
    store.note_failure(&key, other, &at_once).await.unwrap();
    let probed = store.try_probe(&key, probe, HOUR).await.unwrap().unwrap();
    store.note_success(&key, other).await.unwrap();
    assert_eq!(store.note_failure(&key, other, &at_once).await.unwrap(), probed);
    let open = store.note_failure(&key, probe, &at_once).await.unwrap();
    assert!(matches!(open, Breaker::Open { .. }), "{open:?}");
    // A probe that does not answer in time is given to another, and what it says then counts for nothing.
    store.try_probe(&key, probe, Duration::ZERO).await.unwrap();
    let next = store.try_probe(&key, other, HOUR).await.unwrap();
    assert!(matches!(next, Some(Breaker::HalfOpen { probe, .. }) if probe == other), "{next:?}");
    store.note_success(&key, probe).await.unwrap();
    assert_eq!(store.list_unhealthy().await.unwrap().len(), 1);
    store.note_success(&key, other).await.unwrap();
    assert_eq!(store.list_unhealthy().await.unwrap(), []);
    assert_eq!(store.try_probe(&key, other, HOUR).await.unwrap(), None, "healthy");
}

#[tokio::test]
async fn other_instances_are_told_and_a_deleted_pipeline_has_no_breakers() {
    let world = World::new().await;
    let key = breaker(&world).await;
    let wakes = WakeBus::new();
    let store = PgRunStore::new(world.pool.clone(), wakes.clone());
    let mut heard = wakes.subscribe(Wake::Breakers);
    store.note_success(&key, RunId::new()).await.unwrap();
    assert!(!heard.has_changed().unwrap(), "nothing changed");
    store.note_failure(&key, RunId::new(), &settings(2, HOUR)).await.unwrap();
    assert!(heard.has_changed().unwrap());
    heard.mark_unchanged();
    store.note_success(&key, RunId::new()).await.unwrap();
    assert!(heard.has_changed().unwrap());
    let gone = BreakerKey { pipeline: PipelineId::new(), ..key };
    let stands = store.note_failure(&gone, RunId::new(), &settings(1, HOUR)).await.unwrap();
    assert_eq!(stands, Breaker::Closed { failures: 0 });
}
