//! What becomes of the runs of instances that are dead, or stuck.

use std::time::Duration;

use crate::common::{World, wait_until};
use crate::runs::{claim_one, runs};
use diesel_async::SimpleAsyncConnection;
use gathering_domain::RunState;
use gathering_persistence::{PgRunStore, Recoveries, WakeBus, end_overdue_instances, recover_dead_instances};

const STUCK: Duration = PgRunStore::STUCK_LIMIT;

#[tokio::test]
async fn i4_a_run_that_kills_its_owners_fails_as_poisonous_and_says_so() {
    let world = World::new().await;
    let run = world.accept().await;
    for _ in 0..2 {
        let owner = world.begin_instance().await;
        claim_one(&world, owner).await;
        world.cut_liveness(owner).await;
        recover_dead_instances(&world.pool, &WakeBus::new(), 1, STUCK).await.unwrap();
    }
    let row = runs(&world).find(run).await.unwrap().unwrap();
    assert_eq!((row.state, row.recoveries), (RunState::Failed, 2));
    assert_eq!(row.error.unwrap().kind.as_str(), "poisonous");
    assert_eq!(world.count("SELECT count(*) FROM events WHERE type = 'run.failed'").await, 1);
}

#[tokio::test]
async fn two_instances_recover_a_dead_one_once() {
    let world = World::new().await;
    let dead = world.begin_instance().await;
    let run = world.accept().await;
    claim_one(&world, dead).await;
    world.cut_liveness(dead).await;
    let other = world.db.pool().await;
    let wakes = WakeBus::new();
    let (one, two) = tokio::join!(
        recover_dead_instances(&world.pool, &wakes, 20, STUCK),
        recover_dead_instances(&other, &wakes, 20, STUCK)
    );
    assert_eq!(one.unwrap().of.len() + two.unwrap().of.len(), 1);
    assert_eq!(runs(&world).find(run).await.unwrap().unwrap().recoveries, 1);
}

#[tokio::test]
async fn an_instance_that_owns_runs_without_a_heartbeat_loses_its_session_and_its_runs_go_on() {
    let world = World::new().await;
    let (stuck, idle, well) =
        (world.begin_instance().await, world.begin_instance().await, world.begin_instance().await);
    let run = world.accept().await;
    claim_one(&world, stuck).await;
    let sql = format!("UPDATE instances SET heartbeat_at = now() - interval '1 hour' WHERE id <> '{well}'");
    world.db.execute(&sql).await;
    let found = recover_dead_instances(&world.pool, &WakeBus::new(), 20, STUCK).await.unwrap();
    assert_eq!((found.stuck, found.of, found.is_anyone_driving), (vec![stuck], vec![], true));
    let instances = world.instances.lock().await;
    tokio::time::timeout(Duration::from_secs(20), instances[&stuck].lost().cancelled()).await.unwrap();
    wait_until("its run is queued again", async || {
        recover_dead_instances(&world.pool, &WakeBus::new(), 20, STUCK).await.unwrap();
        runs(&world).find(run).await.unwrap().unwrap().state == RunState::Queued
    })
    .await;
    let found = recover_dead_instances(&world.pool, &WakeBus::new(), 20, STUCK).await.unwrap();
    assert_eq!(found, Recoveries::default(), "who owns nothing may be silent for long");
    assert!(!instances[&idle].lost().is_cancelled() && !instances[&well].lost().is_cancelled());
}

#[tokio::test]
async fn an_instance_that_drives_a_run_long_past_its_deadline_loses_its_session_and_it_goes_on() {
    let world = World::new().await;
    let stuck = world.begin_instance().await;
    let run = world.accept().await;
    claim_one(&world, stuck).await;
    let is_stuck = async || end_overdue_instances(&world.pool, STUCK).await.unwrap() == [stuck];
    assert!(!is_stuck().await, "it has no deadline");
    world.db.execute("UPDATE active_runs SET deadline_at = now() - interval '1 hour'").await;
    assert!(!is_stuck().await, "it has just claimed it");
    world.db.execute("UPDATE active_runs SET started_at = now() - interval '2 hours'").await;
    world
        .db
        .execute(&format!(
            "INSERT INTO run_journal (run_id, seq, kind, epoch) VALUES ('{run}', 99, 'taken_over', 1)"
        ))
        .await;
    assert!(!is_stuck().await, "something happened just now");
    world.db.execute("UPDATE run_journal SET at = now() - interval '1 hour'").await;
    assert!(is_stuck().await);
    wait_until("the run is queued again", async || {
        recover_dead_instances(&world.pool, &WakeBus::new(), 20, STUCK).await.unwrap();
        runs(&world).find(run).await.unwrap().unwrap().state == RunState::Queued
    })
    .await;
}

/// The instance that recovers it holds its lock in a transaction.
#[tokio::test]
async fn an_instance_that_recovers_a_stuck_one_is_not_taken_for_it() {
    let world = World::new().await;
    let dead = world.begin_instance().await;
    world.accept().await;
    claim_one(&world, dead).await;
    world.db.execute("UPDATE instances SET heartbeat_at = now() - interval '1 hour'").await;
    world.cut_liveness(dead).await;
    let mut recovering = world.db.connection().await;
    recovering
        .batch_execute("BEGIN; SELECT pg_try_advisory_xact_lock(lock_key) FROM instances")
        .await
        .unwrap();
    let found = recover_dead_instances(&world.pool, &WakeBus::new(), 20, STUCK).await.unwrap();
    assert_eq!((found.stuck, found.of), (vec![], vec![]));
    recovering.batch_execute("COMMIT").await.unwrap();
    assert_eq!(recover_dead_instances(&world.pool, &WakeBus::new(), 20, STUCK).await.unwrap().of.len(), 1);
}
