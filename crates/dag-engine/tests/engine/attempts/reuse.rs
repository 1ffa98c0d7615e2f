//! What succeeded below a node is not repeated: by its next attempt, by a rerun, by a child that is taken up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gathering_dag_engine::testing::{MemoryStore, StoredRun};
use gathering_dag_engine::{
    ActFailed, Attempt, EffectClass, Fields, NodeExecutor, NodeFailure, NodeSpec, NodeSpecs, NodeTypes,
    Outcome, RerunFrom, Shape,
};
use gathering_domain::{FailureKind, RunId, RunState};
use serde_json::{Value, json};

use super::bench::{Bench, Correction, Do, finish, message, output};

/// A peer that is asked for things: it counts each idempotency key, and answers what it is told to.
#[derive(Clone, Default)]
struct Peer {
    asked: Arc<Mutex<BTreeMap<(String, String), usize>>>,
    /// Each of these requests is refused once.
    refuses: Arc<Mutex<Vec<Value>>>,
}

impl Peer {
    fn refuse_once(&self, request: Value) {
        self.refuses.lock().unwrap().push(request);
    }

    fn ask(&self, key: String, request: Value) -> Result<Value, ActFailed> {
        *self.asked.lock().unwrap().entry((key, request.to_string())).or_default() += 1;
        let mut refuses = self.refuses.lock().unwrap();
        match refuses.iter().position(|refused| *refused == request) {
            Some(at) => {
                refuses.remove(at);
                Err(NodeFailure::permanent(FailureKind::HttpStatus, "refused").into())
            }
            None => Ok(request),
        }
    }

    /// How often the peer was asked for each request, and with how many idempotency keys.
    fn counts(&self) -> BTreeMap<String, (usize, usize)> {
        let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for ((_, request), n_asked) in self.asked.lock().unwrap().iter() {
            let (n, n_keys) = counts.entry(request.clone()).or_default();
            (*n, *n_keys) = (*n + n_asked, *n_keys + 1);
        }
        counts
    }

    /// The node types of a bench: `pay` on this peer, and `map`.
    fn types(&self, types: NodeTypes, store: &MemoryStore) -> NodeTypes {
        types.with("pay", Pays(self.clone())).with_map(Arc::new(store.clone()))
    }

    fn bench(&self) -> Bench {
        Bench::new(|types, store| self.types(types, store))
    }
}

/// `pay {what}`: asks the peer for `what`, or for each of its elements in turn.
struct Pays(Peer);

impl NodeSpec for Pays {
    fn check(&self, config: &mut Fields<'_>) {
        config.required("what", Shape::Any);
    }
}

#[async_trait]
impl NodeExecutor for Pays {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let what = &attempt.config["what"];
        let steps = what.as_array().cloned().unwrap_or_else(|| vec![what.clone()]);
        for (step, request) in steps.iter().enumerate() {
            let name = format!("step/{step}");
            let key = format!("{}/{name}", attempt.effects.idempotency_key(&name, request));
            let act = || async { self.0.ask(key, request.clone()) };
            attempt.effects.once(&name, EffectClass::Idempotent, request, act).await?;
        }
        Ok(Outcome::Done(what.clone()))
    }
}

/// Reruns a run from what failed, with this input, and drives the new run until it has ended.
async fn rerun(bench: &Bench, specs: &NodeSpecs, old: RunId, input: Value) -> StoredRun {
    let definition = bench.definition_of(old).await;
    let correction = Correction { definition, input, from: RerunFrom::Failed };
    let plan = bench.plan(specs, old, &correction).await.unwrap();
    let new = bench.accept_rerun(old, &correction, plan.records).await;
    finish(bench, new).await
}

fn specs(peer: &Peer) -> NodeSpecs {
    let store = MemoryStore::new(Arc::new(gathering_dag_engine::SystemClock));
    peer.types(NodeTypes::builtin(), &store).specs().clone()
}

/// A list of 40 payments, each the item of a `map`.
fn forty(retry: Value) -> Value {
    let graph = json!({"nodes": [{"id": "call", "type": "pay", "config": {"what": "${{ item }}"}}]});
    let config = json!({"items": "input.list", "graph": graph, "max_concurrency": 4});
    json!({"nodes": [{"id": "each", "type": "map", "config": config, "retry": retry}]})
}

fn list() -> Value {
    json!({"list": (0..40).collect::<Vec<_>>()})
}

