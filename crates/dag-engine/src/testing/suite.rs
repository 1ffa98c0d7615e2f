//! The promises of [`RunStore`] and of the other ports, as cases that run against every implementation.

#![expect(clippy::unwrap_used, reason = "a failed case is a failed test")]
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gathering_domain::{Digest, InstanceId, NodeId, ProjectId, RunId, WaitingFor};
use serde_json::{Value, json};

use crate::journal::{JournalEvent, Record, Seq};
use crate::store::{
    Checkpoint, Claim, ClaimScope, ClaimedRun, JournalAtClaim, NewRun, Recovered, Release, RunEnd, RunResult,
    RunStore, StoreError,
};

pub use self::breakers::breaker_cases;
pub use self::children::child_run_cases;
pub use self::decisions::decision_cases;
pub use self::permits::permit_cases;
pub use self::ports::{PortsFixture, planned_result};

mod breakers;
mod children;
mod decisions;
mod permits;
mod ports;
mod taken_up;

/// The fixture of the cases.
#[async_trait]
pub trait StoreFixture: Send + Sync {
    /// The store.
    fn store(&self) -> Arc<dyn RunStore>;
    /// A project that may own runs.
    async fn project(&self) -> ProjectId;
    /// A new instance that is alive.
    async fn instance(&self) -> InstanceId;
    /// Kills an instance without a shutdown.
    async fn kill(&self, instance: InstanceId);
}

/// Every case that an implementation of [`RunStore`] must pass, each on a fixture of its own.
///
/// # Panics
/// At the first promise that does not hold.
pub async fn store_cases<F, Fut>(make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Box<dyn StoreFixture>>,
{
    i2_a_run_is_claimed_once(&*make().await).await;
    claims_go_by_priority_and_then_by_age(&*make().await).await;
    i1_a_place_in_the_journal_is_taken_once(&*make().await).await;
    i1_a_repeated_checkpoint_is_written_once(&*make().await).await;
    i5_a_released_run_is_closed_to_its_former_owner(&*make().await).await;
    a_release_without_records_needs_no_place_in_the_journal(&*make().await).await;
    a_rehearsed_checkpoint_leaves_no_trace(&*make().await).await;
    one_lost_claim_does_not_affect_other_checkpoints(&*make().await).await;
    i4_the_runs_of_a_dead_instance_are_queued_again(&*make().await).await;
    i4_the_runs_of_a_lost_claim_are_queued_again(&*make().await).await;
    a_run_that_kills_every_owner_fails(&*make().await).await;
    a_parked_run_is_claimed_when_its_time_comes(&*make().await).await;
    i3_the_starts_of_a_claim_are_in_the_journal(&*make().await).await;
    i4_an_overdue_run_is_claimed_although_it_is_not_available(&*make().await).await;
    a_claim_of_a_tree_takes_its_queued_root_before_its_time_and_nothing_else(&*make().await).await;
    i4_an_overdue_run_is_claimed_in_its_tree_and_in_no_other(&*make().await).await;
}

async fn accept(fixture: &(impl StoreFixture + ?Sized), priority: i32) -> RunId {
    // A claim starts no node of it, so the journal holds only what a case puts there.
    accept_graph(fixture, priority, json!({"nodes": [{"id": "a", "type": "trigger", "idempotent": false}]}))
        .await
}

async fn accept_graph(fixture: &(impl StoreFixture + ?Sized), priority: i32, definition: Value) -> RunId {
    let run = NewRun { priority, ..new_run(fixture, definition).await };
    fixture.store().enqueue(run.clone()).await.unwrap();
    fixture.store().enqueue(run.clone()).await.unwrap();
    run.id
}

async fn new_run(fixture: &(impl StoreFixture + ?Sized), definition: Value) -> NewRun {
    let store = fixture.store();
    let graph = Digest::of_json(&definition);
    store.ensure_graph(graph, &definition).await.unwrap();
    store.ensure_graph(graph, &definition).await.unwrap();
    assert_eq!(store.load_graph(graph).await.unwrap(), definition);
    let (id, project, input) = (RunId::new(), fixture.project().await, json!({"n": 1}));
    NewRun { id, project, graph, input, priority: 5, available_at: None, timeout: None }
}

async fn accept_and_claim(fixture: &dyn StoreFixture, owner: InstanceId) -> ClaimedRun {
    let run = accept(fixture, 5).await;
    let mut claimed = fixture.store().claim(owner, ClaimScope::Queue, 10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].claim, Claim { run, owner, epoch: 1 });
    claimed.remove(0)
}

