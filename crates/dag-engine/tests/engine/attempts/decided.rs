//! A person decides about a node whose end is unknown, and the rerun follows the decision.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gathering_dag_engine::testing::{MemoryStore, StoredRun};
use gathering_dag_engine::{
    Attempt, DecidedOutcome, EffectClass, NodeDecision, NodeFailure, Parent, RerunFrom, Signals,
};
use gathering_domain::{FailureKind, RunId, RunState};
use serde_json::{Value, json};

use super::bench::{Bench, Correction, Do, finish, message, output};

/// A bank that takes every payment, and gives no answer to the first one. It counts the idempotency keys.
#[derive(Clone, Default)]
struct Bank(Arc<Mutex<BTreeMap<String, usize>>>);

impl Bank {
    fn n_payments(&self) -> usize {
        self.0.lock().unwrap().values().sum()
    }

    fn n_keys(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn pay(&self, key: String) -> Result<Value, NodeFailure> {
        let is_first = self.n_payments() == 0;
        *self.0.lock().unwrap().entry(key).or_default() += 1;
        let no_answer = NodeFailure::permanent(FailureKind::Unanswered, "the bank hung up");
        if is_first { Err(no_answer) } else { Ok(json!("receipt")) }
    }

    /// Nodes of the type `pay` send the run's `amount`.
    fn bench(&self) -> Bench {
        let bank = self.clone();
        let pays = Do(move |attempt: Attempt| {
            let bank = bank.clone();
            async move {
                let request = json!({"amount": attempt.input["amount"]});
                let key = attempt.effects.idempotency_key("pay", &request);
                let act = || async {
                    let answer = bank.pay(key);
                    if attempt.input["hangs"] == true {
                        std::future::pending::<()>().await;
                    }
                    Ok(answer?)
                };
                attempt.effects.once("pay", EffectClass::Unsafe, &request, act).await
            }
        });
        Bench::new(|types, store: &MemoryStore| types.with("pay", pays).with_map(Arc::new(store.clone())))
    }
}

/// `pay`, then `thank`; where it failed, `sorry`.
fn pipeline(handles_failures: bool) -> Value {
    let mut definition = json!({
        "nodes": [{"id": "pay", "type": "pay"}, {"id": "thank", "type": "parallel"}],
        "edges": [{"from": "pay", "to": "thank"}],
    });
    if handles_failures {
        definition["nodes"].as_array_mut().unwrap().push(json!({"id": "sorry", "type": "parallel"}));
        definition["edges"]
            .as_array_mut()
            .unwrap()
            .push(json!({"from": "pay", "to": "sorry", "on": "failure"}));
    }
    definition
}

async fn failed(bench: &Bench, definition: Value) -> StoredRun {
    let run = bench.accept_with(definition, json!({"amount": 7})).await;
    bench.drive(run, Signals::default()).await;
    bench.store.run(run).unwrap()
}

fn decide(bench: &Bench, run: RunId, outcome: DecidedOutcome, output: Option<Value>) {
    let decision = NodeDecision {
        outcome,
        output,
        reason: "the bank says so".to_owned(),
        decided_by: "ada@example.org".to_owned(),
        decided_at: "2026-01-01T00:00:00Z".parse().unwrap(),
    };
    assert!(bench.store.decide_outcome(run, &"pay".parse().unwrap(), decision));
}

/// A run that is cancelled while the bank does not answer.
async fn cancelled_in_the_middle(bench: &Bench, definition: Value) -> StoredRun {
    let run = bench.accept_with(definition, json!({"amount": 7, "hangs": true})).await;
    let signals = Signals::default();
    let cancel = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        signals.cancel.cancel();
    };
    tokio::join!(bench.drive(run, signals.clone()), cancel);
    bench.store.run(run).unwrap()
}

/// Reruns a run from what failed, and drives the new one.
async fn rerun(bench: &Bench, old: &StoredRun, amount: u32) -> StoredRun {
    let new = accept_rerun(bench, old, amount).await;
    bench.drive(new, Signals::default()).await;
    bench.store.run(new).unwrap()
}

async fn accept_rerun(bench: &Bench, old: &StoredRun, amount: u32) -> RunId {
    accept_rerun_from(bench, old, amount, RerunFrom::Failed).await
}

async fn accept_rerun_from(bench: &Bench, old: &StoredRun, amount: u32, from: RerunFrom) -> RunId {
    let definition = bench.definition_of(old.new.id).await;
    let correction = Correction { definition, input: json!({"amount": amount}), from };
    let plan = bench.plan(bench.engine.node_specs(), old.new.id, &correction).await.unwrap();
    bench.accept_rerun(old.new.id, &correction, plan.records).await
}

