//! Rerunning runs.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use gathering_auth::Role;
use gathering_dag_engine::{JournalEvent, NodeFailure, NodeState, RerunFrom, RerunPlan};
use gathering_domain::{Digest, KeyedBody, RunId, RunState};
use serde_json::{Value, json};

use super::{World, claim, commit, conflict, failed, node};
use crate::testing::ControlFixture;
use crate::{AcceptedRerun, Conflict, ControlError, Rerun, StartRun, right};

fn from(from: RerunFrom) -> Rerun {
    Rerun { from, input: None, version: None, once: None }
}

fn accepted_plan(accepted: &AcceptedRerun) -> RerunPlan {
    accepted.plan.clone().unwrap()
}

/// Two nodes that a claim does not begin, so that what a case writes is the whole journal.
fn two_nodes() -> Value {
    json!({
        "nodes": [
            {"id": "a", "type": "trigger", "idempotent": false},
            {"id": "b", "type": "trigger", "idempotent": false},
        ],
        "edges": [{"from": "a", "to": "b"}],
    })
}

/// A run in which `a` succeeded and `b` failed.
async fn half_done<F: ControlFixture>(fixture: &F, world: &World) -> RunId {
    let pipeline = world.define(&two_nodes()).await;
    half_done_of(fixture, &World { pipeline, ..world.clone() }).await
}

async fn half_done_of<F: ControlFixture>(fixture: &F, world: &World) -> RunId {
    let start = StartRun { input: json!({"n": 1}), priority: 3, ..StartRun::default() };
    let run = world.runs.start(&world.owner, world.pipeline, start).await.unwrap().id;
    let claim = claim(fixture, run).await;
    let failure = NodeFailure::permanent("broken".parse().unwrap(), "it broke");
    let events = vec![
        ("a", JournalEvent::Started),
        ("a", JournalEvent::Succeeded { output: json!({"kept": true}) }),
        ("b", JournalEvent::Started),
        ("b", JournalEvent::Failed(failure)),
    ];
    commit(fixture, claim, events, Some(failed())).await;
    run
}

/// With the input and the priority of the old one, unless another input is given.
pub async fn a_rerun_refers_to_the_run_that_ended_and_keeps_what_stands<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let old = half_done(fixture, &world).await;
    let new = world.runs.rerun(&world.owner, old, from(RerunFrom::Failed)).await.unwrap();
    let kept = accepted_plan(&new);
    assert_eq!((kept.kept, kept.not_kept.len()), (vec![node("a")], 1));
    let new = new.run;
    assert_eq!((new.rerun_of, new.state, new.priority), (Some(old), RunState::Queued, 3));
    assert_eq!(new.input, json!({"n": 1}));
    assert_eq!(new.trigger, json!({"type": "rerun", "user_id": world.owner.user, "run_id": old}));
    let found = world.runs.find::<right::Read>(&world.owner, new.id).await.unwrap();
    let mut nodes = world.runs.load_nodes(&found).await.unwrap();
    let kept = nodes.take(&node("a")).unwrap();
    assert_eq!((kept.state, kept.output), (NodeState::Succeeded, Some(json!({"kept": true}))));
    let again = nodes.take(&node("b")).unwrap();
    assert_eq!((again.state, again.attempt), (NodeState::Pending, 0), "it executes again");
    let input = Some(json!({"n": 2}));
    let anew = Rerun { from: RerunFrom::Start, input, version: None, once: None };
    let anew = world.runs.rerun(&world.owner, old, anew).await.unwrap().run;
    assert_eq!(anew.input, json!({"n": 2}));
    let found = world.runs.find::<right::Read>(&world.owner, anew.id).await.unwrap();
    assert!(world.runs.load_nodes(&found).await.unwrap().take(&node("a")).is_none());
}

