//! Whatever ends a run wakes the same readers: those that follow it, the driver of its parent and those of its children.

use std::ops::RangeInclusive;

use futures::FutureExt;
use gathering_dag_engine::testing::planned_result;
use gathering_dag_engine::{
    Checkpoint, ChildKind, ChildRuns, Claim, ClaimScope, NewChild, Parent, Release, RunEnd, RunStore,
    SignalledRun,
};
use gathering_domain::{InstanceId, RunEvent, RunId, RunState, WaitingFor};
use gathering_persistence::{PgRunStore, Runs, Wake, WakeBus};
use serde_json::json;
use tokio::sync::watch;

use crate::common::World;

/// What one process is woken for, from now on.
struct Ears {
    runs: watch::Receiver<u64>,
    signals: watch::Receiver<u64>,
    events: watch::Receiver<u64>,
    schedules: watch::Receiver<u64>,
}

impl Ears {
    fn on(wakes: &WakeBus) -> Self {
        Self {
            runs: wakes.subscribe(Wake::Runs),
            signals: wakes.subscribe(Wake::Signals),
            events: wakes.subscribe(Wake::Events),
            schedules: wakes.subscribe(Wake::Schedules),
        }
    }

    /// Which of runs, signals, events and schedules there was a wake-up for since the last call.
    fn heard(&mut self) -> Vec<&'static str> {
        let Self { runs, signals, events, schedules } = self;
        [("runs", runs), ("signals", signals), ("events", events), ("schedules", schedules)]
            .into_iter()
            .filter_map(|(name, receiver)| {
                let heard = receiver.has_changed().unwrap();
                receiver.mark_unchanged();
                heard.then_some(name)
            })
            .collect()
    }
}

/// A store and its runs on a bus that the test listens to.
fn listening(world: &World) -> (PgRunStore, Runs, WakeBus) {
    let wakes = WakeBus::new();
    let store = PgRunStore::new(world.pool.clone(), wakes.clone());
    (store, Runs::new(world.pool.clone(), wakes.clone()), wakes)
}

async fn claim_run(world: &World, owner: InstanceId, run: RunId) -> Claim {
    world.store.claim_run(owner, run).await.unwrap().unwrap().claim
}

fn end(claim: Claim, event: RunEvent, abandons_children: bool) -> Checkpoint {
    let end = RunEnd { result: planned_result(event), abandons_children, is_limited: false };
    Checkpoint { claim, first_seq: 1, records: vec![], release: Some(Release::End(end)), frees: Vec::new() }
}

fn park(claim: Claim) -> Checkpoint {
    let release = Release::Park { waiting_for: WaitingFor::Child, until: None };
    Checkpoint { claim, first_seq: 1, records: vec![], release: Some(release), frees: Vec::new() }
}

/// Starts children of a node of `parent`, and answers with their place.
async fn start_children(world: &World, parent: RunId, items: RangeInclusive<u32>) -> Parent {
    let place = Parent { run: parent, node: "call".parse().unwrap(), round: 0 };
    let graph = world.new_run().await.graph;
    let child =
        |item| NewChild { item, graph, input: json!({}), pipeline: None, deadline_at: None, permit: None };
    world.store.start(&place, ChildKind::Awaited, items.map(child).collect(), &[]).await.unwrap();
    place
}

async fn state(world: &World, run: RunId) -> RunState {
    Runs::new(world.pool.clone(), WakeBus::new()).find(run).await.unwrap().unwrap().state
}

#[tokio::test]
async fn a_cancel_that_ends_a_run_wakes_those_that_follow_it() {
    let world = World::new().await;
    let run = world.accept().await;
    let (_, runs, wakes) = listening(&world);
    let (mut ears, mut following) = (Ears::on(&wakes), wakes.follow(run));
    runs.request_cancel(run).await.unwrap();
    assert_eq!(state(&world, run).await, RunState::Cancelled);
    assert!(ears.heard().contains(&"events"), "no reader of events hears of the end");
    assert!(following.appended().now_or_never().is_some(), "who follows the run here is not told");
}

