//! What is old leaves, and what is needed stays.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use gathering_dag_engine::{Checkpoint, Claim, JournalEvent, Record, RunStore};
use gathering_persistence::{prune_audit_events, prune_blobs, prune_runs};
use serde_json::json;

use crate::common::{ACTIVATE, World, wait_until};

pub fn at(day: &str) -> DateTime<Utc> {
    format!("{day}T00:00:00Z").parse().unwrap()
}

/// Makes the partition of the week of 6 January 2025, and a run in it that stands so.
pub async fn old_run(world: &World, number: u8, state: &str, ended_at: &str) {
    let graph = world.accept().await;
    world
        .db
        .execute(&format!(
            "CREATE TABLE IF NOT EXISTS run_journal_20250106 PARTITION OF run_journal
                 FOR VALUES FROM (uuid_v7_floor('2025-01-06Z')) TO (uuid_v7_floor('2025-01-13Z'));
             INSERT INTO runs (id, project_id, graph_digest, kind, state, input, ended_at)
                 SELECT overlay(uuid_v7_floor('2025-01-07Z')::text placing '{number}' FROM 36)::uuid, project_id, graph_digest,
                     kind, nullif('{state}', 'waiting'), input, {ended_at}
                 FROM runs WHERE id = '{graph}';
             {ACTIVATE};
             UPDATE active_runs SET state = 'waiting', waiting_for = 'approval', available_at = NULL
                 WHERE run_id < uuid_v7_floor('2025-01-13Z');
             INSERT INTO run_journal (run_id, seq, kind, epoch)
                 SELECT id, 1, 'ended', 1 FROM all_runs WHERE id < uuid_v7_floor('2025-01-13Z') ON CONFLICT DO NOTHING"
        ))
        .await;
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
        .execute("UPDATE runs SET parent_run_id = (SELECT run_id FROM active_runs WHERE state = 'waiting') WHERE id::text LIKE '%3' AND ended_at = '2025-01-08Z'")
        .await;
    assert_eq!(prune_runs(&world.pool, at("2025-02-01")).await.unwrap(), 1, "the one without a parent");
    assert_eq!(world.count("SELECT count(*) FROM all_runs WHERE ended_at < '2025-02-01Z'").await, 1);
    world.db.execute("UPDATE runs SET state = 'failed', ended_at = '2025-01-09Z' WHERE id IN (SELECT run_id FROM active_runs WHERE state = 'waiting')").await;
    assert_eq!(prune_runs(&world.pool, at("2025-02-01")).await.unwrap(), 2, "the child and its parent");
    assert_eq!(world.count("SELECT count(*) FROM all_runs WHERE ended_at IS NOT NULL").await, 1);
}

/// Writes an entry with a payload that is too large for the journal.
async fn write_large(world: &World, claim: Claim, seq: i64) {
    let event = JournalEvent::Succeeded { output: json!("x".repeat(100_000)) };
    let records = vec![Record::of_node("a".parse().unwrap(), 1, event)];
    let checkpoint = Checkpoint { claim, first_seq: seq, records, release: None, frees: Vec::new() };
    world.store.commit(&[checkpoint]).await.unwrap().remove(0).unwrap();
}

async fn claim(world: &World) -> Claim {
    let owner = world.begin_instance().await;
    let run = world.accept().await;
    world.store.claim_run(owner, run).await.unwrap().unwrap().claim
}

/// No entry refers to any blob any more, and none did for long.
async fn forget_blobs(world: &World) {
    world
        .db
        .execute(
            "UPDATE run_journal SET blob = NULL, payload = '{}' WHERE blob IS NOT NULL;
             UPDATE blobs SET referenced_at = '2025-01-01Z'",
        )
        .await;
}

const BLOBS: &str = "SELECT count(*) FROM blobs";

