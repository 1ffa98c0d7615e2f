//! Nodes that wait for their budget: they go on where they stopped, in the same attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gathering_dag_engine::{
    Attempt, DriveEnd, EffectClass, NodeExecutor, NodeFailure, NodeRun, NodeSpec, NodeState, Outcome,
    PollOutcome, Signals, Wait,
};
use gathering_domain::{RunEvent, RunId, RunState, WaitingFor};
use serde_json::{Value, json};

use super::bench::Bench;

/// Buys three things, one after the other; the last takes a while.
#[derive(Clone, Default)]
struct Buys {
    money: Arc<AtomicUsize>,
    n_bought: Arc<AtomicUsize>,
    n_looks: Arc<AtomicUsize>,
}

impl Buys {
    fn bench(&self) -> Bench {
        Bench::new(|types, _| types.with("buy", self.clone()))
    }

    fn earn(&self, bench: &Bench, run: RunId) {
        self.money.fetch_add(1, Ordering::SeqCst);
        bench.store.act_on(run);
    }

    fn n_bought(&self) -> usize {
        self.n_bought.load(Ordering::SeqCst)
    }
}

impl NodeSpec for Buys {}

#[async_trait]
impl NodeExecutor for Buys {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        for thing in ["bread", "salt", "wine"] {
            let pay = |money: usize| money.checked_sub(1);
            let can_go_on = attempt.effects.is_done(thing, &json!(thing))
                || self.money.fetch_update(Ordering::SeqCst, Ordering::SeqCst, pay).is_ok();
            if !can_go_on {
                return Ok(Outcome::Wait(Wait { on: WaitingFor::BudgetExceeded, until: None }));
            }
            let buy = || async {
                let haste = if thing == "wine" { 0 } else { 8 };
                tokio::time::sleep(Duration::from_secs(8 - haste)).await;
                self.n_bought.fetch_add(1, Ordering::SeqCst);
                Ok(Value::Null)
            };
            attempt.effects.once(thing, EffectClass::Unsafe, &json!(thing), buy).await?;
        }
        Ok(Outcome::Done(json!("fed")))
    }

    async fn poll(&self, _attempt: Attempt) -> Result<PollOutcome, NodeFailure> {
        self.n_looks.fetch_add(1, Ordering::SeqCst);
        Ok(if self.money.load(Ordering::SeqCst) > 0 { PollOutcome::Resume } else { PollOutcome::Pending })
    }
}

fn definition() -> Value {
    json!({"nodes": [{"id": "a", "type": "buy"}], "output": "nodes.a.output"})
}

fn node(bench: &Bench, run: RunId) -> NodeRun {
    NodeRun::fold(&bench.store.journal(run)).unwrap().into_values().next().unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_its_budget_goes_on_in_the_same_attempt_and_repeats_nothing() {
    let buys = Buys::default();
    let bench = buys.bench();
    let run = bench.accept(definition()).await;
    for n_bought in 0..3 {
        assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Parked);
        assert_eq!(buys.n_bought(), n_bought);
        let waits = node(&bench, run);
        assert_eq!((waits.state, waits.waiting_for), (NodeState::Waiting, Some(WaitingFor::BudgetExceeded)));
        buys.earn(&bench, run);
    }
    assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Ended(RunEvent::Succeeded));
    assert_eq!(buys.n_bought(), 3);
    let ended = node(&bench, run);
    assert_eq!((ended.state, ended.attempt, ended.failures), (NodeState::Succeeded, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_look_in_vain_leaves_nothing_in_the_journal_and_is_not_repeated_by_itself() {
    let buys = Buys::default();
    let bench = buys.bench();
    let run = bench.accept(definition()).await;
    assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Parked);
    let before = bench.kinds(run);
    let n_looks = buys.n_looks.load(Ordering::SeqCst);
    bench.store.act_on(run);
    assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Parked);
    assert_eq!(bench.kinds(run)[before.len()..], ["taken_over"]);
    assert_eq!(buys.n_looks.load(Ordering::SeqCst), n_looks + 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_waits_longer_than_its_timeout_fails_and_begins_nothing_more() {
    let buys = Buys::default();
    let bench = buys.bench();
    let mut definition = definition();
    definition["nodes"][0]["timeout_seconds"] = json!(3);
    let run = bench.accept(definition).await;
    // Only an attempt that executes finds this, so the test sees whether one does.
    let late = async {
        while !bench.kinds(run).contains(&"node_waiting") {
            tokio::task::yield_now().await;
        }
        buys.money.store(1, Ordering::SeqCst);
    };
    tokio::join!(bench.drive(run, Signals::default()), late);
    assert_eq!(bench.store.run(run).unwrap().state, RunState::Failed);
    assert_eq!((node(&bench, run).state, buys.n_bought()), (NodeState::TimedOut, 0));
}

#[tokio::test(start_paused = true)]
async fn what_an_attempt_waited_for_its_budget_is_part_of_its_time() {
    for (timeout, state) in [(12, NodeState::TimedOut), (14, NodeState::Succeeded)] {
        let buys = Buys::default();
        let bench = buys.bench();
        let mut definition = definition();
        definition["nodes"][0]["timeout_seconds"] = json!(timeout);
        buys.money.store(2, Ordering::SeqCst);
        let run = bench.accept(definition).await;
        assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Parked);
        tokio::time::sleep(Duration::from_secs(5)).await;
        buys.earn(&bench, run);
        bench.drive(run, Signals::default()).await;
        assert_eq!(node(&bench, run).state, state, "{timeout} s");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_go_on_while_its_instance_stops_goes_on_with_the_next_one() {
    let buys = Buys::default();
    let bench = buys.bench();
    let run = bench.accept(definition()).await;
    assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Parked);
    buys.earn(&bench, run);
    let stopping = Signals::default();
    stopping.drain.cancel();
    assert_eq!(bench.drive(run, stopping).await, DriveEnd::Requeued);
    assert_eq!((node(&bench, run).state, buys.n_bought()), (NodeState::Waiting, 0));
    assert_eq!(bench.drive(run, Signals::default()).await, DriveEnd::Parked);
    assert_eq!(buys.n_bought(), 1);
}
