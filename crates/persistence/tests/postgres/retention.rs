//! What is old leaves, and what is needed stays.

use chrono::{DateTime, Utc};
use diesel_async::SimpleAsyncConnection;
use gathering_dag_engine::RunStore;
use gathering_persistence::{
    DatabaseError, drop_journal_before, ensure_journal_partitions, prune_audit_events, prune_runs,
};

use crate::common::World;

fn at(day: &str) -> DateTime<Utc> {
    format!("{day}T00:00:00Z").parse().unwrap()
}

/// Makes the partition of the week of 6 January 2025, and a run in it that stands so.
async fn old_run(world: &World, number: u8, state: &str, ended_at: &str) {
    let graph = world.accept().await;
    world
        .db
        .execute(&format!(
            "CREATE TABLE IF NOT EXISTS run_journal_20250106 PARTITION OF run_journal
                 FOR VALUES FROM (uuid_v7_floor('2025-01-06Z')) TO (uuid_v7_floor('2025-01-13Z'));
             INSERT INTO runs (id, project_id, graph_digest, kind, state, waiting_for, available_at, input, ended_at)
                 SELECT overlay(uuid_v7_floor('2025-01-07Z')::text placing '{number}' FROM 36)::uuid, project_id, graph_digest,
                     kind, '{state}', CASE '{state}' WHEN 'waiting' THEN 'approval' END, NULL, input, {ended_at}
                 FROM runs WHERE id = '{graph}';
             INSERT INTO run_journal (run_id, seq, kind, epoch)
                 SELECT id, 1, 'ended', 1 FROM runs WHERE id < uuid_v7_floor('2025-01-13Z') ON CONFLICT DO NOTHING"
        ))
        .await;
}

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
        .execute("UPDATE runs SET state = 'failed', waiting_for = NULL, ended_at = '2025-03-01Z' WHERE state = 'waiting'")
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

#[tokio::test]
async fn who_reads_the_journal_for_long_delays_its_maintenance_and_nothing_else() {
    let world = World::new().await;
    old_run(&world, 1, "succeeded", "'2025-01-08Z'").await;
    let week = "SELECT max(relname) FROM pg_class WHERE relname ~ '^run_journal_[0-9]{8}$' AND relnamespace = current_schema()::regnamespace";
    world.db.execute(&format!("DO $$ BEGIN EXECUTE 'DROP TABLE ' || ({week}); END $$")).await;
    let mut reader = world.db.connection().await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM run_journal").await.unwrap();
    for refused in [
        drop_journal_before(&world.pool, at("2025-03-02")).await.unwrap_err(),
        ensure_journal_partitions(&world.pool, 4).await.unwrap_err(),
    ] {
        assert!(matches!(refused, DatabaseError::TimedOut { .. }), "{refused:?}");
        assert!(refused.to_string().contains("lock timeout"), "the log says why: {refused}");
    }
    let run = world.accept().await;
    world.store.load_journal(run, 0, 1).await.unwrap();
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(drop_journal_before(&world.pool, at("2025-03-02")).await.unwrap(), 1);
    assert!(ensure_journal_partitions(&world.pool, 4).await.unwrap() > 0);
}

#[tokio::test]
async fn old_audit_events_leave_by_retention_alone() {
    let world = World::new().await;
    world
        .db
        .execute(
            "INSERT INTO audit_events (id, type, at) SELECT gen_random_uuid(), 'logged_out', '2025-01-01Z' FROM generate_series(1, 4500);
             INSERT INTO audit_events (id, type, at) VALUES (gen_random_uuid(), 'logged_out', '2025-02-01Z')",
        )
        .await;
    assert_eq!(prune_audit_events(&world.pool, at("2025-02-01")).await.unwrap(), 4500);
    assert_eq!(world.count("SELECT count(*) FROM audit_events").await, 1);
    let refused = world.db.connection().await.batch_execute("DELETE FROM audit_events").await;
    assert!(refused.is_err_and(|error| error.to_string().contains("append-only")));
}

#[tokio::test]
async fn old_runs_leave_and_a_child_stays_as_long_as_its_parent() {
    let world = World::new().await;
    for (number, state, ended_at) in [
        (1, "succeeded", "'2025-01-08Z'"),
        (2, "waiting", "NULL"),
        (3, "succeeded", "'2025-01-08Z'"),
        (4, "failed", "'2025-03-01Z'"),
    ] {
        old_run(&world, number, state, ended_at).await;
    }
    world
        .db
        .execute("UPDATE runs SET parent_run_id = (SELECT id FROM runs WHERE state = 'waiting') WHERE id::text LIKE '%3' AND ended_at = '2025-01-08Z'")
        .await;
    assert_eq!(prune_runs(&world.pool, at("2025-02-01")).await.unwrap(), 1, "the one without a parent");
    assert_eq!(world.count("SELECT count(*) FROM runs WHERE ended_at < '2025-02-01Z'").await, 1);
    world.db.execute("UPDATE runs SET state = 'failed', waiting_for = NULL, ended_at = '2025-01-09Z' WHERE state = 'waiting'").await;
    assert_eq!(prune_runs(&world.pool, at("2025-02-01")).await.unwrap(), 2, "the child and its parent");
    assert_eq!(world.count("SELECT count(*) FROM runs WHERE ended_at IS NOT NULL").await, 1);
}
