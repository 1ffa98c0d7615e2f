//! Inputs of runs, completed and checked by the schema of the pipeline, at every way to start one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use gathering_dag_engine::RerunFrom;
use gathering_domain::Problems;
use gathering_tools::WebhookScheme;
use serde_json::{Value, json};

use super::hooks::{Place, SECRET, answer, refusal};
use super::schedules::{Plan, every_second};
use super::{World, claim, commit, conflict, failed};
use crate::testing::ControlFixture;
use crate::{Conflict, ControlError, RefusalReason, Rerun, StartRun, right};

/// A definition whose input needs a topic.
fn with_topic() -> Value {
    json!({
        "nodes": [{"id": "first", "type": "trigger"}],
        "input": {"schema": {
            "type": "object",
            "properties": {"topic": {"type": "string"}, "words": {"type": "integer", "default": 200}},
            "required": ["topic"],
        }},
    })
}

fn places<T: std::fmt::Debug>(answer: Result<T, ControlError>) -> Vec<String> {
    match answer {
        Err(ControlError::Invalid(problems)) => written(problems),
        other => panic!("{other:?}"),
    }
}

fn written(problems: Problems) -> Vec<String> {
    problems.into_iter().map(|problem| problem.to_string()).collect()
}

fn start(input: Value) -> StartRun {
    StartRun { input, ..StartRun::default() }
}

/// What a request starts has the defaults, or is refused with every place.
pub async fn an_input_is_completed_or_refused_when_a_run_is_started<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let pipeline = world.define(&with_topic()).await;
    let run = world.runs.start(&world.owner, pipeline, start(json!({"topic": "rivers"}))).await.unwrap();
    assert_eq!(run.input, json!({"topic": "rivers", "words": 200}));
    let wrong = world.runs.start(&world.owner, pipeline, start(json!({"words": "many"}))).await;
    assert_eq!(places(wrong), ["/input/topic: is required", "/input/words: must be of type integer"]);
    let none = world.runs.start(&world.owner, pipeline, start(json!(null))).await;
    assert_eq!(places(none), ["/input: must be of type object"]);
}

/// Also by the schema of another version.
pub async fn the_input_of_a_rerun_is_checked_as_well<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let run = world.runs.start(&world.owner, world.pipeline, start(json!({"n": 1}))).await.unwrap();
    commit(fixture, claim(fixture, run.id).await, Vec::new(), Some(failed())).await;
    world.change(true, Some(&with_topic())).await;
    let rerun = |version, input| Rerun { from: RerunFrom::Start, input, version, once: None };
    let same = world.runs.rerun(&world.owner, run.id, rerun(None, None)).await.unwrap().run;
    assert_eq!(same.input, json!({"n": 1}), "its own version has no schema");
    let wrong = world.runs.preview_rerun(&world.owner, run.id, rerun(Some(2), None)).await;
    assert_eq!(places(wrong), ["/input/topic: is required"]);
    let right = rerun(Some(2), Some(json!({"topic": "rivers"})));
    let corrected = world.runs.rerun(&world.owner, run.id, right).await.unwrap().run;
    assert_eq!(corrected.input, json!({"topic": "rivers", "words": 200}));
}

/// At once where it is defined; in its ledger once the pipeline has changed.
pub async fn a_schedule_starts_nothing_whose_input_does_not_fit<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let schedule = plan.define(plan.submitted(every_second())).await.unwrap();
    plan.world.change(true, Some(&with_topic())).await;
    assert_eq!(
        places(plan.define(plan.submitted(every_second())).await),
        ["/action/input/topic: is required"]
    );
    let refused = conflict(plan.schedules.trigger(&plan.world.owner, schedule.id).await);
    assert!(matches!(&refused, Conflict::InvalidInput(_)), "{refused:?}");
    assert!(refused.to_string().ends_with("/input/topic: is required"), "{refused}");
    let ledger = plan.fire_until(schedule.id, |fires| !fires.is_empty()).await;
    let fire = &ledger[0];
    assert_eq!((&*fire.outcome, fire.reason.as_deref()), ("skipped", Some("invalid_input")));
    assert_eq!(fire.run, None);
}

/// The ledger says what is wrong.
pub async fn a_hook_starts_nothing_whose_input_does_not_fit<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    place.world.change(true, Some(&with_topic())).await;
    let (hook, token) = place.define(place.to_pipeline(), Some(SECRET)).await;
    assert_eq!(hook.spec.verification.scheme, WebhookScheme::Standard);
    let (reason, detail) = refusal(place.signed(&token, SECRET, "msg_1", 0, &json!({})).await);
    assert_eq!(reason, RefusalReason::Invalid);
    assert!(detail.ends_with("/input/topic: is required"), "{detail}");
    let body = json!({"topic": "rivers"});
    let answer = answer(place.signed(&token, SECRET, "msg_2", 0, &body).await);
    let run = place.world.runs.find::<right::Read>(&place.world.owner, answer.run.unwrap()).await.unwrap();
    assert_eq!(run.input, json!({"topic": "rivers", "words": 200}));
}