fn started(claim: Claim, first_seq: i64) -> Checkpoint {
    let node: NodeId = "a".parse().unwrap();
    let records = vec![Record::of_node(node, 1, JournalEvent::Started)];
    Checkpoint { claim, first_seq, records, release: None, frees: Vec::new() }
}

fn ended(claim: Claim, first_seq: i64, output: Value) -> Checkpoint {
    let node: NodeId = "a".parse().unwrap();
    let records = vec![Record::of_node(node, 1, JournalEvent::Succeeded { output: output.clone() })];
    let end = RunEnd { result: RunResult::Succeeded(output), abandons_children: false, is_limited: false };
    Checkpoint { claim, first_seq, records, release: Some(Release::End(end)), frees: Vec::new() }
}

async fn commit(fixture: &(impl StoreFixture + ?Sized), checkpoint: Checkpoint) -> Result<(), StoreError> {
    fixture.store().commit(&[checkpoint]).await.unwrap().remove(0)
}

fn is_lost(result: &Result<(), StoreError>) -> bool {
    matches!(result, Err(StoreError::ClaimLost { .. }))
}

async fn i2_a_run_is_claimed_once(fixture: &dyn StoreFixture) {
    let (one, other) = (fixture.instance().await, fixture.instance().await);
    for _ in 0..20 {
        accept(fixture, 5).await;
    }
    let store = fixture.store();
    let (mine, theirs) =
        tokio::join!(store.claim(one, ClaimScope::Queue, 15), store.claim(other, ClaimScope::Queue, 15));
    let mut runs: Vec<_> =
        mine.unwrap().into_iter().chain(theirs.unwrap()).map(|run| run.claim.run).collect();
    while let Some(run) = store.claim(one, ClaimScope::Queue, 1).await.unwrap().pop() {
        runs.push(run.claim.run);
    }
    assert_eq!(runs.len(), 20, "every run is claimed");
    runs.sort_unstable();
    runs.dedup();
    assert_eq!(runs.len(), 20, "no run is claimed twice");
    assert_eq!(store.claim_run(other, runs[0]).await.unwrap(), None);
}

async fn claims_go_by_priority_and_then_by_age(fixture: &dyn StoreFixture) {
    let owner = fixture.instance().await;
    let (low, first, second, high) = (
        accept(fixture, 1).await,
        accept(fixture, 5).await,
        accept(fixture, 5).await,
        accept(fixture, 9).await,
    );
    let mut order = Vec::new();
    while let Some(run) = fixture.store().claim(owner, ClaimScope::Queue, 1).await.unwrap().pop() {
        order.push(run.claim.run);
    }
    assert_eq!(order, [high, first, second, low]);
}

async fn i1_a_place_in_the_journal_is_taken_once(fixture: &dyn StoreFixture) {
    let owner = fixture.instance().await;
    let claim = accept_and_claim(fixture, owner).await.claim;
    commit(fixture, started(claim, 1)).await.unwrap();
    // A different record at a place that is taken.
    let result = commit(fixture, ended(claim, 1, json!(1))).await;
    assert!(is_lost(&result), "{result:?}");
    let journal = fixture.store().load_journal(claim.run, 0, 10).await.unwrap();
    assert_eq!(journal.len(), 1);
    assert_eq!((journal[0].seq, journal[0].epoch, journal[0].owner), (1, 1, Some(owner)));
    assert_eq!(fixture.store().load_journal(claim.run, 1, 10).await.unwrap(), []);
}

async fn i1_a_repeated_checkpoint_is_written_once(fixture: &dyn StoreFixture) {
    let owner = fixture.instance().await;
    let claim = accept_and_claim(fixture, owner).await.claim;
    for _ in 0..2 {
        commit(fixture, started(claim, 1)).await.unwrap();
    }
    for _ in 0..2 {
        commit(fixture, ended(claim, 2, json!({"x": 1.5}))).await.unwrap();
    }
    assert_eq!(fixture.store().load_journal(claim.run, 0, 10).await.unwrap().len(), 2);
}

