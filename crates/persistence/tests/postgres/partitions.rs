//! Partitions of the journal are made and dropped while runs go on and others read.

use std::cell::Cell;

use chrono::Utc;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use gathering_dag_engine::{
    Checkpoint, JournalEvent, Record, Release, RunEnd, RunResult, RunStore, StoreError,
};
use gathering_domain::{ExposeSecret, InstanceId, Secret};
use gathering_persistence::{
    ConnectOptions, DatabaseError, PgRunStore, Pool, PoolSettings, WakeBus, drop_journal_before,
    ensure_journal_partitions,
};

use crate::common::{World, wait_until};
use crate::retention::{at, old_run};

const PARTITIONS: &str = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'run_journal'::regclass";

#[tokio::test]
async fn a_partition_is_dropped_only_when_every_run_in_it_ended_before_the_limit() {
    let world = World::new().await;
    old_run(&world, 1, "succeeded", "'2025-01-08Z'").await;
    old_run(&world, 2, "waiting", "NULL").await;
    let n_partitions = world.count(PARTITIONS).await;
    assert_eq!(drop_journal_before(&world.pool, Utc::now()).await.unwrap(), 0, "a waiting run keeps it");
    world
        .db
        .execute("UPDATE runs SET state = 'failed', ended_at = '2025-03-01Z' WHERE ended_at IS NULL AND id < uuid_v7_floor('2025-01-13Z')")
        .await;
    assert_eq!(
        drop_journal_before(&world.pool, at("2025-02-01")).await.unwrap(),
        0,
        "it ended after the limit"
    );
    assert_eq!(world.count(PARTITIONS).await, n_partitions);
    assert_eq!(drop_journal_before(&world.pool, at("2025-03-02")).await.unwrap(), 1);
    assert_eq!(world.count(PARTITIONS).await, n_partitions - 1);
    assert_eq!(world.count("SELECT count(*) FROM run_journal").await, 0);
}

/// A transaction that has read the journal, as a dump does.
async fn dump(world: &World) -> AsyncPgConnection {
    let mut reader = world.db.connection().await;
    let sql = "SET application_name = 'nightly dump'; BEGIN; SELECT count(*) FROM run_journal";
    reader.batch_execute(sql).await.unwrap();
    reader
}

async fn drop_last_week(world: &World) {
    let last = "SELECT max(relname) FROM pg_class WHERE relname ~ '^run_journal_[0-9]{8}$' \
                AND relnamespace = current_schema()::regnamespace";
    world.db.execute(&format!("DO $$ BEGIN EXECUTE 'DROP TABLE ' || ({last}); END $$")).await;
}

/// Executes one run, from its acceptance to its end.
async fn execute_run(world: &World, store: &PgRunStore, owner: InstanceId) {
    let new = world.new_run().await;
    let run = new.id;
    store.enqueue(new).await.unwrap();
    let claim = store.claim_run(owner, run).await.unwrap().unwrap().claim;
    let records =
        vec![Record::of_node("a".parse().unwrap(), 1, JournalEvent::Succeeded { output: 1.into() })];
    let end = RunEnd { result: RunResult::Succeeded(1.into()), abandons_children: false, is_limited: false };
    let checkpoint =
        Checkpoint { claim, first_seq: 1, records, release: Some(Release::End(end)), frees: Vec::new() };
    store.commit(&[checkpoint]).await.unwrap().remove(0).unwrap();
    store.load_journal(run, 0, 10).await.unwrap();
}

#[tokio::test]
async fn while_a_dump_is_open_weeks_are_made_and_old_ones_wait_and_no_run_waits_for_either() {
    let world = World::new().await;
    old_run(&world, 1, "succeeded", "'2025-01-08Z'").await;
    drop_last_week(&world).await;
    let owner = world.begin_instance().await;
    // A statement of a run that waits for a lock for longer than this fails.
    let impatient = format!("{}%20-c%20lock_timeout%3D300", world.db.url().expose_secret());
    let options = ConnectOptions::parse(&Secret::from(impatient)).unwrap();
    let pool = Pool::connect(options, PoolSettings::default()).await.unwrap();
    let store = PgRunStore::new(pool, WakeBus::new());
    let mut reader = dump(&world).await;

    let is_over = Cell::new(false);
    let maintenance = async {
        let made = ensure_journal_partitions(&world.pool, 4).await;
        let dropped = drop_journal_before(&world.pool, at("2025-03-02")).await;
        let dropped_again = drop_journal_before(&world.pool, at("2025-03-02")).await;
        is_over.set(true);
        (made, dropped, dropped_again)
    };
    let runs = async {
        let mut n_runs = 0;
        while !is_over.get() {
            execute_run(&world, &store, owner).await;
            n_runs += 1;
        }
        n_runs
    };
    let ((made, dropped, dropped_again), n_runs) = tokio::join!(maintenance, runs);
    assert_eq!(made.unwrap(), 1, "a reader is not in its way");
    for refused in [dropped.unwrap_err(), dropped_again.unwrap_err()] {
        assert!(matches!(refused, DatabaseError::TimedOut { .. }), "{refused:?}");
        let text = refused.to_string();
        assert!(text.contains("lock timeout") && text.contains("nightly dump"), "why, and who: {text}");
    }
    assert!(n_runs > 5, "{n_runs} runs in two seconds");
    assert_eq!(
        world.count("SELECT count(*) FROM run_journal WHERE run_id < uuid_v7_floor('2025-02-01Z')").await,
        0
    );

    reader.batch_execute("COMMIT").await.unwrap();
    // Its last step waits for the older transactions of the whole database, and so for other tests.
    wait_until("what was begun is finished", async || {
        drop_journal_before(&world.pool, at("2025-03-02")).await.is_ok_and(|n_dropped| n_dropped == 1)
    })
    .await;
    let left = "SELECT count(*) FROM pg_class WHERE relname = 'run_journal_20250106' AND relnamespace = current_schema()::regnamespace";
    assert_eq!(world.count(left).await, 0);
}

#[tokio::test]
async fn what_has_no_partition_is_an_outage_until_the_partition_is_made() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let run = world.accept().await;
    let claim = world.store.claim_run(owner, run).await.unwrap().unwrap().claim;
    let records =
        vec![Record::of_node("a".parse().unwrap(), 1, JournalEvent::Succeeded { output: 1.into() })];
    let checkpoint = [Checkpoint { claim, first_seq: 1, records, release: None, frees: Vec::new() }];
    world
        .db
        .execute(
            "DO $$ DECLARE week text; BEGIN FOR week IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'run_journal'::regclass
                 LOOP EXECUTE 'DROP TABLE ' || week; END LOOP; END $$",
        )
        .await;
    let refused = world.store.commit(&checkpoint).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "no run fails for it: {refused:?}");
    assert_eq!(
        ensure_journal_partitions(&world.pool, 4).await.unwrap(),
        6,
        "last week's to that in four weeks"
    );
    world.store.commit(&checkpoint).await.unwrap().remove(0).unwrap();
}

#[tokio::test]
async fn one_instance_drops_partitions_at_a_time() {
    let world = World::new().await;
    old_run(&world, 1, "succeeded", "'2025-01-08Z'").await;
    let other = world.db.pool().await;
    let before = at("2025-03-02");
    let (one, two) =
        tokio::join!(drop_journal_before(&world.pool, before), drop_journal_before(&other, before));
    assert_eq!(one.unwrap() + two.unwrap(), 1);
}
