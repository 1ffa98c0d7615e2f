//! Deciding approvals.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use gathering_auth::{Caller, ProjectRole, Role};
use gathering_dag_engine::{
    DecidedOutcome, EffectClass, EffectStart, JournalEvent, NodeFailure, NodeState, Release, RerunFrom,
};
use gathering_domain::{FailureKind, RunId, RunState, WaitingFor};
use serde_json::{Value, json};

use super::{World, claim, commit, conflict, failed, node};
use crate::testing::ControlFixture;
use crate::{Conflict, ControlError, Decide, DecideOutcome, Rerun, Run, StartRun, right};

pub(super) fn approval(approvers: &[String]) -> Value {
    let mut config = json!({"message": "May it go on?"});
    if !approvers.is_empty() {
        config["approvers"] = json!(approvers);
    }
    json!({"nodes": [{"id": "review", "type": "approval", "config": config, "idempotent": false}]})
}

/// A run of this definition that is parked at its approval.
pub(super) async fn waiting<F: ControlFixture>(fixture: &F, world: &World, definition: &Value) -> RunId {
    let pipeline = world.define(definition).await;
    let run = world.runs.start(&world.owner, pipeline, StartRun::default()).await.unwrap().id;
    let claim = claim(fixture, run).await;
    let waits = JournalEvent::Waiting { on: WaitingFor::Approval, until: None, times_out: false };
    let events = vec![("review", JournalEvent::Started), ("review", waits)];
    let release = Release::Park { waiting_for: WaitingFor::Approval, until: None };
    commit(fixture, claim, events, Some(release)).await;
    run
}

impl World {
    async fn decide(&self, by: &Caller, run: RunId, approve: bool) -> Result<Run, ControlError> {
        self.runs.decide(by, run, &node("review"), Decide { approve, comment: None }).await
    }
}

/// The first decision is final, whatever the second says.
pub async fn an_approver_decides_once<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let run = waiting(fixture, &world, &approval(&[])).await;
    let (yes, no) =
        tokio::join!(world.decide(&world.owner, run, true), world.decide(&world.owner, run, false));
    let (decided, refused) = if yes.is_ok() { (yes, no) } else { (no, yes) };
    assert_eq!(decided.unwrap().id, run);
    assert_eq!(conflict(refused), Conflict::AlreadyDecided(node("review")));
    let again = world.decide(&world.owner, run, true).await;
    assert_eq!(conflict(again), Conflict::AlreadyDecided(node("review")));
}

/// Not even an owner or an admin decides for them.
pub async fn only_an_approver_decides_where_a_node_names_them<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let approver = fixture.account(Role::Member).await;
    fixture.join(world.project, &approver, ProjectRole::Editor).await;
    let email = fixture.store().find_email(&approver).await.unwrap().unwrap();
    let run = waiting(fixture, &world, &approval(&[email.to_string()])).await;
    let admin = fixture.account(Role::Admin).await;
    for other in [&world.owner, &admin] {
        let refused = world.decide(other, run, true).await;
        assert!(matches!(refused, Err(ControlError::NotApprover)), "{refused:?}");
    }
    assert!(world.decide(&approver, run, true).await.is_ok());
}

/// Neither a node of a run that has ended nor one that executes; and a node that the graph does not have is absent.
pub async fn only_a_node_that_waits_for_an_approval_is_decided<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let pipeline = world.define(&approval(&[])).await;
    let run = world.runs.start(&world.owner, pipeline, StartRun::default()).await.unwrap().id;
    let not_waiting = Conflict::NotWaitingForApproval(node("review"));
    assert_eq!(conflict(world.decide(&world.owner, run, true).await), not_waiting);
    let decide = Decide { approve: true, comment: None };
    let absent = world.runs.decide(&world.owner, run, &node("other"), decide).await;
    assert!(matches!(absent, Err(ControlError::NotFound)), "{absent:?}");
    let claim = claim(fixture, run).await;
    commit(fixture, claim, vec![("review", JournalEvent::Started)], Some(failed())).await;
    assert_eq!(conflict(world.decide(&world.owner, run, true).await), not_waiting);
}

/// A payment, and what handles its failure.
fn payment() -> Value {
    json!({
        "nodes": [
            {"id": "pay", "type": "trigger", "idempotent": false},
            {"id": "sorry", "type": "trigger", "idempotent": false},
        ],
        "edges": [{"from": "pay", "to": "sorry", "on": "failure"}],
    })
}

