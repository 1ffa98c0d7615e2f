//! Every transition of `runs.state` in PostgreSQL, from every state, against [`RunState::after`].

use std::collections::BTreeSet;

use gathering_dag_engine::testing::planned_result;
use gathering_dag_engine::{
    Checkpoint, ChildKind, ChildRuns, Claim, ClaimScope, NewChild, Parent, Release, RunEnd, RunStore,
};
use gathering_domain::{InstanceId, RunEvent, RunId, RunState, WaitingFor};
use gathering_persistence::{PgRunStore, Runs, WakeBus, recover_dead_instances};
use serde_json::json;

use crate::common::World;

/// Everything in this crate that may change the state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transition {
    Claim,
    ClaimBatch,
    ClaimTree,
    ClaimEnding,
    ClaimTreeEnding,
    Requeue,
    Park,
    End(RunEvent),
    /// Of a run that no instance ever claimed.
    Cancel,
    /// Of such a run by the node that started it.
    CancelChildren,
    ReleaseUndriven,
    Recover,
    RecoverTooOften,
    /// A cancel request or a deadline ends a run that was claimed before through a claim.
    ClaimToEnd(RunEvent),
    MakeAvailable,
}

use Transition::{
    Cancel, CancelChildren, Claim as ClaimOne, ClaimBatch, ClaimEnding, ClaimToEnd, ClaimTree,
    ClaimTreeEnding, End, MakeAvailable, Park, Recover, RecoverTooOften, ReleaseUndriven, Requeue,
};

const TRANSITIONS: [Transition; 18] = [
    ClaimOne,
    ClaimBatch,
    ClaimTree,
    ClaimEnding,
    ClaimTreeEnding,
    Requeue,
    Park,
    End(RunEvent::Succeeded),
    End(RunEvent::Failed),
    End(RunEvent::Cancelled),
    End(RunEvent::TimedOut),
    Cancel,
    CancelChildren,
    ReleaseUndriven,
    Recover,
    RecoverTooOften,
    ClaimToEnd(RunEvent::Cancelled),
    ClaimToEnd(RunEvent::TimedOut),
];

impl Transition {
    /// What it is to the rules, and from which states it must take place.
    fn rule(self) -> (RunEvent, &'static [RunState]) {
        const RUNNING: &[RunState] = &[RunState::Running];
        match self {
            ClaimOne | ClaimBatch | ClaimTree | ClaimEnding | ClaimTreeEnding => {
                (RunEvent::Claimed, &RunState::CLAIMABLE)
            }
            Requeue | ReleaseUndriven => (RunEvent::Requeued, RUNNING),
            Park => (RunEvent::Parked, RUNNING),
            End(event) => (event, RUNNING),
            Cancel | CancelChildren => (RunEvent::Cancelled, &[RunState::Queued]),
            Recover => (RunEvent::OwnerDied, RUNNING),
            RecoverTooOften => (RunEvent::Failed, RUNNING),
            ClaimToEnd(event) => (event, &RunState::CLAIMABLE),
            MakeAvailable => unreachable!("it changes no state"),
        }
    }

    async fn drive(self, scene: &Scene) {
        let Scene { world, owner, claim, place } = scene;
        let (owner, run) = (*owner, claim.run);
        let runs = Runs::new(world.pool.clone(), WakeBus::new());
        let cut = async || world.cut_liveness(owner).await;
        let recover = async |max| {
            let limit = PgRunStore::STUCK_LIMIT;
            recover_dead_instances(&world.pool, &WakeBus::new(), max, limit).await.unwrap()
        };
        match self {
            ClaimOne => drop(world.store.claim_run(owner, run).await.unwrap()),
            ClaimBatch => drop(world.store.claim(owner, ClaimScope::Queue, 10).await.unwrap()),
            ClaimTree => drop(world.store.claim(owner, ClaimScope::Tree(place.run), 10).await.unwrap()),
            ClaimTreeEnding => {
                set(world, run, "cancel_requested_at = now()").await;
                world.store.claim_ending(owner, ClaimScope::Tree(place.run), 10).await.unwrap();
            }
            ClaimEnding => {
                set(world, run, "cancel_requested_at = now()").await;
                world.store.claim_ending(owner, ClaimScope::Queue, 10).await.unwrap();
            }
            Requeue => release(world, *claim, Release::Requeue).await,
            Park => {
                let waiting_for = WaitingFor::Approval;
                release(world, *claim, Release::Park { waiting_for, until: None }).await;
            }
            End(event) => end(world, *claim, event).await,
            Cancel => drop(runs.request_cancel(run).await.unwrap()),
            CancelChildren => world.store.cancel(place).await.unwrap(),
            ReleaseUndriven => drop(world.store.release_undriven(owner, &[place.run]).await.unwrap()),
            Recover => {
                cut().await;
                recover(20).await;
            }
            RecoverTooOften => {
                cut().await;
                recover(0).await;
            }
            ClaimToEnd(event) => {
                let what = if event == RunEvent::Cancelled { "cancel_requested_at" } else { "deadline_at" };
                set(world, run, &format!("{what} = now()")).await;
                for claimed in world.store.claim_ending(owner, ClaimScope::Queue, 10).await.unwrap() {
                    end(world, claimed.claim, event).await;
                }
            }
            MakeAvailable => drop(runs.make_available(run).await.unwrap()),
        }
    }
}