/// Each says what stands against it.
pub async fn a_run_that_goes_on_or_belongs_to_a_disabled_pipeline_is_not_rerun<F: ControlFixture>(
    fixture: &F,
) {
    let world = World::new(fixture).await;
    let run = world.runs.start(&world.owner, world.pipeline, StartRun::default()).await.unwrap().id;
    let refused = world.runs.rerun(&world.owner, run, from(RerunFrom::Start)).await;
    assert_eq!(conflict(refused), Conflict::RunNotEnded);
    world.runs.cancel(&world.owner, run).await.unwrap();
    world.change(false, None).await;
    let refused = world.runs.rerun(&world.owner, run, from(RerunFrom::Start)).await;
    assert_eq!(conflict(refused), Conflict::PipelineDisabled);
    world.change(true, None).await;
    assert!(world.runs.rerun(&world.owner, run, from(RerunFrom::Start)).await.is_ok());
}

/// The field that is wrong is named.
pub async fn a_rerun_from_a_node_needs_that_node<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let old = half_done(fixture, &world).await;
    let refused = world.runs.rerun(&world.owner, old, from(RerunFrom::Node(node("c")))).await;
    let Err(ControlError::Invalid(problems)) = refused else { panic!("{refused:?}") };
    assert_eq!(problems.iter().next().unwrap().pointer.as_str(), "/from");
    assert!(world.runs.rerun(&world.owner, old, from(RerunFrom::Node(node("b")))).await.is_ok());
}

/// The other nodes run, and those after them; `version` names what there is not.
pub async fn a_rerun_of_another_version_keeps_the_nodes_that_are_the_same<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let pipeline = world.define(&two_nodes()).await;
    let world = World { pipeline, ..world };
    let old = half_done_of(fixture, &world).await;
    let mut corrected = two_nodes();
    corrected["nodes"][1]["type"] = json!("parallel");
    world.change(true, Some(&corrected)).await;
    let to = |version| Rerun { version: Some(version), ..from(RerunFrom::Failed) };
    let new = world.runs.rerun(&world.owner, old, to(2)).await.unwrap();
    assert_eq!((new.run.graph, new.run.pipeline), (Digest::of_json(&corrected), Some((pipeline, 2))));
    let plan = accepted_plan(&new);
    assert_eq!(plan.kept, [node("a")]);
    let reasons: Vec<_> = plan.not_kept.iter().map(|node| node.reason.as_str()).collect();
    assert_eq!(reasons, ["not_succeeded"]);
    let refused = world.runs.rerun(&world.owner, old, to(3)).await;
    let Err(ControlError::Invalid(problems)) = refused else { panic!("{refused:?}") };
    assert_eq!(problems.iter().next().unwrap().pointer.as_str(), "/version");
}

/// It says what the rerun then keeps, and refuses what the rerun refuses.
pub async fn a_preview_of_a_rerun_starts_nothing<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let old = half_done(fixture, &world).await;
    let preview = world.runs.preview_rerun(&world.owner, old, from(RerunFrom::Failed)).await.unwrap();
    let new = world.runs.rerun(&world.owner, old, from(RerunFrom::Failed)).await.unwrap();
    let plan = accepted_plan(&new);
    assert_eq!((preview.kept, preview.not_kept), (plan.kept, plan.not_kept));
    let refused = world.runs.preview_rerun(&world.owner, new.run.id, from(RerunFrom::Failed)).await;
    assert_eq!(conflict(refused), Conflict::RunNotEnded);
    let stranger = fixture.account(Role::Member).await;
    let hidden = world.runs.preview_rerun(&stranger, old, from(RerunFrom::Failed)).await;
    assert!(matches!(hidden, Err(ControlError::NotFound)), "{hidden:?}");
}

/// The same key for another request is refused.
pub async fn the_same_key_and_body_rerun_a_run_once<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let old = half_done(fixture, &world).await;
    let keyed = |body: Value| {
        let once = Some(KeyedBody::new("k".parse().unwrap(), &body));
        Rerun { once, ..from(RerunFrom::Failed) }
    };
    let first = world.runs.rerun(&world.owner, old, keyed(json!({"from": "failed"}))).await.unwrap();
    let second = world.runs.rerun(&world.owner, old, keyed(json!({"from": "failed"}))).await.unwrap();
    assert_eq!(first.run.id, second.run.id);
    assert_eq!(accepted_plan(&first).kept, accepted_plan(&second).kept);
    let refused = world.runs.rerun(&world.owner, old, keyed(json!({"from": "start"}))).await;
    assert_eq!(conflict(refused), Conflict::KeyReused);
}