async fn i5_a_released_run_is_closed_to_its_former_owner(fixture: &dyn StoreFixture) {
    let (one, other) = (fixture.instance().await, fixture.instance().await);
    let claim = accept_and_claim(fixture, one).await.claim;
    let requeue = Checkpoint { release: Some(Release::Requeue), ..started(claim, 1) };
    commit(fixture, requeue).await.unwrap();
    let next = fixture.store().claim(other, ClaimScope::Queue, 1).await.unwrap().remove(0);
    assert_eq!(next.claim, Claim { run: claim.run, owner: other, epoch: 2 });
    assert!(next.was_claimed_before());
    let result = commit(fixture, ended(claim, 2, json!(1))).await;
    assert!(is_lost(&result), "{result:?}");
    let seq = fixture.store().load_journal(claim.run, 0, 10).await.unwrap().len() as i64 + 1;
    commit(fixture, ended(next.claim, seq, json!(2))).await.unwrap();
    let again = Checkpoint { release: Some(Release::Requeue), ..started(next.claim, seq + 1) };
    let result = commit(fixture, again).await;
    assert!(is_lost(&result), "a terminal run never changes: {result:?}");
    assert_eq!(fixture.store().load_journal(claim.run, 0, 10).await.unwrap().len() as i64, seq);
}

async fn a_release_without_records_needs_no_place_in_the_journal(fixture: &dyn StoreFixture) {
    let owner = fixture.instance().await;
    let claim = accept_and_claim(fixture, owner).await.claim;
    commit(fixture, started(claim, 1)).await.unwrap();
    let requeue = Checkpoint { records: Vec::new(), release: Some(Release::Requeue), ..started(claim, 1) };
    commit(fixture, requeue).await.unwrap();
    assert_eq!(fixture.store().claim(owner, ClaimScope::Queue, 1).await.unwrap()[0].claim.epoch, 2);
}

async fn a_rehearsed_checkpoint_leaves_no_trace(fixture: &dyn StoreFixture) {
    let owner = fixture.instance().await;
    let claim = accept_and_claim(fixture, owner).await.claim;
    // Whether the store would write it does not matter here.
    drop(fixture.store().rehearse(&ended(claim, 1, json!("rehearsed"))).await);
    assert_eq!(fixture.store().load_journal(claim.run, 0, 10).await.unwrap(), []);
    commit(fixture, ended(claim, 1, json!("written"))).await.unwrap();
}

async fn one_lost_claim_does_not_affect_other_checkpoints(fixture: &dyn StoreFixture) {
    let owner = fixture.instance().await;
    let mut claims = Vec::new();
    for _ in 0..3 {
        claims.push(accept_and_claim(fixture, owner).await.claim);
    }
    commit(fixture, started(claims[1], 1)).await.unwrap();
    let batch = [started(claims[0], 1), ended(claims[1], 1, json!(1)), started(claims[2], 1)];
    let results = fixture.store().commit(&batch).await.unwrap();
    assert!(results[0].is_ok() && is_lost(&results[1]) && results[2].is_ok(), "{results:?}");
    for (claim, n) in claims.iter().zip([1, 1, 1]) {
        assert_eq!(fixture.store().load_journal(claim.run, 0, 10).await.unwrap().len(), n);
    }
}

async fn i4_the_runs_of_a_dead_instance_are_queued_again(fixture: &dyn StoreFixture) {
    let (one, other) = (fixture.instance().await, fixture.instance().await);
    let recovered = async || fixture.store().recover_dead_instances(20).await.unwrap();
    assert_eq!(recovered().await, Recovered { n_runs: 0, is_anyone_driving: false });
    let claim = accept_and_claim(fixture, one).await.claim;
    commit(fixture, started(claim, 1)).await.unwrap();
    assert_eq!(recovered().await, Recovered { n_runs: 0, is_anyone_driving: true }, "both are alive");
    fixture.kill(one).await;
    assert_eq!(recovered().await, Recovered { n_runs: 1, is_anyone_driving: true });
    let again = Recovered { n_runs: 0, is_anyone_driving: false };
    assert_eq!(recovered().await, again, "repeating it is harmless");
    let wait = fixture.store().next_available_in(ClaimScope::Queue).await.unwrap();
    assert!(wait.is_some_and(|wait| wait < Duration::from_secs(1)), "it can be claimed now: {wait:?}");
    // The former owner wakes up before another instance claims the run.
    let late = commit(fixture, ended(claim, 2, json!(1))).await;
    assert!(is_lost(&late), "{late:?}");
    let next = fixture.store().claim(other, ClaimScope::Queue, 1).await.unwrap().remove(0);
    assert!(next.claim.epoch > claim.epoch);
    let journal = fixture.store().load_journal(claim.run, 0, 10).await.unwrap();
    assert_eq!(journal[1].record.event, JournalEvent::TakenOver);
}

