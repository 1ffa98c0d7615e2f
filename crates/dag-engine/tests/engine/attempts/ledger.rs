//! The effect ledger is complete, and nothing unsafe is repeated silently.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gathering_dag_engine::{ActFailed, Attempt, DriveEnd, EffectClass, NodeFailure, Signals};
use gathering_domain::{FailureKind, RunEvent, RunState};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::bench::{Bench, Do, message, output};

/// A node that acts once, as often as it is attempted; and how often it acted.
fn acting(
    class: EffectClass,
    act: impl Fn(usize) -> Result<Value, ActFailed> + Clone + Send + Sync + 'static,
) -> (Bench, Arc<AtomicUsize>) {
    let n_acts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&n_acts);
    let acts = Do(move |attempt: Attempt| {
        let (counted, act) = (Arc::clone(&counted), act.clone());
        async move {
            let act = || async { act(counted.fetch_add(1, Ordering::SeqCst)) };
            attempt.effects.once("act", class, &json!({}), act).await
        }
    });
    (Bench::new(|types, _| types.with("acts", acts)), n_acts)
}

fn pipeline() -> Value {
    json!({"nodes": [{"id": "a", "type": "acts", "retry": {"max_attempts": 3, "initial_backoff_ms": 10}}]})
}

fn no_answer() -> NodeFailure {
    NodeFailure::retryable(FailureKind::Unanswered, "the peer did not answer in time")
}

#[tokio::test(start_paused = true)]
async fn an_unsafe_effect_that_may_have_taken_place_is_not_repeated_by_a_retry() {
    let (bench, n_acts) = acting(EffectClass::Unsafe, |_| Err(no_answer().into()));
    let run = bench.run(pipeline()).await;
    assert_eq!((run.state, n_acts.load(Ordering::SeqCst)), (RunState::Failed, 1));
    assert_eq!(
        bench.kinds(run.new.id),
        ["node_started", "effect_started", "effect_unknown", "node_failed"],
        "the ledger does not say that it did not take place"
    );
    let said = message(&run);
    assert!(said.contains("may have taken place") && said.contains("did not answer in time"), "{said}");
    assert!(!said.contains("crash"), "nothing crashed: {said}");
}

#[tokio::test(start_paused = true)]
async fn an_unsafe_effect_that_cannot_have_taken_place_is_tried_again() {
    let (bench, n_acts) = acting(EffectClass::Unsafe, |n| match n {
        0 => Err(ActFailed::before_it_took_place(no_answer())),
        _ => Ok(json!("did")),
    });
    let run = bench.run(pipeline()).await;
    assert_eq!((output(&run), n_acts.load(Ordering::SeqCst)), (json!({"a": "did"}), 2));
    assert!(bench.kinds(run.new.id).contains(&"effect_failed"));
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_may_be_repeated_is_tried_again_whatever_came_of_it() {
    for class in [EffectClass::Pure, EffectClass::Idempotent] {
        let (bench, n_acts) = acting(class, |n| match n {
            0 => Err(no_answer().into()),
            _ => Ok(json!("did")),
        });
        let run = bench.run(pipeline()).await;
        assert_eq!((output(&run), n_acts.load(Ordering::SeqCst)), (json!({"a": "did"}), 2), "{class:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unsafe_effect_that_its_node_had_no_time_for_is_not_repeated_by_a_retry() {
    let hangs = Do(|attempt: Attempt| async move {
        let act = || async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(json!("did"))
        };
        attempt.effects.once("act", EffectClass::Unsafe, &json!({}), act).await
    });
    let bench = Bench::new(|types, _| types.with("acts", hangs));
    let mut pipeline = pipeline();
    pipeline["nodes"][0]["timeout_seconds"] = json!(1);
    let run = bench.run(pipeline).await;
    let said = message(&run);
    assert!(said.contains("may have taken place") && !said.contains("crash"), "{said}");
    let n_started = bench.kinds(run.new.id).iter().filter(|kind| **kind == "effect_started").count();
    assert_eq!((run.state, n_started), (RunState::Failed, 1));
}

/// What ends a drive from outside.
type Stop = fn(&Signals) -> &CancellationToken;

/// A node that is stopped in the middle of what it does first, and would do something unsafe then.
fn stopped_in_the_middle(signals: &Signals, stop: Stop) -> (Bench, Arc<AtomicUsize>) {
    let n_acts = Arc::new(AtomicUsize::new(0));
    let (counted, signals) = (Arc::clone(&n_acts), signals.clone());
    let acts = Do(move |attempt: Attempt| {
        let (counted, signals) = (Arc::clone(&counted), signals.clone());
        async move {
            let act = || async {
                counted.fetch_add(1, Ordering::SeqCst);
                stop(&signals).cancel();
                Ok(json!("did"))
            };
            let did = attempt.effects.once("act", EffectClass::Idempotent, &json!({}), act).await?;
            let pay = || async { Ok(json!("paid")) };
            let paid = attempt.effects.once("pay", EffectClass::Unsafe, &json!({}), pay).await?;
            Ok(json!([did, paid]))
        }
    });
    (Bench::new(|types, _| types.with("acts", acts)), n_acts)
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_is_done_when_the_run_is_handed_back_is_not_repeated() {
    let signals = Signals::default();
    let (bench, n_acts) = stopped_in_the_middle(&signals, |signals| &signals.release);
    let run = bench.accept(pipeline()).await;
    assert_eq!(bench.drive(run, signals).await, DriveEnd::Requeued);
    assert_eq!(
        bench.kinds(run),
        ["node_started", "effect_started", "effect_done"],
        "the unsafe one, of which nobody said that its announcement is durable, has not begun"
    );
    assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Ended(RunEvent::Succeeded));
    assert_eq!(output(&bench.store.run(run).unwrap()), json!({"a": ["did", "paid"]}));
    assert_eq!(n_acts.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_is_done_when_the_run_is_cancelled_is_in_the_ledger() {
    let signals = Signals::default();
    let (bench, _) = stopped_in_the_middle(&signals, |signals| &signals.cancel);
    let run = bench.accept(pipeline()).await;
    assert_eq!(bench.drive(run, signals).await, DriveEnd::Ended(RunEvent::Cancelled));
    assert_eq!(bench.kinds(run), ["node_started", "effect_started", "effect_done", "node_cancelled"]);
}