#[tokio::test]
async fn a_cancel_that_ends_a_child_wakes_its_parent() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let parent = world.accept().await;
    let claim = claim_run(&world, owner, parent).await;
    let place = start_children(&world, parent, 0..=1).await;
    let (_, runs, wakes) = listening(&world);
    let mut ears = Ears::on(&wakes);
    runs.request_cancel(place.child(0)).await.unwrap();
    assert_eq!(ears.heard(), ["runs", "signals", "events"]);
    let signalled = world.store.list_signalled(owner, &[parent]).await.unwrap();
    assert_eq!(signalled, [SignalledRun { run: parent, cancel_requested: false, cancel_reason: None }]);
    world.store.commit(&[park(claim)]).await.unwrap().remove(0).unwrap();
    claim_run(&world, owner, parent).await;
}

#[tokio::test]
async fn a_cancel_that_leaves_the_end_to_a_driver_ends_nothing_and_signals_it() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let run = world.accept().await;
    claim_run(&world, owner, run).await;
    let (_, runs, wakes) = listening(&world);
    let mut ears = Ears::on(&wakes);
    runs.request_cancel(run).await.unwrap();
    assert_eq!(state(&world, run).await, RunState::Running);
    assert_eq!(ears.heard(), ["runs", "signals"]);
}

#[tokio::test]
async fn a_recovery_that_fails_a_run_wakes_the_drivers_of_its_parent_and_children_elsewhere() {
    let world = World::new().await;
    let (alive, dead) = (world.begin_instance().await, world.begin_instance().await);
    let parent = world.accept().await;
    claim_run(&world, alive, parent).await;
    let place = start_children(&world, parent, 0..=0).await;
    let run = place.child(0);
    claim_run(&world, dead, run).await;
    let below = start_children(&world, run, 0..=1).await;
    let (driven, queued) = (below.child(0), below.child(1));
    claim_run(&world, alive, driven).await;
    world.cut_liveness(dead).await;
    let (store, _, wakes) = listening(&world);
    let (mut ears, mut following) = (Ears::on(&wakes), wakes.follow(run));
    store.recover_dead_instances(0).await.unwrap();
    assert_eq!(state(&world, run).await, RunState::Failed);
    // It does not ask whether they belong to schedules.
    assert_eq!(ears.heard(), ["runs", "signals", "events", "schedules"]);
    assert!(following.appended().now_or_never().is_some(), "its journal has grown");
    let mut signalled = world.store.list_signalled(alive, &[parent, driven]).await.unwrap();
    signalled.sort_by_key(|signalled| signalled.cancel_requested);
    assert_eq!(
        signalled,
        [
            SignalledRun { run: parent, cancel_requested: false, cancel_reason: None },
            SignalledRun {
                run: driven,
                cancel_requested: true,
                cancel_reason: Some(format!("run {run} failed")),
            }
        ]
    );
    let ending = world.store.claim_ending(alive, ClaimScope::Queue, 10).await.unwrap();
    assert_eq!(ending.iter().map(|run| run.claim.run).collect::<Vec<_>>(), [queued]);
}

#[tokio::test]
async fn a_recovery_that_requeues_a_run_wakes_those_that_claim_and_those_that_follow_it() {
    let world = World::new().await;
    let dead = world.begin_instance().await;
    let run = world.accept().await;
    claim_run(&world, dead, run).await;
    world.cut_liveness(dead).await;
    let (store, _, wakes) = listening(&world);
    let (mut ears, mut following) = (Ears::on(&wakes), wakes.follow(run));
    store.recover_dead_instances(20).await.unwrap();
    assert_eq!(ears.heard(), ["runs"]);
    assert!(following.appended().now_or_never().is_some(), "its journal has grown");
}

