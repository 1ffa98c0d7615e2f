//! The engine's statements read few rows of full tables, whatever PostgreSQL believes of them.
//!
//! It often believes too little. The table of active runs is empty most of the time. And statistics that are taken while a
//! first batch of runs is not committed yet say that the other tables are empty, too.

use gathering_dag_engine::testing::planned_result;
use gathering_dag_engine::{
    Checkpoint, ChildKind, ChildRuns as _, ClaimScope, ClaimedRun, NewChild, Parent, Release, RunEnd,
    RunStore as _,
};
use gathering_domain::{Digest, InstanceId, RunEvent, RunId, WaitingFor};
use gathering_persistence::{PgRunStore, Pool, Runs, WakeBus};
use serde_json::json;

use crate::common::{ACTIVATE, ANALYZE, OF_EMPTY_TABLES, World};
use crate::plans::{fill_with_old, rows_read};

const N_RUNS: i64 = 5000;

/// As many queued runs as ended ones, each with a graph of its own, and statistics from before the queue.
async fn filled() -> World {
    let world = World::new().await;
    fill_with_old(&world, N_RUNS).await;
    let sql = format!(
        "TRUNCATE active_runs; UPDATE runs SET state = 'succeeded', ended_at = now();
         INSERT INTO graphs (digest, definition, first_nodes)
             SELECT sha256(n::text::bytea), definition, first_nodes FROM graphs, generate_series(1, {N_RUNS}) AS n;
         {ANALYZE};
         INSERT INTO runs (id, project_id, graph_digest, kind, input)
             SELECT gen_random_uuid(), project_id, sha256((row_number() OVER ())::text::bytea), kind, input FROM runs;
         {ACTIVATE}"
    );
    world.db.execute(&sql).await;
    world
}

/// Claims 100 runs, ends most of them and parks the others, and asks for the cancellation of some.
async fn claim_and_release(pool: Pool, owner: InstanceId) {
    let store = PgRunStore::new(pool.clone(), WakeBus::new());
    let runs = Runs::new(pool, WakeBus::new());
    let end = |claimed: &ClaimedRun| Checkpoint {
        claim: claimed.claim,
        first_seq: 2,
        records: vec![],
        release: Some(Release::End(RunEnd {
            result: planned_result(RunEvent::Succeeded),
            abandons_children: false,
            is_limited: false,
        })),
        frees: vec![],
    };
    for _ in 0..5 {
        let claimed = store.claim(owner, ClaimScope::Queue, 20).await.unwrap();
        assert_eq!(claimed.len(), 20);
        let mut checkpoints: Vec<Checkpoint> = claimed.iter().map(end).collect();
        for parked in checkpoints.iter_mut().step_by(10) {
            parked.release = Some(Release::Park { waiting_for: WaitingFor::Approval, until: None });
        }
        assert!(store.commit(&checkpoints).await.unwrap().iter().all(Result::is_ok));
        runs.request_cancel(claimed[0].claim.run).await.unwrap();
    }
}

/// Starts 20 children of a run that reruns the one before, claims them out of turn, and asks how they are.
async fn start_children(pool: Pool, owner: InstanceId, parent: Parent, (graph, earlier): (Digest, &[RunId])) {
    let store = PgRunStore::new(pool, WakeBus::new());
    let child =
        |item| NewChild { item, graph, input: json!({}), pipeline: None, deadline_at: None, permit: None };
    store.start(&parent, ChildKind::Item, (0..20).map(child).collect(), earlier).await.unwrap();
    for item in 0..20 {
        store.claim_run(owner, parent.child(item)).await.unwrap().unwrap();
    }
    assert_eq!(store.summarize(&parent).await.unwrap().n_unfinished, 20);
}

#[tokio::test]
async fn claims_and_releases_read_few_rows_of_full_tables_whatever_the_statistics_say() {
    let world = filled().await;
    let owner = world.begin_instance().await;
    for statistics in ["SELECT 1", OF_EMPTY_TABLES, ANALYZE] {
        world.db.execute(statistics).await;
        let n_rows = rows_read(&world.db, async |pool| claim_and_release(pool, owner).await).await;
        assert!((1..N_RUNS).contains(&n_rows), "100 claims and releases read {n_rows} after: {statistics}");
    }
}

#[tokio::test]
async fn children_read_few_rows_of_full_tables_whatever_the_statistics_say() {
    let world = filled().await;
    let owner = world.begin_instance().await;
    let mut earlier = Vec::new();
    for statistics in ["SELECT 1", OF_EMPTY_TABLES, ANALYZE] {
        let new = world.new_run().await;
        world.store.enqueue(new.clone()).await.unwrap();
        world.store.claim_run(owner, new.id).await.unwrap().unwrap();
        let parent = Parent { run: new.id, node: "each".parse().unwrap(), round: 0 };
        world.db.execute(statistics).await;
        let n_rows = rows_read(&world.db, async |pool| {
            start_children(pool, owner, parent.clone(), (new.graph, &earlier)).await;
        })
        .await;
        assert!((1..N_RUNS).contains(&n_rows), "20 children read {n_rows} after: {statistics}");
        // Its children have ended, so that the next run takes up their work.
        let ended = format!(
            "DELETE FROM active_runs WHERE parent_run_id = '{0}';
             UPDATE runs SET state = 'failed', ended_at = now(), epoch = 1 WHERE parent_run_id = '{0}'",
            new.id
        );
        world.db.execute(&ended).await;
        earlier = vec![new.id];
    }
}
