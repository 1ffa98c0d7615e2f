//! What people decide about nodes that wait for them.

use crate::accounts::create_account;
use crate::common::World;
use gathering_auth::RoleAtCreation;
use gathering_control::NewDecision;
use gathering_dag_engine::testing::planned_result;
use gathering_dag_engine::testing::{PortsFixture, decision_cases};
use gathering_dag_engine::{Checkpoint, Claim, ClaimScope, Decisions, Release, RunEnd, RunStore};
use gathering_domain::{NodeId, RunEvent, RunId, UserId, WaitingFor};
use gathering_persistence::{Decided, PgAccountStore, Runs, WakeBus};

pub async fn somebody(world: &World) -> UserId {
    let accounts = PgAccountStore::new(world.pool.clone());
    create_account(&accounts, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap().id
}

pub fn decision(by: UserId, approve: bool) -> NewDecision {
    NewDecision {
        approve,
        comment: Some("looks good".into()),
        decided_by: by,
        decided_as: "ada@example.org".into(),
    }
}

fn letting_go(claim: Claim, release: Release) -> Checkpoint {
    Checkpoint { claim, first_seq: 1, records: vec![], release: Some(release), frees: Vec::new() }
}

#[tokio::test]
async fn the_store_passes_the_engine_s_cases_of_decisions() {
    decision_cases(async || Box::new(World::new().await) as Box<dyn PortsFixture>).await;
}

#[tokio::test]
async fn of_many_decisions_at_once_the_first_stands() {
    let world = World::new().await;
    let (owner, ada) = (world.begin_instance().await, somebody(&world).await);
    let run = world.accept().await;
    world.store.claim_run(owner, run).await.unwrap().unwrap();
    let node: NodeId = "review".parse().unwrap();
    assert_eq!(world.store.find_decision(run, &node).await.unwrap(), None);
    let runs = Runs::new(world.pool.clone(), WakeBus::new());
    let (yes, no) = (decision(ada, true), decision(ada, false));
    let (one, two) = tokio::join!(runs.decide(run, &node, &yes), runs.decide(run, &node, &no));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!(matches!(
        (one, two),
        (Decided::Recorded, Decided::DecidedBefore) | (Decided::DecidedBefore, Decided::Recorded)
    ));
    let stands = world.store.find_decision(run, &node).await.unwrap().unwrap();
    assert_eq!(stands.approve, one == Decided::Recorded);
    assert_eq!(
        (stands.comment.as_deref(), stands.decided_by.as_str()),
        (Some("looks good"), "ada@example.org")
    );
    assert_eq!(runs.decide(run, &node, &no).await.unwrap(), Decided::DecidedBefore);
    assert_eq!(world.store.find_decision(run, &node).await.unwrap().unwrap(), stands);
    let other: NodeId = "other".parse().unwrap();
    assert_eq!(runs.decide(run, &other, &no).await.unwrap(), Decided::Recorded, "each node has its own");
}

#[tokio::test]
async fn a_decision_reaches_a_run_that_is_driven_or_parked_and_none_that_ended() {
    let world = World::new().await;
    let (owner, ada) = (world.begin_instance().await, somebody(&world).await);
    let run = world.accept().await;
    let claim = world.store.claim_run(owner, run).await.unwrap().unwrap().claim;
    let (wakes, yes) = (WakeBus::new(), decision(ada, true));
    let runs = Runs::new(world.pool.clone(), wakes.clone());
    let acts = wakes.subscribe(gathering_persistence::Wake::Signals);
    let node = |id: &str| -> NodeId { id.parse().unwrap() };
    assert_eq!(runs.decide(run, &node("a"), &yes).await.unwrap(), Decided::Recorded);
    assert!(acts.has_changed().unwrap());
    let signalled = world.store.list_signalled(owner, &[run]).await.unwrap();
    assert_eq!(signalled.iter().map(|signalled| signalled.run).collect::<Vec<_>>(), [run]);
    let park = Release::Park { waiting_for: WaitingFor::Approval, until: None };
    world.store.commit(&[letting_go(claim, park.clone())]).await.unwrap().remove(0).unwrap();
    let claim = world.store.claim(owner, ClaimScope::Queue, 1).await.unwrap().remove(0).claim;
    let parked = Checkpoint { first_seq: 2, ..letting_go(claim, park) };
    world.store.commit(&[parked]).await.unwrap().remove(0).unwrap();
    assert_eq!(world.store.claim(owner, ClaimScope::Queue, 1).await.unwrap(), [], "it waits");
    assert_eq!(runs.decide(run, &node("b"), &yes).await.unwrap(), Decided::Recorded);
    let claim = world.store.claim(owner, ClaimScope::Queue, 1).await.unwrap().remove(0).claim;
    let end =
        RunEnd { result: planned_result(RunEvent::Succeeded), abandons_children: false, is_limited: false };
    let ended = Checkpoint { first_seq: 3, ..letting_go(claim, Release::End(end)) };
    world.store.commit(&[ended]).await.unwrap().remove(0).unwrap();
    assert_eq!(runs.decide(run, &node("c"), &yes).await.unwrap(), Decided::RunEnded);
    assert_eq!(runs.decide(RunId::new(), &node("c"), &yes).await.unwrap(), Decided::Missing);
    assert_eq!(world.store.find_decision(run, &node("c")).await.unwrap(), None);
}
