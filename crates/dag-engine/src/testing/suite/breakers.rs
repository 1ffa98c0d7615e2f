//! The promises of [`crate::BreakerStore`].

use std::time::Duration;

use gathering_domain::{CircuitBreaker, RunId};

use super::ports::{PortsFixture, node};
use crate::breaker::{Breaker, BreakerKey};

const HOUR: Duration = Duration::from_secs(3600);

/// Every case that an implementation of [`crate::BreakerStore`] must pass, each on a fixture of its own.
///
/// # Panics
/// At the first promise that does not hold.
pub async fn breaker_cases<F, Fut>(make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Box<dyn PortsFixture>>,
{
    a_breaker_opens_with_the_last_of_so_many_failures_in_a_row(&*make().await).await;
    an_open_breaker_is_not_closed_by_a_success_that_comes_late(&*make().await).await;
    of_several_that_would_probe_at_once_one_does(&*make().await).await;
    the_success_of_the_probe_closes_a_breaker(&*make().await).await;
    the_failure_of_the_probe_opens_it_again(&*make().await).await;
    a_probe_that_does_not_answer_in_time_is_given_to_another(&*make().await).await;
    each_node_of_each_pipeline_has_its_own(&*make().await).await;
}

async fn key(fixture: &dyn PortsFixture) -> BreakerKey {
    BreakerKey { pipeline: fixture.pipeline().await, node: node("call") }
}

fn settings(failure_threshold: u32, reset: Duration) -> CircuitBreaker {
    CircuitBreaker { failure_threshold, reset }
}

/// A breaker that may be probed at once.
async fn open(fixture: &dyn PortsFixture) -> BreakerKey {
    let key = key(fixture).await;
    let opened =
        fixture.breakers().note_failure(&key, RunId::new(), &settings(1, Duration::ZERO)).await.unwrap();
    assert!(is_open(Some(opened)), "{opened:?}");
    key
}

fn is_open(breaker: Option<Breaker>) -> bool {
    matches!(breaker, Some(Breaker::Open { .. }))
}

fn is_probe_of(run: RunId, breaker: Option<Breaker>) -> bool {
    matches!(breaker, Some(Breaker::HalfOpen { probe, .. }) if probe == run)
}

async fn a_breaker_opens_with_the_last_of_so_many_failures_in_a_row(fixture: &dyn PortsFixture) {
    let (key, store, run) = (key(fixture).await, fixture.breakers(), RunId::new());
    let thrice = settings(3, HOUR);
    assert_eq!(store.note_success(&key, run).await.unwrap(), None, "healthy as ever");
    for failures in 1..=2 {
        let counted = store.note_failure(&key, run, &thrice).await.unwrap();
        assert_eq!(counted, Breaker::Closed { failures });
    }
    assert_eq!(store.list_unhealthy().await.unwrap(), [(key.clone(), Breaker::Closed { failures: 2 })]);
    assert_eq!(store.note_success(&key, run).await.unwrap(), None, "a success ends the row");
    assert_eq!(store.list_unhealthy().await.unwrap(), []);
    for failures in 1..=2 {
        let counted = store.note_failure(&key, RunId::new(), &thrice).await.unwrap();
        assert_eq!(counted, Breaker::Closed { failures }, "failures of all runs count");
    }
    let opened = store.note_failure(&key, run, &thrice).await.unwrap();
    assert!(is_open(Some(opened)), "{opened:?}");
    let again = store.note_failure(&key, run, &thrice).await.unwrap();
    assert_eq!(again, opened, "it stays open as long as it was");
    assert_eq!(store.list_unhealthy().await.unwrap(), [(key.clone(), opened)]);
    assert_eq!(store.try_probe(&key, run, HOUR).await.unwrap(), Some(opened), "too early");
}

async fn an_open_breaker_is_not_closed_by_a_success_that_comes_late(fixture: &dyn PortsFixture) {
    let (key, store) = (key(fixture).await, fixture.breakers());
    let opened = store.note_failure(&key, RunId::new(), &settings(1, HOUR)).await.unwrap();
    assert_eq!(
        store.note_success(&key, RunId::new()).await.unwrap(),
        Some(opened),
        "the caller learns of it"
    );
    assert_eq!(store.list_unhealthy().await.unwrap(), [(key, opened)]);
}

async fn of_several_that_would_probe_at_once_one_does(fixture: &dyn PortsFixture) {
    let (key, store) = (open(fixture).await, fixture.breakers());
    let probes = (0..8).map(|_| async {
        let run = RunId::new();
        (run, store.try_probe(&key, run, HOUR).await.unwrap())
    });
    let answers = futures::future::join_all(probes).await;
    let winners: Vec<_> = answers.iter().filter(|(run, stands)| is_probe_of(*run, *stands)).collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    let (winner, stands) = *winners[0];
    assert!(answers.iter().all(|answer| answer.1 == stands), "all learn of the same probe");
    assert_eq!(store.try_probe(&key, winner, HOUR).await.unwrap(), stands, "its answer was lost");
}

async fn the_success_of_the_probe_closes_a_breaker(fixture: &dyn PortsFixture) {
    let (key, store, probe, other) = (open(fixture).await, fixture.breakers(), RunId::new(), RunId::new());
    let probed = store.try_probe(&key, probe, HOUR).await.unwrap();
    assert!(is_probe_of(probe, probed), "{probed:?}");
    assert_eq!(store.note_success(&key, other).await.unwrap(), probed, "another run's says nothing");
    assert_eq!(store.note_success(&key, probe).await.unwrap(), None);
    assert_eq!(store.list_unhealthy().await.unwrap(), []);
    assert_eq!(store.try_probe(&key, other, HOUR).await.unwrap(), None, "healthy");
}

async fn the_failure_of_the_probe_opens_it_again(fixture: &dyn PortsFixture) {
    let (key, store, probe, other) = (open(fixture).await, fixture.breakers(), RunId::new(), RunId::new());
    let probed = store.try_probe(&key, probe, HOUR).await.unwrap();
    let noted = store.note_failure(&key, other, &settings(1, HOUR)).await.unwrap();
    assert_eq!(Some(noted), probed, "another run's says nothing");
    let noted = store.note_failure(&key, probe, &settings(9, HOUR)).await.unwrap();
    assert!(is_open(Some(noted)), "one failure is enough: {noted:?}");
    assert_eq!(store.try_probe(&key, other, HOUR).await.unwrap(), Some(noted), "for an hour");
}

async fn a_probe_that_does_not_answer_in_time_is_given_to_another(fixture: &dyn PortsFixture) {
    let (key, store, lost, next) = (open(fixture).await, fixture.breakers(), RunId::new(), RunId::new());
    store.try_probe(&key, lost, Duration::ZERO).await.unwrap();
    let probed = store.try_probe(&key, next, HOUR).await.unwrap();
    assert!(is_probe_of(next, probed), "{probed:?}");
    assert_eq!(store.note_success(&key, lost).await.unwrap(), probed, "its late answer does not count");
    assert_eq!(store.note_failure(&key, lost, &settings(1, HOUR)).await.unwrap(), probed.unwrap());
    assert_eq!(store.note_success(&key, next).await.unwrap(), None);
}

async fn each_node_of_each_pipeline_has_its_own(fixture: &dyn PortsFixture) {
    let (key, store, run) = (open(fixture).await, fixture.breakers(), RunId::new());
    let neighbour = BreakerKey { node: node("other"), ..key.clone() };
    let elsewhere = BreakerKey { pipeline: fixture.pipeline().await, ..key };
    for healthy in [&neighbour, &elsewhere] {
        assert_eq!(store.try_probe(healthy, run, HOUR).await.unwrap(), None);
        let counted = store.note_failure(healthy, run, &settings(2, HOUR)).await.unwrap();
        assert_eq!(counted, Breaker::Closed { failures: 1 });
    }
    assert_eq!(store.list_unhealthy().await.unwrap().len(), 3);
}
