//! The results that a rerun keeps: of the same definition, of a corrected one, and with another input.

use async_trait::async_trait;
use gathering_dag_engine::testing::StoredRun;
use gathering_dag_engine::{
    Attempt, Fields, JournalEvent, NodeExecutor, NodeFailure, NodeSpec, NodeSpecs, Outcome, RerunFrom,
    RerunPlan, RerunRefused, Shape, Signals,
};
use gathering_domain::{FailureKind, RunState};
use serde_json::{Value, json};

use super::bench::{Bench, Correction};

/// `echo {of, fails?}`: its output is its config.
struct Echo;

impl NodeSpec for Echo {
    fn check(&self, config: &mut Fields<'_>) {
        config.required("of", Shape::Any);
        config.optional("fails", Shape::Bool);
    }
}

#[async_trait]
impl NodeExecutor for Echo {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        if attempt.config["fails"] == true {
            return Err(NodeFailure::permanent(FailureKind::HttpStatus, "refused"));
        }
        Ok(Outcome::Done((*attempt.config).clone()))
    }
}

fn echo(id: &str, of: Value) -> Value {
    json!({"id": id, "type": "echo", "config": {"of": of}})
}

fn edges(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(from, to)| json!({"from": from, "to": to})).collect()
}

/// `a` to `b` to `c`, of which `b` reads `input.n` and `c` fails.
fn chain() -> Value {
    let mut c = echo("c", json!("${{ nodes.b.output.of }}"));
    c["config"]["fails"] = json!(true);
    json!({
        "nodes": [echo("a", json!(1)), echo("b", json!("${{ input.n }}")), c],
        "edges": edges(&[("a", "b"), ("b", "c")]),
    })
}

struct Old {
    bench: Bench,
    run: StoredRun,
}

impl Old {
    async fn of(definition: Value, input: Value) -> Self {
        let bench = Bench::new(|types, _| types.with("echo", Echo));
        let run = bench.accept_with(definition, input).await;
        bench.drive(run, Signals::default()).await;
        let run = bench.store.run(run).unwrap();
        Self { bench, run }
    }

    fn specs(&self) -> &NodeSpecs {
        self.bench.engine.node_specs()
    }

    async fn plan(&self, definition: Value, input: Value, from: RerunFrom) -> RerunPlan {
        let correction = Correction { definition, input, from };
        self.bench.plan(self.specs(), self.run.new.id, &correction).await.unwrap()
    }

    /// What is kept, and what is not with its reason.
    async fn summary(&self, definition: Value, input: Value) -> (Vec<String>, Vec<String>) {
        let plan = self.plan(definition, input, RerunFrom::Failed).await;
        let kept = plan.kept.iter().map(ToString::to_string).collect();
        let reasons = plan.not_kept.iter().map(|node| format!("{} {}", node.node, node.reason.as_str()));
        (kept, reasons.collect())
    }
}

fn is(expected: (&[&str], &[&str])) -> (Vec<String>, Vec<String>) {
    let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    (owned(expected.0), owned(expected.1))
}

#[tokio::test(start_paused = true)]
async fn a_run_that_failed_in_its_output_alone_keeps_every_node() {
    let definition = json!({
        "nodes": [{"id": "a", "type": "trigger"}, {"id": "b", "type": "parallel"}],
        "edges": [{"from": "a", "to": "b"}],
        "output": "input.missing",
    });
    let old = Old::of(definition.clone(), json!({})).await;
    assert_eq!(old.run.state, RunState::Failed);
    assert_eq!(old.summary(definition, json!({})).await, is((&["a", "b"], &[])));
}

#[tokio::test(start_paused = true)]
async fn a_run_in_which_nothing_failed_is_continued_only_if_it_is_corrected() {
    let definition = json!({"nodes": [echo("a", json!(1))]});
    let old = Old::of(definition.clone(), json!({})).await;
    assert_eq!(old.run.state, RunState::Succeeded);
    let same = Correction { definition: definition.clone(), input: json!({}), from: RerunFrom::Failed };
    let refused = old.bench.plan(old.specs(), old.run.new.id, &same).await;
    assert!(matches!(refused, Err(RerunRefused::NothingFailed)), "{refused:?}");
    let mut corrected = definition;
    corrected["output"] = json!("nodes.a.output.of + 1");
    assert_eq!(old.summary(corrected, json!({})).await, is((&["a"], &[])));
}

#[tokio::test(start_paused = true)]
async fn a_corrected_node_runs_and_those_before_it_are_kept() {
    let old = Old::of(chain(), json!({"n": 1})).await;
    let mut corrected = chain();
    corrected["nodes"][2]["config"] = json!({"of": 2});
    assert_eq!(
        old.summary(corrected.clone(), json!({"n": 1})).await,
        is((&["a", "b"], &["c not_succeeded"]))
    );
    corrected["nodes"][0]["config"]["of"] = json!("${{ 0 + 1 }}");
    assert_eq!(
        old.summary(corrected.clone(), json!({"n": 1})).await,
        is((&["a", "b"], &["c not_succeeded"])),
        "only the value of a config counts, not its text"
    );
    corrected["nodes"][0]["config"]["of"] = json!(3);
    assert_eq!(
        old.summary(corrected.clone(), json!({"n": 1})).await,
        is((&[], &["a config_changed", "b upstream", "c upstream"]))
    );
    corrected["nodes"][0] = json!({"id": "a", "type": "parallel"});
    assert_eq!(
        old.summary(corrected, json!({"n": 1})).await,
        is((&[], &["a type_changed", "b upstream", "c upstream"]))
    );
}