#[tokio::test]
async fn a_blob_leaves_when_no_entry_has_referred_to_it_for_so_long() {
    let world = World::new().await;
    write_large(&world, claim(&world).await, 1).await;
    let day_ago = Utc::now() - TimeDelta::days(1);
    world.db.execute("UPDATE blobs SET referenced_at = '2025-01-01Z'").await;
    assert_eq!(prune_blobs(&world.pool, day_ago).await.unwrap(), 0, "an entry refers to it");
    world.db.execute("UPDATE run_journal SET blob = NULL, payload = '{}' WHERE blob IS NOT NULL").await;
    world.db.execute("UPDATE blobs SET referenced_at = now() - interval '23 hours'").await;
    assert_eq!(prune_blobs(&world.pool, day_ago).await.unwrap(), 0, "the last entry is not that old");
    forget_blobs(&world).await;
    assert_eq!(prune_blobs(&world.pool, day_ago).await.unwrap(), 1);
    assert_eq!(world.count(BLOBS).await, 0);
}

/// Makes statements of this kind wait, after they have written, for a lock that this session holds until it ends.
async fn hold_up(world: &World, kind: &str) -> AsyncPgConnection {
    world
        .db
        .execute(&format!(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN PERFORM pg_advisory_xact_lock_shared(hashtext(current_schema())); RETURN NULL; END';
             CREATE TRIGGER wait AFTER {kind} FOR EACH ROW EXECUTE FUNCTION wait()"
        ))
        .await;
    let mut holder = world.db.connection().await;
    holder.batch_execute("SELECT pg_advisory_lock(hashtext(current_schema()))").await.unwrap();
    holder
}

/// Waits until so many sessions wait for the holder of that lock, or for one of them.
async fn until_waiting(world: &World, n: i64) {
    let n_waiting = "WITH RECURSIVE waiting (pid) AS (
            SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock'
                AND objid::bigint = hashtext(current_schema()) & 4294967295
            UNION SELECT other.pid FROM pg_stat_activity AS other JOIN waiting
                ON waiting.pid = ANY (pg_blocking_pids(other.pid))
        ) SELECT count(*) - 1 FROM waiting";
    wait_until("the statement waits", async || world.count(n_waiting).await == n).await;
}

#[tokio::test]
async fn a_blob_that_an_uncommitted_entry_reuses_stays() {
    let world = Arc::new(World::new().await);
    let claim = claim(&world).await;
    write_large(&world, claim, 1).await;
    forget_blobs(&world).await;
    let holder = hold_up(&world, "INSERT ON run_journal").await;
    let writing = tokio::spawn({
        let world = Arc::clone(&world);
        async move { write_large(&world, claim, 2).await }
    });
    until_waiting(&world, 1).await;
    assert_eq!(prune_blobs(&world.pool, at("2025-02-01")).await.unwrap(), 0);
    drop(holder);
    writing.await.unwrap();
    assert_eq!(world.store.load_journal(claim.run, 1, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_entry_that_reuses_a_blob_while_it_is_deleted_stores_it_again() {
    let world = Arc::new(World::new().await);
    let claim = claim(&world).await;
    write_large(&world, claim, 1).await;
    forget_blobs(&world).await;
    let holder = hold_up(&world, "DELETE ON blobs").await;
    let pool = world.pool.clone();
    let pruning = tokio::spawn(async move { prune_blobs(&pool, at("2025-02-01")).await.unwrap() });
    until_waiting(&world, 1).await;
    let writing = tokio::spawn({
        let world = Arc::clone(&world);
        async move { write_large(&world, claim, 2).await }
    });
    until_waiting(&world, 2).await;
    drop(holder);
    writing.await.unwrap();
    assert_eq!(pruning.await.unwrap(), 1);
    assert_eq!(world.store.load_journal(claim.run, 1, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn no_entry_loses_its_blob_to_a_concurrent_sweep() {
    let world = World::new().await;
    let claim = claim(&world).await;
    for seq in 1..100 {
        let write = write_large(&world, claim, seq);
        let (pruned, ()) = tokio::join!(prune_blobs(&world.pool, at("2025-02-01")), write);
        pruned.unwrap();
        assert_eq!(world.store.load_journal(claim.run, seq - 1, 1).await.unwrap().len(), 1);
        forget_blobs(&world).await;
    }
}
