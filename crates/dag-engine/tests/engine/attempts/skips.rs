//! Nodes that are skipped when they find no permit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gathering_dag_engine::testing::MemoryStore;
use gathering_dag_engine::{
    Graph, JournalEvent, NodePermit, NodePermits, NodeRun, NodeSpecs, NodeState, NotKeptReason, RerunFrom,
    RunStore, Signals, StoreError,
};
use gathering_domain::{InstanceId, NodeId, PipelineId, RunId, RunState};
use serde_json::{Value, json};

use super::bench::{Bench, Correction, output};
use super::permits::{Counted, after_the_first, drive_to_end};

/// A limited node `a` that takes 3 s, one that follows it however it ends, and one beside them that takes as long as the
/// input says.
fn definition() -> Value {
    json!({
        "nodes": [
            {
                "id": "a", "type": "work", "concurrency": {"limit": 1, "on_limit": "skip"},
                "retry": {"max_attempts": 2, "initial_backoff_ms": 1000, "jitter": 0},
            },
            {"id": "after", "type": "parallel"},
            {"id": "beside", "type": "delay", "config": {"seconds": "${{ input.beside }}"}},
        ],
        "edges": [{"from": "a", "to": "after", "on": "always"}],
    })
}

/// Runs of one pipeline.
struct Runs {
    bench: Bench,
    pipeline: PipelineId,
}

impl Runs {
    fn new() -> Self {
        Self { bench: Counted::default().bench(), pipeline: PipelineId::new() }
    }

    async fn accept(&self, definition: Value, input: Value) -> RunId {
        let run = self.bench.accept_with(definition, input).await;
        self.bench.store.make_run_of(self.pipeline, run);
        run
    }

    /// A run of [`definition`] in which nothing takes long but `a`.
    async fn brief(&self) -> RunId {
        self.accept(definition(), json!({"beside": 0})).await
    }

    async fn drive(&self, run: RunId) -> RunState {
        drive_to_end(&self.bench, run).await
    }

    /// What the journal says of a node: each entry with its attempt.
    fn entries(&self, run: RunId, node: &str) -> Vec<(&'static str, i32)> {
        let journal = self.bench.store.journal(run);
        let of_node = journal.iter().map(|entry| &entry.record);
        let of_node = of_node.filter(|record| record.node.as_ref().is_some_and(|id| id.as_str() == node));
        of_node.map(|record| (record.event.kind(), record.attempt)).collect()
    }

    fn took(&self, run: RunId) -> Duration {
        let journal = self.bench.store.journal(run);
        (journal.last().unwrap().at - journal.first().unwrap().at).to_std().unwrap()
    }
}

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

const SKIPPED: [(&str, i32); 2] = [("node_started", 1), ("node_skipped", 1)];