#[tokio::test(start_paused = true)]
async fn another_input_is_compared_with_what_each_node_read_of_it() {
    let old = Old::of(chain(), json!({"n": 1, "m": 1})).await;
    assert_eq!(old.summary(chain(), json!({"n": 1, "m": 2})).await, is((&["a", "b"], &["c not_succeeded"])));
    assert_eq!(
        old.summary(chain(), json!({"n": 2, "m": 1})).await,
        is((&["a"], &["b config_changed", "c upstream"]))
    );
}

#[tokio::test(start_paused = true)]
async fn changed_edges_are_compared_by_what_they_decide() {
    let definition = |when: &str, to_c: &[(&str, &str)]| {
        let mut edges: Vec<Value> = edges(to_c).as_array().unwrap().clone();
        edges.push(json!({"from": "a", "to": "b", "when": when}));
        json!({
            "nodes": [echo("a", json!(1)), echo("b", json!(1)), echo("c", json!(1)), echo("d", json!(1))],
            "edges": edges,
            "output": "input.missing",
        })
    };
    let old = Old::of(definition("input.n > 0", &[("a", "c")]), json!({"n": 1})).await;
    let n = || json!({"n": 1});
    let (_, not_kept) = old.summary(definition("input.n > -5", &[("a", "c")]), n()).await;
    assert_eq!(not_kept, [""; 0], "it is taken still");
    let (_, not_kept) = old.summary(definition("input.n > 5", &[("a", "c")]), n()).await;
    assert_eq!(not_kept, ["b edges_changed"], "it is skipped now");
    let (_, not_kept) = old.summary(definition("input.n > 0", &[("a", "c"), ("d", "c")]), n()).await;
    assert_eq!(not_kept, ["c edges_changed"], "another node comes before it");
    let skipped = Old::of(definition("input.n > 5", &[("a", "c")]), n()).await;
    let (kept, _) = skipped.summary(definition("input.n > 6", &[("a", "c")]), n()).await;
    assert!(kept.contains(&"b".to_owned()), "it is skipped still: {kept:?}");
    let (_, not_kept) = skipped.summary(definition("input.n > 0", &[("a", "c")]), n()).await;
    assert_eq!(not_kept, ["b edges_changed"], "it is to run now");
}

#[tokio::test(start_paused = true)]
async fn a_new_node_runs_with_what_follows_it() {
    let old = Old::of(chain(), json!({"n": 1})).await;
    let mut corrected = chain();
    corrected["nodes"].as_array_mut().unwrap().push(echo("x", json!(1)));
    corrected["edges"] = edges(&[("a", "x"), ("x", "b"), ("b", "c")]);
    let new = old.summary(corrected, json!({"n": 1})).await;
    assert_eq!(new, is((&["a"], &["x new", "b upstream", "c upstream"])));
}

#[tokio::test(start_paused = true)]
async fn the_journal_of_a_rerun_says_where_its_results_come_from() {
    let old = Old::of(chain(), json!({"n": 1})).await;
    let plan = old.plan(chain(), json!({"n": 1}), RerunFrom::Failed).await;
    let from_runs = |event: &JournalEvent| match event {
        JournalEvent::Reused(reuse) => Some(reuse.from_runs.clone()),
        _ => None,
    };
    let reused: Vec<_> = plan.records.iter().filter_map(|record| from_runs(&record.event)).collect();
    assert_eq!(reused, [vec![old.run.new.id], vec![old.run.new.id], vec![old.run.new.id]]);
}

#[tokio::test(start_paused = true)]
async fn a_rerun_of_a_corrected_definition_gives_what_the_corrected_one_gives() {
    let old = Old::of(chain(), json!({"n": 1})).await;
    let mut definition = chain();
    definition["nodes"][2]["config"]["fails"] = json!(false);
    let correction = Correction { definition, input: json!({"n": 1}), from: RerunFrom::Failed };
    let plan = old.bench.plan(old.specs(), old.run.new.id, &correction).await.unwrap();
    let new = old.bench.accept_rerun(old.run.new.id, &correction, plan.records).await;
    old.bench.drive(new, Signals::default()).await;
    let new = old.bench.store.run(new).unwrap();
    assert_eq!(new.state, RunState::Succeeded, "{:?}", new.end);
    let kinds = old.bench.kinds(new.new.id);
    assert_eq!(kinds.iter().filter(|kind| **kind == "node_started").count(), 3, "{kinds:?}");
}