/// A run that failed because nobody knows whether its payment took place.
async fn unknown<F: ControlFixture>(fixture: &F, world: &World) -> RunId {
    let pipeline = world.define(&payment()).await;
    let run = world.runs.start(&world.owner, pipeline, StartRun::default()).await.unwrap().id;
    let claim = claim(fixture, run).await;
    let start = EffectStart::new("call", EffectClass::Unsafe, "ab".repeat(32));
    let unknown = NodeFailure::permanent(FailureKind::EffectUnknown, "it may have taken place");
    let events = vec![
        ("pay", JournalEvent::Started),
        ("pay", JournalEvent::EffectStarted(start)),
        ("pay", JournalEvent::EffectUnknown { key: "call".to_owned(), failure: unknown.clone() }),
        ("pay", JournalEvent::Failed(unknown)),
    ];
    commit(fixture, claim, events, Some(failed())).await;
    run
}

fn outcome(outcome: DecidedOutcome, output: Option<Value>) -> DecideOutcome {
    DecideOutcome { outcome, output, reason: "the bank says so".to_owned() }
}

/// The run stays as it ended, and the second decision is refused, whatever it says.
pub async fn the_end_of_a_node_is_decided_once<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let run = unknown(fixture, &world).await;
    let before = world.runs.find::<right::Read>(&world.owner, run).await.unwrap().into_thing();
    let decide = async |as_decided| {
        let decide = outcome(as_decided, None);
        world.runs.decide_outcome(&world.owner, run, &node("pay"), decide).await
    };
    let (one, two) = tokio::join!(decide(DecidedOutcome::Repeat), decide(DecidedOutcome::Succeeded));
    let (decided, refused) = if one.is_ok() { (one, two) } else { (two, one) };
    assert_eq!(decided.unwrap(), before, "a run that has ended does not change");
    assert_eq!(conflict(refused), Conflict::AlreadyDecided(node("pay")));
    let again = decide(DecidedOutcome::Repeat).await;
    assert_eq!(conflict(again), Conflict::AlreadyDecided(node("pay")));
}

/// Neither a node of a run that goes on, nor one of which everything is known, nor by somebody who may not run it.
pub async fn only_a_node_whose_end_is_unknown_is_decided<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let run = unknown(fixture, &world).await;
    let decide = async |by: &Caller, run, id: &str| {
        world.runs.decide_outcome(by, run, &node(id), outcome(DecidedOutcome::Failed, None)).await
    };
    assert_eq!(conflict(decide(&world.owner, run, "sorry").await), Conflict::EndKnown(node("sorry")));
    let absent = decide(&world.owner, run, "other").await;
    assert!(matches!(absent, Err(ControlError::NotFound)), "{absent:?}");
    let stranger = fixture.account(Role::Member).await;
    let invisible = decide(&stranger, run, "pay").await;
    assert!(matches!(invisible, Err(ControlError::NotFound)), "{invisible:?}");
    let viewer = fixture.account(Role::Member).await;
    fixture.join(world.project, &viewer, ProjectRole::Viewer).await;
    let forbidden = decide(&viewer, run, "pay").await;
    assert!(matches!(forbidden, Err(ControlError::Forbidden)), "{forbidden:?}");
    let pipeline = world.define(&payment()).await;
    let goes_on = world.runs.start(&world.owner, pipeline, StartRun::default()).await.unwrap().id;
    assert_eq!(conflict(decide(&world.owner, goes_on, "pay").await), Conflict::RunNotEnded);
    assert!(decide(&world.owner, run, "pay").await.is_ok(), "nothing was recorded before");
}

/// What was decided is in the journal of the rerun, with who and why.
pub async fn a_rerun_begins_with_what_was_decided<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let email = fixture.store().find_email(&world.owner).await.unwrap().unwrap();
    let cases = [
        (DecidedOutcome::Succeeded, Some(json!("receipt")), NodeState::Succeeded),
        (DecidedOutcome::Repeat, None, NodeState::Pending),
        (DecidedOutcome::Failed, None, NodeState::Failed),
    ];
    for (as_decided, output, state) in cases {
        let run = unknown(fixture, &world).await;
        let decide = outcome(as_decided, output.clone());
        world.runs.decide_outcome(&world.owner, run, &node("pay"), decide).await.unwrap();
        let rerun = Rerun { from: RerunFrom::Failed, input: None, version: None, once: None };
        let new = world.runs.rerun(&world.owner, run, rerun).await.unwrap().run;
        assert_eq!(new.state, RunState::Queued);
        let journal = world.runs.list_journal(&world.owner, new.id, 0, 100).await.unwrap();
        let JournalEvent::Decided { outcome, reason, decided_by, .. } = &journal[0].record.event else {
            panic!("{journal:?}")
        };
        assert_eq!((*outcome, reason.as_str()), (as_decided, "the bank says so"));
        assert_eq!(decided_by, email.as_str());
        let found = world.runs.find::<right::Read>(&world.owner, new.id).await.unwrap();
        let pay = world.runs.load_nodes(&found).await.unwrap().take(&node("pay")).unwrap();
        assert_eq!((pay.state, &pay.output), (state, &output));
        assert!(!pay.has_unknown_end() || state == NodeState::Failed);
    }
}
