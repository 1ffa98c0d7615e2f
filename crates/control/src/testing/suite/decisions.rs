//! Deciding approvals.
#![expect(clippy::unwrap_used, reason = "the cases are tests")]

use gathering_auth::{Caller, ProjectRole, Role};
use gathering_dag_engine::{JournalEvent, Release};
use gathering_domain::{RunId, WaitingFor};
use serde_json::{Value, json};

use super::{World, claim, commit, conflict, failed, node};
use crate::testing::ControlFixture;
use crate::{Conflict, ControlError, Decide, Run, StartRun};

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