#[tokio::test(start_paused = true)]
async fn a_node_without_a_permit_is_skipped_with_what_follows_it_and_the_run_succeeds() {
    let runs = Runs::new();
    let (first, second) = (runs.brief().await, runs.brief().await);
    let ends = tokio::join!(runs.drive(first), after_the_first(runs.drive(second)));
    assert_eq!(ends, (RunState::Succeeded, RunState::Succeeded));
    assert_eq!(runs.entries(second, "a"), SKIPPED);
    assert_eq!(
        runs.entries(second, "after"),
        [("node_skipped", 0)],
        "also after an edge that is always taken"
    );
    assert_eq!(output(&runs.bench.store.run(second).unwrap()), json!({"beside": {}}));
    assert!(runs.took(second) < Duration::from_secs(1), "it waited for nothing");
    let rebuilt = NodeRun::fold(&runs.bench.store.journal(second)).unwrap();
    assert_eq!(rebuilt[&id("a")].state, NodeState::Skipped);
    assert!(
        rebuilt[&id("a")].was_skipped_at_its_limit() && !rebuilt[&id("after")].was_skipped_at_its_limit()
    );
    assert_eq!(rebuilt[&id("a")].failure, None);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_skipped_stands_in_no_line() {
    let runs = Runs::new();
    let (first, third) = (runs.brief().await, runs.brief().await);
    let second = runs.accept(definition(), json!({"beside": 60})).await;
    let later = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        runs.drive(third).await
    };
    let once = runs.bench.drive(second, Signals::default());
    tokio::join!(runs.drive(first), after_the_first(once), later);
    assert_eq!(runs.entries(second, "a"), SKIPPED);
    assert_eq!(runs.entries(third, "a"), [("node_started", 1), ("node_succeeded", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_failed_waits_for_the_permit_of_its_next_attempt() {
    let runs = Runs::new();
    let fails = runs.accept(definition(), json!({"beside": 0, "fails": true})).await;
    let other = runs.brief().await;
    let between_the_attempts = async {
        tokio::time::sleep(Duration::from_millis(3500)).await;
        runs.drive(other).await
    };
    tokio::join!(runs.drive(fails), between_the_attempts);
    assert_eq!(runs.entries(other, "a"), [("node_started", 1), ("node_succeeded", 1)]);
    let kinds: Vec<&str> = runs.entries(fails, "a").into_iter().map(|(kind, _)| kind).collect();
    let waited = ["node_started", "node_waiting", "node_woken", "node_succeeded"];
    assert_eq!(kinds, [&["node_started", "node_retrying"], &waited[..]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_rerun_of_a_node_that_failed_waits_for_its_permit() {
    let runs = Runs::new();
    let mut definition = definition();
    definition["nodes"][0]["retry"] = json!({"max_attempts": 1});
    definition["edges"][0]["on"] = json!("success");
    let failed = runs.accept(definition.clone(), json!({"beside": 0, "fails": true})).await;
    assert_eq!(runs.drive(failed).await, RunState::Failed);
    let correction = Correction { definition, input: json!({"beside": 0}), from: RerunFrom::Failed };
    let plan = runs.bench.plan(runs.bench.engine.node_specs(), failed, &correction).await.unwrap();
    let rerun = runs.bench.accept_rerun(failed, &correction, plan.records).await;
    runs.bench.store.make_run_of(runs.pipeline, rerun);
    let other = runs.brief().await;
    let ends = tokio::join!(runs.drive(other), after_the_first(runs.drive(rerun)));
    assert_eq!(ends, (RunState::Succeeded, RunState::Succeeded));
    let kinds: Vec<&str> = runs.entries(rerun, "a").into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["work_reused", "node_started", "node_waiting", "node_woken", "node_succeeded"]);
}

#[tokio::test(start_paused = true)]
async fn a_rerun_tries_again_what_found_no_permit_and_keeps_the_rest() {
    let runs = Runs::new();
    let (first, second) = (runs.brief().await, runs.brief().await);
    tokio::join!(runs.drive(first), after_the_first(runs.drive(second)));
    let correction =
        Correction { definition: definition(), input: json!({"beside": 0}), from: RerunFrom::Failed };
    let plan = runs.bench.plan(runs.bench.engine.node_specs(), second, &correction).await.unwrap();
    assert_eq!(plan.kept, [id("beside")]);
    let not_kept: Vec<_> =
        plan.not_kept.iter().map(|node| (node.node.clone(), node.reason.clone())).collect();
    let skipped = NotKeptReason::NotSucceeded(NodeState::Skipped);
    assert_eq!(not_kept, [(id("a"), skipped), (id("after"), NotKeptReason::Upstream(id("a")))]);
    let rerun = runs.bench.accept_rerun(second, &correction, plan.records).await;
    runs.bench.store.make_run_of(runs.pipeline, rerun);
    assert_eq!(runs.drive(rerun).await, RunState::Succeeded);
    assert_eq!(runs.entries(rerun, "a"), [("node_started", 1), ("node_succeeded", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_stays_handled_although_the_node_that_handles_it_found_no_permit() {
    let runs = Runs::new();
    let mut definition = definition();
    definition["nodes"][1] = json!({"id": "breaks", "type": "work"});
    definition["edges"] = json!([{"from": "breaks", "to": "a", "on": "failure"}]);
    let input = json!({"beside": 0, "fails": true});
    let first = runs.accept(definition.clone(), input.clone()).await;
    let second = runs.accept(definition.clone(), input.clone()).await;
    let ends = tokio::join!(runs.drive(first), after_the_first(runs.drive(second)));
    assert_eq!(ends, (RunState::Succeeded, RunState::Succeeded));
    assert_eq!(runs.entries(second, "a"), SKIPPED);
    let correction = Correction { definition, input, from: RerunFrom::Node(id("beside")) };
    let plan = runs.bench.plan(runs.bench.engine.node_specs(), second, &correction).await.unwrap();
    assert_eq!(plan.kept, [id("breaks")]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_instance_dies_keeps_its_permit_and_one_that_had_none_is_skipped_all_the_same() {
    let runs = Runs::new();
    let (has_it, has_none) = (runs.brief().await, runs.brief().await);
    let (dies, store) = (InstanceId::new(), &runs.bench.store);
    let claimed = store.claim_run(dies, has_it).await.unwrap().unwrap();
    // Dropped while `a` executes.
    let dropped = runs.bench.engine.drive(claimed, Signals::default());
    assert!(tokio::time::timeout(Duration::from_secs(1), dropped).await.is_err());
    // The claim recorded the start; nobody asked for the permit.
    store.claim_run(dies, has_none).await.unwrap().unwrap();
    store.kill(dies);
    store.recover_dead_instances(20).await.unwrap();
    assert_eq!(runs.drive(has_none).await, RunState::Succeeded);
    assert_eq!(runs.entries(has_none, "a").last(), Some(&("node_skipped", 2)));
    assert_eq!(runs.drive(has_it).await, RunState::Succeeded);
    assert_eq!(runs.entries(has_it, "a").last(), Some(&("node_succeeded", 2)));
}

/// A store that gives the permit, and then loses that: its first answer comes from a question that overtook another.
struct Overtaken {
    store: MemoryStore,
    has_answered: AtomicBool,
}

#[async_trait]
impl NodePermits for Overtaken {
    async fn ask(&self, permit: &NodePermit) -> Result<bool, StoreError> {
        let has_it = self.store.ask(permit).await?;
        Ok(has_it && self.has_answered.swap(true, Ordering::SeqCst))
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_skipped_gives_back_a_permit_that_it_does_not_know_of() {
    let runs = Runs::new();
    let skipped = runs.accept(definition(), json!({"beside": 60})).await;
    let later = runs.brief().await;
    let permits = Overtaken { store: runs.bench.store.clone(), has_answered: AtomicBool::new(false) };
    let engine = runs.bench.engine.clone().with_node_permits(Arc::new(permits));
    let claimed = runs.bench.store.claim_run(InstanceId::new(), skipped).await.unwrap().unwrap();
    tokio::join!(engine.drive(claimed, Signals::default()), after_the_first(runs.drive(later)));
    assert_eq!(runs.entries(skipped, "a"), SKIPPED);
    assert_eq!(runs.entries(later, "a"), [("node_started", 1), ("node_succeeded", 1)]);
}

#[test]
fn an_edge_and_a_limit_skip_a_node_and_nothing_else_does() {
    let at = "2026-12-01T12:00:00Z".parse().unwrap();
    for (before, may_be_skipped) in [
        (vec![], true),
        (vec![JournalEvent::Started], true),
        (vec![JournalEvent::Started, JournalEvent::Succeeded { output: json!(1) }], false),
        (vec![JournalEvent::Skipped], false),
    ] {
        let mut run = NodeRun::default();
        for event in &before {
            run.apply(event, 1, at).unwrap();
        }
        assert_eq!(run.apply(&JournalEvent::Skipped, 1, at).is_ok(), may_be_skipped, "{before:?}");
    }
}

#[test]
fn a_node_waits_at_its_limit_or_is_skipped_and_ends_no_attempt_of_another_run() {
    let problems = |on_limit: Value| {
        let limit = json!({"limit": 1, "on_limit": on_limit});
        let definition = json!({"nodes": [{"id": "a", "type": "trigger"}, {"id": "b", "type": "trigger", "concurrency": limit}]});
        Graph::validate(&definition, &NodeSpecs::builtin())
            .map(|_| ())
            .map_err(|problems| problems.to_string())
    };
    for word in [json!("queue"), json!("skip"), Value::Null] {
        assert_eq!(problems(word), Ok(()));
    }
    let at = "/nodes/1/concurrency/on_limit: must be";
    assert_eq!(problems(json!("wait")), Err(format!("{at} one of queue, skip")));
    let found = problems(json!("cancel_oldest")).unwrap_err();
    let ends_none = "a node ends no attempt of another run; `concurrency` of the pipeline can";
    assert_eq!(found, format!("{at} one of queue, skip: {ends_none}"));
    assert_eq!(problems(json!(1)), Err(format!("{at} a string that is not empty")));
}