async fn i4_the_runs_of_a_lost_claim_are_queued_again(fixture: &dyn StoreFixture) {
    let (one, other) = (fixture.instance().await, fixture.instance().await);
    let driven = accept_and_claim(fixture, one).await.claim.run;
    let lost = accept_and_claim(fixture, one).await.claim.run;
    let theirs = accept_and_claim(fixture, other).await.claim.run;
    let store = fixture.store();
    assert_eq!(store.release_undriven(one, &[driven]).await.unwrap(), 1);
    assert_eq!(store.release_undriven(one, &[driven]).await.unwrap(), 0);
    assert!(store.next_available_in(ClaimScope::Queue).await.unwrap().is_some(), "it can be claimed now");
    assert_eq!(store.claim_run(other, driven).await.unwrap(), None);
    assert_eq!(store.claim_run(one, theirs).await.unwrap(), None);
    assert_eq!(store.claim_run(other, lost).await.unwrap().map(|run| run.claim.epoch), Some(2));
}

async fn a_run_that_kills_every_owner_fails(fixture: &dyn StoreFixture) {
    let run = accept(fixture, 5).await;
    for round in 0..3 {
        let owner = fixture.instance().await;
        let claimed = fixture.store().claim(owner, ClaimScope::Queue, 1).await.unwrap();
        assert_eq!(claimed.first().map(|claimed| claimed.claim.run), Some(run), "round {round}");
        fixture.kill(owner).await;
        fixture.store().recover_dead_instances(2).await.unwrap();
    }
    let owner = fixture.instance().await;
    assert_eq!(fixture.store().claim(owner, ClaimScope::Queue, 1).await.unwrap(), []);
}

async fn a_parked_run_is_claimed_when_its_time_comes(fixture: &dyn StoreFixture) {
    let owner = fixture.instance().await;
    let claimed = accept_and_claim(fixture, owner).await;
    let until = claimed.created_at + Duration::from_secs(3600);
    let park = Release::Park { waiting_for: WaitingFor::Timer, until: Some(until) };
    commit(fixture, Checkpoint { release: Some(park), ..started(claimed.claim, 1) }).await.unwrap();
    assert_eq!(fixture.store().claim(owner, ClaimScope::Queue, 1).await.unwrap(), []);
    let wait = fixture.store().next_available_in(ClaimScope::Queue).await.unwrap().unwrap();
    assert!(wait > Duration::from_secs(3500) && wait <= Duration::from_secs(3600), "{wait:?}");
    assert!(fixture.store().claim_run(owner, claimed.claim.run).await.unwrap().is_some());
}

async fn i3_the_starts_of_a_claim_are_in_the_journal(fixture: &dyn StoreFixture) {
    let (one, other) = (fixture.instance().await, fixture.instance().await);
    let definition = json!({
        "nodes": [{"id": "b", "type": "trigger"}, {"id": "a", "type": "trigger"}, {"id": "c", "type": "trigger"}],
        "edges": [{"from": "b", "to": "c"}],
    });
    let run = accept_graph(fixture, 5, definition).await;
    let claimed = fixture.store().claim(one, ClaimScope::Queue, 1).await.unwrap().remove(0);
    let start = |node: &NodeId| Record::of_node(node.clone(), 1, JournalEvent::Started);
    let started: Vec<Record> = claimed.started_with_claim().iter().map(start).collect();
    let first = ["b", "a"].map(|node| start(&node.parse().unwrap()));
    assert!(started.is_empty() || started == first, "all of them, or none: {started:?}");
    let journal = fixture.store().load_journal(run, 0, 10).await.unwrap();
    let records: Vec<Record> = journal.iter().map(|entry| entry.record.clone()).collect();
    assert_eq!(records, started);
    assert!(journal.iter().all(|entry| (entry.owner, entry.epoch) == (Some(one), 1)), "{journal:?}");
    // A later claim starts no node: the journal holds the progress of the run.
    let requeue = Checkpoint {
        claim: claimed.claim,
        first_seq: started.len() as Seq + 1,
        records: Vec::new(),
        release: Some(Release::Requeue),
        frees: Vec::new(),
    };
    commit(fixture, requeue).await.unwrap();
    let again = fixture.store().claim(other, ClaimScope::Queue, 1).await.unwrap().remove(0);
    assert_eq!((again.claim.epoch, again.journal), (2, JournalAtClaim::Existing));
}