#[tokio::test]
async fn the_last_checkpoint_of_a_run_wakes_its_parent_its_children_and_its_followers() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let (store, _, wakes) = listening(&world);
    let mut ears = Ears::on(&wakes);
    let run = world.accept().await;
    let claim = claim_run(&world, owner, run).await;
    let place = start_children(&world, run, 0..=1).await;
    let child = claim_run(&world, owner, place.child(0)).await;
    store.commit(&[end(child, RunEvent::Succeeded, false)]).await.unwrap().remove(0).unwrap();
    assert_eq!(ears.heard(), ["runs", "signals", "events"]);
    store.commit(&[end(claim, RunEvent::Failed, true)]).await.unwrap().remove(0).unwrap();
    assert_eq!(ears.heard(), ["runs", "signals", "events"]);
    let alone = world.accept().await;
    let claim = claim_run(&world, owner, alone).await;
    store.commit(&[end(claim, RunEvent::Succeeded, false)]).await.unwrap().remove(0).unwrap();
    assert_eq!(ears.heard(), ["events"]);
}

/// A due time may wait for the end of the run, and is to start then, not a minute later.
#[tokio::test]
async fn the_end_of_a_run_of_a_schedule_wakes_those_that_fire() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let (store, runs, wakes) = listening(&world);
    let (driven, queued) = (world.accept().await, world.accept().await);
    world.db.execute("UPDATE runs SET schedule_id = gen_random_uuid()").await;
    let claim = claim_run(&world, owner, driven).await;
    let mut ears = Ears::on(&wakes);
    store.commit(&[end(claim, RunEvent::Succeeded, false)]).await.unwrap().remove(0).unwrap();
    assert_eq!(ears.heard(), ["events", "schedules"]);
    runs.request_cancel(queued).await.unwrap();
    assert!(ears.heard().contains(&"schedules"), "a run that ends by its cancellation");
}

/// The answer to the first may be lost, and with it what it owed.
#[tokio::test]
async fn a_last_checkpoint_that_is_written_again_wakes_again() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let run = world.accept().await;
    claim_run(&world, owner, run).await;
    let place = start_children(&world, run, 0..=0).await;
    let child = claim_run(&world, owner, place.child(0)).await;
    let last = end(child, RunEvent::Succeeded, false);
    world.store.commit(std::slice::from_ref(&last)).await.unwrap().remove(0).unwrap();
    let (store, _, wakes) = listening(&world);
    let mut ears = Ears::on(&wakes);
    store.commit(&[last]).await.unwrap().remove(0).unwrap();
    // Nobody knows any more whether it belongs to a schedule.
    assert_eq!(ears.heard(), ["runs", "signals", "events", "schedules"]);
}

#[tokio::test]
async fn a_claim_that_writes_to_the_journal_tells_those_that_follow_the_run() {
    let world = World::new().await;
    let (owner, heir) = (world.begin_instance().await, world.begin_instance().await);
    let run = world.accept().await;
    let claim = claim_run(&world, owner, run).await;
    let back = Checkpoint {
        claim,
        first_seq: 1,
        records: vec![],
        release: Some(Release::Requeue),
        frees: Vec::new(),
    };
    world.store.commit(&[back]).await.unwrap().remove(0).unwrap();
    let (store, runs, wakes) = listening(&world);
    runs.request_cancel(run).await.unwrap();
    let mut following = wakes.follow(run);
    assert_eq!(store.claim_ending(heir, ClaimScope::Queue, 10).await.unwrap().len(), 1);
    assert!(following.appended().now_or_never().is_some(), "it has a new entry: taken over");
}

#[tokio::test]
async fn cancelled_children_wake_those_that_follow_them_and_their_drivers() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let parent = world.accept().await;
    claim_run(&world, owner, parent).await;
    let place = start_children(&world, parent, 0..=1).await;
    claim_run(&world, owner, place.child(1)).await;
    let (store, _, wakes) = listening(&world);
    let (mut ears, mut following) = (Ears::on(&wakes), wakes.follow(place.child(0)));
    store.cancel(&place).await.unwrap();
    assert_eq!(ears.heard(), ["runs", "signals", "events"]);
    assert!(following.appended().now_or_never().is_some());
    let signalled = store.list_signalled(owner, &[parent, place.child(1)]).await.unwrap();
    let expected = SignalledRun {
        run: place.child(1),
        cancel_requested: true,
        cancel_reason: Some(place.cancel_reason()),
    };
    assert_eq!(signalled, [expected], "the parent asked for it");
}