/// Each of the forty was asked for once, and the one that was refused twice with one key.
fn check_forty(peer: &Peer) {
    let counts = peer.counts();
    assert_eq!(counts.len(), 40);
    for (request, (n_asked, n_keys)) in counts {
        let expected = if request == "37" { 2 } else { 1 };
        assert_eq!((n_asked, n_keys), (expected, 1), "request {request}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_attempt_of_a_loop_repeats_no_item_that_succeeded() {
    let peer = Peer::default();
    peer.refuse_once(json!(37));
    let bench = peer.bench();
    let run = bench.accept_with(forty(json!({"max_attempts": 2, "initial_backoff_ms": 10})), list()).await;
    let run = finish(&bench, run).await;
    assert_eq!(run.state, RunState::Succeeded, "{}", message(&run));
    assert_eq!(output(&run)["each"].as_array().unwrap().len(), 40);
    check_forty(&peer);
}

#[tokio::test(start_paused = true)]
async fn a_rerun_of_a_failed_loop_repeats_no_item_that_succeeded() {
    let peer = Peer::default();
    peer.refuse_once(json!(37));
    let bench = peer.bench();
    let failed = bench.accept_with(forty(json!({})), list()).await;
    assert_eq!(finish(&bench, failed).await.state, RunState::Failed);
    let run = rerun(&bench, &specs(&peer), failed, list()).await;
    assert_eq!(run.state, RunState::Succeeded, "{}", message(&run));
    check_forty(&peer);
    assert!(bench.kinds(run.new.id).contains(&"work_reused"), "the journal says what was reused");
}

#[tokio::test(start_paused = true)]
async fn a_rerun_of_a_rerun_remembers_what_the_first_run_did() {
    let peer = Peer::default();
    for _ in 0..3 {
        peer.refuse_once(json!(37));
    }
    let bench = peer.bench();
    let first = bench.accept_with(forty(json!({})), list()).await;
    let mut run = finish(&bench, first).await;
    for _ in 0..3 {
        assert_eq!(run.state, RunState::Failed);
        run = rerun(&bench, &specs(&peer), run.new.id, list()).await;
    }
    assert_eq!(run.state, RunState::Succeeded, "{}", message(&run));
    let counts = peer.counts();
    assert_eq!(counts["37"], (4, 1), "one key, however often it is asked for");
    assert!(counts.iter().all(|(request, count)| request == "37" || *count == (1, 1)), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_was_cancelled_in_the_middle_goes_on_where_it_was() {
    let peer = Peer::default();
    let bench = peer.bench();
    let graph = json!({"nodes": [
        {"id": "call", "type": "pay", "config": {"what": "${{ item }}"}},
        {"id": "rest", "type": "delay", "config": {"seconds": 1}},
        {"id": "thank", "type": "pay", "config": {"what": "${{ -item }}"}},
    ], "edges": [{"from": "call", "to": "rest"}, {"from": "rest", "to": "thank"}]});
    let config = json!({"items": "input.list", "graph": graph, "max_concurrency": 4});
    let definition = json!({"nodes": [{"id": "each", "type": "map", "config": config}]});
    let input = json!({"list": (1..=12).collect::<Vec<_>>()});
    let run = bench.accept_with(definition, input.clone()).await;
    let watched = bench.store.clone();
    let cancelled = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        watched.request_cancel(run);
    });
    assert_eq!(finish(&bench, run).await.state, RunState::Cancelled);
    cancelled.await.unwrap();
    let n_before = peer.counts().len();
    assert!((1..24).contains(&n_before), "{n_before}");
    let run = rerun(&bench, &specs(&peer), run, input).await;
    assert_eq!(run.state, RunState::Succeeded, "{}", message(&run));
    let counts = peer.counts();
    assert_eq!(counts.len(), 24);
    assert!(counts.values().all(|count| *count == (1, 1)), "{counts:?}");
}

/// One node of three steps.
fn steps(what: Value) -> Value {
    json!({"nodes": [{"id": "pay", "type": "pay", "config": {"what": what}}]})
}

#[tokio::test(start_paused = true)]
async fn a_rerun_goes_on_with_the_recorded_steps_of_a_node() {
    let peer = Peer::default();
    peer.refuse_once(json!("c"));
    let bench = peer.bench();
    let run = bench.run(steps(json!(["a", "b", "c"]))).await;
    assert_eq!(run.state, RunState::Failed);
    let run = rerun(&bench, &specs(&peer), run.new.id, json!({})).await;
    assert_eq!(run.state, RunState::Succeeded, "{}", message(&run));
    let counts = peer.counts();
    assert_eq!((counts["\"a\""], counts["\"b\""], counts["\"c\""]), ((1, 1), (1, 1), (2, 1)));
}

#[tokio::test(start_paused = true)]
async fn another_request_gets_another_key_unless_the_end_of_the_first_is_unknown() {
    let peer = Peer::default();
    let what = |second: &str| json!(["a", second]);
    let refuses = Do({
        let peer = peer.clone();
        move |attempt: Attempt| {
            let peer = peer.clone();
            async move {
                let may_be = attempt.input["may_have_taken_place"] == true;
                for (step, request) in attempt.input["what"].as_array().unwrap().iter().enumerate() {
                    let name = step.to_string();
                    let key = attempt.effects.idempotency_key(&name, request);
                    let act = || async {
                        peer.ask(key, request.clone()).map_err(|failed| {
                            let failure = NodeFailure::permanent(FailureKind::HttpStatus, "refused");
                            if may_be { failed } else { ActFailed::before_it_took_place(failure) }
                        })
                    };
                    attempt.effects.once(&name, EffectClass::Idempotent, request, act).await?;
                }
                Ok(json!(null))
            }
        }
    });
    let tries = Bench::new(|types, _| types.with("try", refuses));
    let specs = tries.engine.node_specs().clone();
    let definition = json!({"nodes": [{"id": "try", "type": "try"}]});
    for (may_have_taken_place, expected) in [(false, RunState::Succeeded), (true, RunState::Failed)] {
        peer.asked.lock().unwrap().clear();
        peer.refuse_once(json!("wrong"));
        let input =
            |second: &str| json!({"what": what(second), "may_have_taken_place": may_have_taken_place});
        let run = tries.accept_with(definition.clone(), input("wrong")).await;
        assert_eq!(finish(&tries, run).await.state, RunState::Failed);
        let run = rerun(&tries, &specs, run, input("right")).await;
        assert_eq!(run.state, expected, "{}", message(&run));
        let counts = peer.counts();
        assert_eq!((counts["\"a\""], counts["\"wrong\""]), ((1, 1), (1, 1)));
        assert_eq!(counts.contains_key("\"right\""), !may_have_taken_place);
        if may_have_taken_place {
            assert!(message(&run).contains("its end is unknown"), "{}", message(&run));
        } else {
            let keys: Vec<String> = peer.asked.lock().unwrap().keys().map(|(key, _)| key.clone()).collect();
            assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), 2, "{keys:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_certainly_failed_does_not_settle_what_became_of_the_one_before() {
    let asks = Do(|attempt: Attempt| async move {
        let request = attempt.input["request"].clone();
        let may_be = attempt.attempt == 1;
        let act = || async {
            let failure = NodeFailure::retryable(FailureKind::HttpStatus, "no answer");
            Err(if may_be { failure.into() } else { ActFailed::before_it_took_place(failure) })
        };
        attempt.effects.once("call", EffectClass::Idempotent, &request, act).await
    });
    let bench = Bench::new(|types, _| types.with("ask", asks));
    let specs = bench.engine.node_specs().clone();
    let retry = json!({"max_attempts": 2, "initial_backoff_ms": 10});
    let definition = json!({"nodes": [{"id": "ask", "type": "ask", "retry": retry}]});
    let run = bench.accept_with(definition, json!({"request": "wrong"})).await;
    assert_eq!(finish(&bench, run).await.state, RunState::Failed);
    let run = rerun(&bench, &specs, run, json!({"request": "right"})).await;
    assert!(message(&run).contains("its end is unknown"), "{}", message(&run));
}

#[tokio::test(start_paused = true)]
async fn a_corrected_item_keeps_the_steps_that_are_the_same() {
    let peer = Peer::default();
    let bench = peer.bench();
    let definition = |thanks: &str| {
        let graph = json!({"nodes": [
            {"id": "call", "type": "pay", "config": {"what": "${{ item + input.offset }}"}},
            {"id": "thank", "type": "pay", "config": {"what": thanks}},
        ], "edges": [{"from": "call", "to": "thank"}]});
        json!({"nodes": [{"id": "each", "type": "map", "config": {"items": "input.list", "graph": graph}}]})
    };
    let input = |offset: i64| json!({"list": [1, 2, 3], "offset": offset, "note": offset});
    let run = bench.accept_with(definition("${{ item.missing }}"), input(0)).await;
    assert_eq!(finish(&bench, run).await.state, RunState::Failed);
    let correct = async |old: RunId, definition: Value, input: Value| {
        let correction = Correction { definition, input, from: RerunFrom::Failed };
        let plan = bench.plan(&specs(&peer), old, &correction).await.unwrap();
        let new = bench.accept_rerun(old, &correction, plan.records).await;
        finish(&bench, new).await
    };
    let thanked = correct(run, definition("${{ 'thanks ' + string(item) }}"), input(0)).await;
    assert_eq!(thanked.state, RunState::Succeeded, "{}", message(&thanked));
    let counts = peer.counts();
    assert_eq!(counts.len(), 6);
    assert!(counts.values().all(|count| *count == (1, 1)), "nobody paid twice: {counts:?}");
    // Another input, of which every item reads a part: that part is paid again, and thanked as it was.
    let moved = correct(run, definition("${{ 'thanks ' + string(item) }}"), input(10)).await;
    assert_eq!(moved.state, RunState::Succeeded, "{}", message(&moved));
    let counts = peer.counts();
    assert_eq!((counts["1"], counts["11"], counts["12"], counts["13"]), ((1, 1), (1, 1), (1, 1), (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_child_whose_input_changed_runs_again() {
    let peer = Peer::default();
    peer.refuse_once(json!(37));
    let bench = peer.bench();
    let failed = bench.accept_with(forty(json!({})), list()).await;
    assert_eq!(finish(&bench, failed).await.state, RunState::Failed);
    let mut corrected = list();
    corrected["list"][0] = json!(100);
    let run = rerun(&bench, &specs(&peer), failed, corrected).await;
    assert_eq!(run.state, RunState::Succeeded, "{}", message(&run));
    let counts = peer.counts();
    assert_eq!((counts["0"], counts["100"], counts["1"]), ((1, 1), (1, 1), (1, 1)));
}