async fn i4_an_overdue_run_is_claimed_although_it_is_not_available(fixture: &dyn StoreFixture) {
    let owner = fixture.instance().await;
    let definition = json!({"nodes": [{"id": "a", "type": "trigger"}]});
    let new = new_run(fixture, definition).await;
    let later = Some(chrono::Utc::now() + Duration::from_secs(3600));
    let overdue = NewRun { timeout: Some(Duration::ZERO), available_at: later, ..new.clone() };
    let in_time = NewRun { id: RunId::new(), timeout: Some(Duration::from_secs(3600)), ..new };
    for run in [&overdue, &in_time] {
        fixture.store().enqueue(run.clone()).await.unwrap();
    }
    let wait = fixture.store().next_available_in(ClaimScope::Queue).await.unwrap();
    assert_eq!(wait, Some(Duration::ZERO), "its end does not wait until it may begin");
    let claimed = fixture.store().claim_ending(owner, ClaimScope::Queue, 10).await.unwrap();
    assert_eq!(claimed.iter().map(|claimed| claimed.claim.run).collect::<Vec<_>>(), [overdue.id]);
    assert!(claimed[0].started_with_claim().is_empty(), "nothing of it is begun");
    assert_eq!(fixture.store().claim_ending(owner, ClaimScope::Queue, 10).await.unwrap(), []);
}

async fn a_claim_of_a_tree_takes_its_queued_root_before_its_time_and_nothing_else(
    fixture: &dyn StoreFixture,
) {
    let (owner, store) = (fixture.instance().await, fixture.store());
    let stranger = accept(fixture, 9).await;
    let new = new_run(fixture, json!({"nodes": [{"id": "a", "type": "trigger", "idempotent": false}]})).await;
    let later = chrono::Utc::now() + Duration::from_secs(3600);
    let root = NewRun { available_at: Some(later), ..new };
    store.enqueue(root.clone()).await.unwrap();
    let tree = ClaimScope::Tree(root.id);
    assert_eq!(store.claim(owner, ClaimScope::Tree(RunId::new()), 10).await.unwrap(), []);
    assert_eq!(store.next_available_in(ClaimScope::Tree(RunId::new())).await.unwrap(), None);
    assert_eq!(store.next_available_in(tree).await.unwrap(), Some(Duration::ZERO));
    let claimed = store.claim(owner, tree, 10).await.unwrap();
    assert_eq!(claimed.iter().map(|run| run.claim.run).collect::<Vec<_>>(), [root.id]);
    assert_eq!(store.next_available_in(tree).await.unwrap(), None, "it is driven");
    // A parked run waits for its timer in its tree as well.
    let until = claimed[0].created_at + Duration::from_secs(3600);
    let park = Release::Park { waiting_for: WaitingFor::Timer, until: Some(until) };
    commit(fixture, Checkpoint { release: Some(park), ..started(claimed[0].claim, 1) }).await.unwrap();
    assert_eq!(store.claim(owner, tree, 10).await.unwrap(), []);
    let wait = store.next_available_in(tree).await.unwrap().unwrap();
    assert!(wait > Duration::from_secs(3500) && wait <= Duration::from_secs(3600), "{wait:?}");
    let rest = store.claim(owner, ClaimScope::Queue, 10).await.unwrap();
    assert_eq!(rest.iter().map(|run| run.claim.run).collect::<Vec<_>>(), [stranger]);
}

async fn i4_an_overdue_run_is_claimed_in_its_tree_and_in_no_other(fixture: &dyn StoreFixture) {
    let (owner, store) = (fixture.instance().await, fixture.store());
    let new = new_run(fixture, json!({"nodes": [{"id": "a", "type": "trigger"}]})).await;
    let overdue = NewRun { timeout: Some(Duration::ZERO), ..new.clone() };
    let other = NewRun { id: RunId::new(), ..overdue.clone() };
    for run in [&overdue, &other] {
        store.enqueue(run.clone()).await.unwrap();
    }
    let tree = ClaimScope::Tree(overdue.id);
    let claimed = store.claim_ending(owner, tree, 10).await.unwrap();
    assert_eq!(claimed.iter().map(|run| run.claim.run).collect::<Vec<_>>(), [overdue.id]);
    assert!(claimed[0].started_with_claim().is_empty(), "nothing of it is begun");
    assert_eq!(store.claim_ending(owner, tree, 10).await.unwrap(), []);
}