async fn set(world: &World, run: RunId, what: &str) {
    world.db.execute(&format!("UPDATE active_runs SET {what} WHERE run_id = '{run}'")).await;
}

/// A claim that does not hold is refused, which is what some of these are for.
async fn release(world: &World, claim: Claim, release: Release) {
    let checkpoint =
        Checkpoint { claim, first_seq: 100, records: vec![], release: Some(release), frees: Vec::new() };
    drop(world.store.commit(&[checkpoint]).await.unwrap());
}

async fn end(world: &World, claim: Claim, event: RunEvent) {
    let end = RunEnd { result: planned_result(event), abandons_children: true, is_limited: false };
    release(world, claim, Release::End(end)).await;
}

/// A run in some state, below a parent that is driven.
struct Scene {
    world: World,
    owner: InstanceId,
    /// With the epoch that the run has: only the state can refuse it.
    claim: Claim,
    place: Parent,
}

impl Scene {
    /// A run that was never claimed if it is queued.
    async fn new(state: RunState) -> Self {
        let world = World::new().await;
        let owner = world.begin_instance().await;
        let (parent, bystander) = (world.accept().await, world.begin_instance().await);
        world.store.claim_run(bystander, parent).await.unwrap().unwrap();
        let place = Parent { run: parent, node: "a".parse().unwrap(), round: 0 };
        let graph = world.new_run().await.graph;
        let child =
            NewChild { item: 0, graph, input: json!({}), pipeline: None, deadline_at: None, permit: None };
        world.store.start(&place, ChildKind::Awaited, vec![child], &[]).await.unwrap();
        let run = place.child(0);
        let epoch = i64::from(state != RunState::Queued);
        let owned = if state == RunState::Running { format!("'{owner}'") } else { "NULL".to_owned() };
        let waiting = if state == RunState::Waiting { "'approval'" } else { "NULL" };
        let available = if RunState::CLAIMABLE.contains(&state) { "now()" } else { "NULL" };
        if state.is_terminal() {
            let sql = format!(
                "DELETE FROM active_runs WHERE run_id = '{run}';
                 UPDATE runs SET state = '{state}', epoch = {epoch}, ended_at = now() WHERE id = '{run}'"
            );
            world.db.execute(&sql).await;
        } else {
            let fields = format!(
                "state = '{state}', epoch = {epoch}, owner = {owned}, waiting_for = {waiting}, \
                 available_at = {available}"
            );
            set(&world, run, &fields).await;
        }
        let claim = Claim { run, owner, epoch };
        Self { world, owner, claim, place }
    }

    async fn state(&self) -> RunState {
        let runs = Runs::new(self.world.pool.clone(), WakeBus::new());
        runs.find(self.claim.run).await.unwrap().unwrap().state
    }
}

#[tokio::test]
async fn every_transition_from_every_state_is_the_one_of_the_rules_or_changes_nothing() {
    for transition in TRANSITIONS {
        let (event, from) = transition.rule();
        for state in RunState::ALL {
            let scene = Scene::new(state).await;
            transition.drive(&scene).await;
            let expected = if from.contains(&state) { state.after(event).unwrap() } else { state };
            assert_eq!(scene.state().await, expected, "{transition:?} of a run that is {state}");
            scene.world.db.drop_schema().await;
        }
    }
}

#[test]
fn every_transition_that_the_rules_allow_has_one_in_postgresql() {
    let allowed = |(state, event): &(RunState, RunEvent)| state.after(*event).is_ok();
    let rules: BTreeSet<(RunState, RunEvent)> = RunState::ALL
        .into_iter()
        .flat_map(|state| RunEvent::ALL.map(|event| (state, event)))
        .filter(allowed)
        .collect();
    let driven: BTreeSet<(RunState, RunEvent)> = TRANSITIONS
        .into_iter()
        .flat_map(|transition| {
            let (event, from) = transition.rule();
            from.iter().map(move |state| (*state, event))
        })
        .collect();
    assert_eq!(driven, rules);
}

#[tokio::test]
async fn a_wake_up_changes_no_state() {
    for state in RunState::ALL {
        let scene = Scene::new(state).await;
        MakeAvailable.drive(&scene).await;
        assert_eq!(scene.state().await, state);
    }
}
