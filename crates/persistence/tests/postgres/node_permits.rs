//! Permits of nodes on PostgreSQL: the counters of their keys, and what is left behind.

use std::sync::Arc;

use gathering_dag_engine::testing::{PortsFixture, permit_cases, planned_result};
use gathering_dag_engine::{
    Checkpoint, Claim, ClaimScope, NodePermit, NodePermits, PermitScope, Release, RunEnd, RunStore,
};
use gathering_domain::{RunEvent, WaitingFor};
use gathering_persistence::{PgRunStore, WakeBus, clear_expired};

use crate::common::World;

#[tokio::test]
async fn the_store_passes_the_engine_s_cases_of_permits() {
    permit_cases(async || Box::new(World::new().await) as Box<dyn PortsFixture>).await;
}

/// How many permits are held and waited for, as the keys say and as the rows do.
async fn counted(world: &World) -> (i64, i64) {
    let held = "SELECT coalesce(sum(held), 0)::bigint FROM concurrency_keys";
    let rows = "SELECT count(*) FROM node_permits WHERE is_held";
    let (held, of_rows) = (world.count(held).await, world.count(rows).await);
    assert_eq!(held, of_rows, "the counters are those of the rows");
    let waiting = "SELECT coalesce(sum(waiting), 0)::bigint FROM concurrency_keys";
    let rows = "SELECT count(*) FROM node_permits WHERE NOT is_held";
    let (waiting, of_rows) = (world.count(waiting).await, world.count(rows).await);
    assert_eq!(waiting, of_rows, "the counters are those of the rows");
    (held, waiting)
}

fn release(claim: Claim, release: Release) -> Checkpoint {
    Checkpoint { claim, first_seq: claim.epoch, records: vec![], release: Some(release), frees: vec![] }
}

fn ended(claim: Claim) -> Checkpoint {
    let result = planned_result(RunEvent::Succeeded);
    release(claim, Release::End(RunEnd { result, abandons_children: false, is_limited: true }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn however_runs_ask_and_end_at_once_no_more_have_a_permit_than_there_are_and_none_is_lost() {
    // Whether they wait, in turn.
    for waits in [[true, true], [false, false], [true, false]] {
        ask_and_end_at_once(waits).await;
    }
}

/// Those that do not wait end at once, with a permit or without.
async fn ask_and_end_at_once(waits: [bool; 2]) {
    const N_RUNS: usize = 150;
    const LIMIT: u32 = 3;
    let world = Arc::new(World::new().await);
    let scope = PermitScope::Pipeline(world.pipeline().await);
    for _ in 0..N_RUNS {
        world.accept().await;
    }
    let mut instances = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let world = Arc::clone(&world);
        instances.spawn(async move {
            let owner = world.begin_instance().await;
            let store = PgRunStore::new(world.pool.clone(), WakeBus::new());
            while world.count("SELECT count(*) FROM active_runs").await > 0 {
                let claimed = store.claim(owner, ClaimScope::Queue, 5).await.unwrap();
                for (run, waits) in claimed.into_iter().zip(waits.into_iter().cycle()) {
                    let (claim, node) = (run.claim, "call".parse().unwrap());
                    let permit = NodePermit { claim, node, scope, key: "k".into(), limit: LIMIT, waits };
                    let has_it = store.ask(&permit).await.unwrap();
                    let held = "SELECT count(*) FROM node_permits WHERE is_held";
                    assert!(world.count(held).await <= i64::from(LIMIT));
                    let checkpoint = if has_it || !waits {
                        ended(claim)
                    } else {
                        release(claim, Release::Park { waiting_for: WaitingFor::Concurrency, until: None })
                    };
                    store.commit(&[checkpoint]).await.unwrap().remove(0).unwrap();
                }
            }
        });
    }
    while let Some(instance) = instances.join_next().await {
        instance.unwrap();
    }
    assert_eq!(counted(&world).await, (0, 0));
    let succeeded = world.count("SELECT count(*) FROM runs WHERE state = 'succeeded'").await;
    assert_eq!(succeeded, i64::try_from(N_RUNS).unwrap());
}

/// An owner that is fenced off may ask while the end of its run is written.
#[tokio::test]
async fn what_a_run_that_is_gone_has_left_is_cleared_away() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let scope = PermitScope::Pipeline(world.pipeline().await);
    for _ in 0..3 {
        world.accept().await;
    }
    let claims = world.store.claim(owner, ClaimScope::Queue, 3).await.unwrap();
    for (claimed, expected) in claims.iter().zip([true, false, false]) {
        let (claim, node) = (claimed.claim, "call".parse().unwrap());
        let permit = NodePermit { claim, node, scope, key: "k".into(), limit: 1, waits: true };
        assert_eq!(world.store.ask(&permit).await.unwrap(), expected);
    }
    let last = claims[2].claim;
    let park = Release::Park { waiting_for: WaitingFor::Concurrency, until: None };
    world.store.commit(&[release(last, park)]).await.unwrap().remove(0).unwrap();
    for gone in &claims[..2] {
        let run = gone.claim.run;
        world.db.execute(&format!("DELETE FROM runs WHERE id = '{run}'")).await;
    }
    world.db.execute("UPDATE node_permits SET asked_at = asked_at - interval '1 hour'").await;
    assert_eq!(clear_expired(&world.pool).await.unwrap().n_node_permits, 2);
    assert_eq!(counted(&world).await, (0, 1));
    let woken = world.store.claim(owner, ClaimScope::Queue, 3).await.unwrap();
    assert_eq!(woken.iter().map(|run| run.claim.run).collect::<Vec<_>>(), [last.run], "the line goes on");
    assert_eq!(counted(&world).await, (1, 0));
}

#[tokio::test]
async fn a_node_that_does_not_wait_says_how_many_permits_there_are_and_writes_nothing_else() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let scope = PermitScope::Pipeline(world.pipeline().await);
    for _ in 0..4 {
        world.accept().await;
    }
    let claims = world.store.claim(owner, ClaimScope::Queue, 4).await.unwrap();
    let ask = async |place: usize, limit: u32, waits: bool| {
        let (claim, node) = (claims[place].claim, "call".parse().unwrap());
        world.store.ask(&NodePermit { claim, node, scope, key: "k".into(), limit, waits }).await.unwrap()
    };
    assert!(ask(0, 1, false).await, "the first of its key");
    assert!(!ask(1, 1, false).await);
    assert_eq!(counted(&world).await, (1, 0));
    assert!(!ask(2, 1, true).await);
    assert!(!ask(3, 2, false).await, "another one waits for the second permit");
    assert_eq!(counted(&world).await, (1, 1));
    let waits = claims[2].claim;
    let park = Release::Park { waiting_for: WaitingFor::Concurrency, until: None };
    world.store.commit(&[release(waits, park)]).await.unwrap().remove(0).unwrap();
    let woken = world.store.claim(owner, ClaimScope::Queue, 4).await.unwrap();
    assert_eq!(
        woken.iter().map(|run| run.claim.run).collect::<Vec<_>>(),
        [waits.run],
        "there are two by now"
    );
    assert_eq!(counted(&world).await, (2, 0));
    assert!(ask(1, 3, false).await);
    assert_eq!(counted(&world).await, (3, 0));
}