#[tokio::test(start_paused = true)]
async fn a_rerun_fails_again_until_somebody_decides_that_the_node_succeeded() {
    let bank = Bank::default();
    let bench = bank.bench();
    let first = failed(&bench, pipeline(false)).await;
    let second = rerun(&bench, &first, 7).await;
    assert_eq!((second.state, bank.n_payments()), (RunState::Failed, 1));
    assert!(message(&second).contains("must not be repeated"), "{}", message(&second));
    decide(&bench, second.new.id, DecidedOutcome::Succeeded, Some(json!("paid")));
    let third = rerun(&bench, &second, 7).await;
    assert_eq!((third.state, bank.n_payments()), (RunState::Succeeded, 1), "{}", message(&third));
    assert_eq!(output(&third), json!({"thank": {"pay": "paid"}}));
    assert_eq!(bench.kinds(third.new.id)[..3], ["node_decided", "node_started", "node_succeeded"]);
}

/// A rerun from the node that handled the failure keeps the failure, and a rerun of that one remembers the payment.
#[tokio::test(start_paused = true)]
async fn a_failure_that_is_kept_keeps_what_may_have_taken_place() {
    let bank = Bank::default();
    let bench = bank.bench();
    let first = failed(&bench, pipeline(true)).await;
    let from = RerunFrom::Node("sorry".parse().unwrap());
    let second = accept_rerun_from(&bench, &first, 7, from).await;
    bench.drive(second, Signals::default()).await;
    let second = bench.store.run(second).unwrap();
    assert_eq!(output(&second), json!({"sorry": {}}));
    rerun(&bench, &second, 7).await;
    assert_eq!(bank.n_payments(), 1, "nobody knows whether the payment took place");
}

#[tokio::test(start_paused = true)]
async fn what_handled_the_failure_starts_again_once_the_node_succeeded() {
    let bank = Bank::default();
    let bench = bank.bench();
    let handled = failed(&bench, pipeline(true)).await;
    assert_eq!(output(&handled), json!({"sorry": {}}));
    decide(&bench, handled.new.id, DecidedOutcome::Succeeded, Some(json!("paid")));
    let run = rerun(&bench, &handled, 7).await;
    assert_eq!(output(&run), json!({"thank": {"pay": "paid"}}));
    assert_eq!(bank.n_payments(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_repeated_with_the_same_key_and_another_request_with_another_one() {
    for (amount, n_keys) in [(7, 1), (8, 2)] {
        let bank = Bank::default();
        let bench = bank.bench();
        let first = failed(&bench, pipeline(false)).await;
        decide(&bench, first.new.id, DecidedOutcome::Repeat, None);
        let run = rerun(&bench, &first, amount).await;
        assert_eq!(run.state, RunState::Succeeded, "{}", message(&run));
        assert_eq!((bank.n_payments(), bank.n_keys()), (2, n_keys));
        assert_eq!(bench.kinds(run.new.id)[..3], ["node_decided", "work_reused", "node_started"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_failed_ends_the_run_or_takes_its_failure_edge() {
    let bank = Bank::default();
    let bench = bank.bench();
    let first = failed(&bench, pipeline(false)).await;
    decide(&bench, first.new.id, DecidedOutcome::Failed, None);
    let run = rerun(&bench, &first, 7).await;
    assert_eq!((run.state, bank.n_payments()), (RunState::Failed, 1));
    let said = message(&run);
    assert!(said.starts_with("node `pay` failed: "), "{said}");
    assert!(said.contains("ada@example.org decided that it failed: the bank says so"), "{said}");

    let first = cancelled_in_the_middle(&bench, pipeline(true)).await;
    assert_eq!((first.state, bank.n_payments()), (RunState::Cancelled, 2));
    decide(&bench, first.new.id, DecidedOutcome::Failed, None);
    let run = rerun(&bench, &first, 7).await;
    assert_eq!((run.state, bank.n_payments()), (RunState::Succeeded, 2), "{}", message(&run));
    assert_eq!(output(&run), json!({"sorry": {}}));
}

/// A child run of an item takes up the earlier one with what was decided about that.
#[tokio::test(start_paused = true)]
async fn a_decision_about_a_child_run_is_applied_where_it_is_taken_up() {
    let bank = Bank::default();
    let bench = bank.bench();
    let graph = json!({"nodes": [{"id": "pay", "type": "pay"}]});
    let config = json!({"items": "[1]", "graph": graph});
    let definition = json!({"nodes": [{"id": "each", "type": "map", "config": config}]});
    let first = bench.accept_with(definition, json!({"amount": 7})).await;
    let first = finish(&bench, first).await;
    assert_eq!((first.state, bank.n_payments()), (RunState::Failed, 1));
    let parent = Parent { run: first.new.id, node: "each".parse().unwrap(), round: 0 };
    decide(&bench, parent.child(0), DecidedOutcome::Succeeded, Some(json!("paid")));
    let run = accept_rerun(&bench, &first, 7).await;
    let run = finish(&bench, run).await;
    assert_eq!(run.state, RunState::Succeeded, "{}", message(&run));
    assert_eq!((output(&run), bank.n_payments()), (json!({"each": [{"pay": "paid"}]}), 1));
}
