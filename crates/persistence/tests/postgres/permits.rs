//! Permits: how many runs of a key execute at once, which of them, and what becomes of the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gathering_dag_engine::testing::{PortsFixture as _, planned_result};
use gathering_dag_engine::{
    Checkpoint, ChildKind, ChildRuns, ClaimScope, ClaimedRun, NewChild, NewRun, Parent, Release, RunEnd,
    RunStore,
};
use gathering_domain::{
    InstanceId, OnLimit, PermitRequest, PipelineId, RunEvent, RunId, RunState, WaitingFor,
};
use gathering_persistence::{PgRunStore, RunOrigin, Runs, WakeBus, clear_expired, recover_dead_instances};
use serde_json::json;

use crate::common::{ANALYZE, OF_EMPTY_TABLES, World, wait_until};

/// A world with a pipeline whose runs are limited, and an instance that claims.
struct Limited {
    world: World,
    pipeline: PipelineId,
    owner: InstanceId,
}

impl Limited {
    async fn new() -> Self {
        let world = World::new().await;
        let definition = json!({"nodes": [{"id": "a", "type": "trigger", "idempotent": false}]});
        let pipeline = world.insert_pipeline(&definition).await;
        let owner = world.begin_instance().await;
        Self { world, pipeline, owner }
    }

    fn runs(&self) -> Runs {
        Runs::new(self.world.pool.clone(), WakeBus::new())
    }

    async fn accept(&self, permit: PermitRequest) -> RunId {
        self.accept_as(|new| new, permit).await
    }

    async fn accept_as(&self, change: impl FnOnce(NewRun) -> NewRun, permit: PermitRequest) -> RunId {
        let new = change(self.world.new_run().await);
        let origin =
            RunOrigin { pipeline: Some((self.pipeline, 1)), permit: Some(permit), ..RunOrigin::default() };
        self.runs().accept(&new, &origin).await.unwrap();
        new.id
    }

    /// Accepts `n` runs of a key, in the order of their ids.
    async fn accept_many(&self, n: usize, permit: &PermitRequest) -> Vec<RunId> {
        let mut runs = Vec::new();
        for _ in 0..n {
            runs.push(self.accept(permit.clone()).await);
        }
        runs
    }

    async fn claim(&self, limit: usize) -> Vec<ClaimedRun> {
        self.world.store.claim(self.owner, ClaimScope::Queue, limit).await.unwrap()
    }

    async fn claim_ids(&self, limit: usize) -> Vec<RunId> {
        self.claim(limit).await.into_iter().map(|run| run.claim.run).collect()
    }

    async fn release(&self, claimed: &ClaimedRun, release: Release) {
        let checkpoint = Checkpoint {
            claim: claimed.claim,
            first_seq: 1,
            records: vec![],
            release: Some(release),
            frees: Vec::new(),
        };
        self.world.store.commit(&[checkpoint]).await.unwrap().remove(0).unwrap();
    }

    async fn end(&self, claimed: &ClaimedRun) {
        let result = planned_result(RunEvent::Succeeded);
        let end = RunEnd { result, abandons_children: false, is_limited: claimed.is_limited };
        self.release(claimed, Release::End(end)).await;
    }

    async fn state(&self, run: RunId) -> RunState {
        self.runs().find(run).await.unwrap().unwrap().state
    }

    /// How many permits are held, and how many runs are in the lines.
    async fn counts(&self) -> (i64, i64) {
        let sum = |column: &str| format!("SELECT coalesce(sum({column}), 0) FROM concurrency_keys");
        (self.world.count(&sum("held")).await, self.world.count(&sum("waiting")).await)
    }
}

fn permit(key: &str, permits: u32) -> PermitRequest {
    PermitRequest { key: key.to_owned(), permits: Some(permits), on_limit: OnLimit::Queue, per_second: None }
}

#[tokio::test]
async fn runs_of_a_key_execute_as_many_at_once_as_it_has_permits_and_in_order() {
    let limited = Limited::new().await;
    let runs = limited.accept_many(5, &permit("a", 2)).await;
    let waiting = limited.runs().find(runs[0]).await.unwrap().unwrap();
    assert_eq!((waiting.state, waiting.waiting_for), (RunState::Waiting, Some(WaitingFor::Concurrency)));
    let first = limited.claim(10).await;
    assert_eq!(first.iter().map(|run| run.claim.run).collect::<Vec<_>>(), runs[..2]);
    assert!(first.iter().all(|run| run.is_limited));
    assert_eq!(limited.claim_ids(10).await, [], "both permits are held");
    limited.end(&first[1]).await;
    assert_eq!(limited.claim_ids(10).await, [runs[2]]);
    assert_eq!(limited.counts().await, (2, 2));
}

#[tokio::test]
async fn an_urgent_run_is_the_first_of_its_line() {
    let limited = Limited::new().await;
    let late = limited.accept(permit("a", 1)).await;
    let urgent = limited.accept_as(|new| NewRun { priority: 9, ..new }, permit("a", 1)).await;
    let claimed = limited.claim(10).await;
    assert_eq!(claimed[0].claim.run, urgent);
    limited.end(&claimed[0]).await;
    assert_eq!(limited.claim_ids(10).await, [late]);
}

#[tokio::test]
async fn one_key_with_many_runs_does_not_starve_another_or_the_queue() {
    let limited = Limited::new().await;
    limited.accept_many(60, &permit("busy", 1000)).await;
    let few = limited.accept_many(3, &permit("quiet", 1000)).await;
    let unlimited = limited.world.accept().await;
    let claimed = limited.claim_ids(16).await;
    assert_eq!(claimed.len(), 16, "the claim is filled");
    assert!(few.iter().all(|run| claimed.contains(run)), "the quiet key waits behind the busy one");
    assert!(claimed.contains(&unlimited), "the queue waits behind the lines");
}

#[tokio::test]
async fn a_run_waits_with_its_permit_and_gives_it_back_at_its_end() {
    let limited = Limited::new().await;
    let runs = limited.accept_many(2, &permit("a", 1)).await;
    let claimed = limited.claim(10).await;
    limited.release(&claimed[0], Release::Park { waiting_for: WaitingFor::Approval, until: None }).await;
    assert_eq!(limited.claim_ids(10).await, [], "a run that waits keeps its permit");
    let again = limited.world.store.claim_run(limited.owner, runs[0]).await.unwrap().unwrap();
    assert!(again.is_limited);
    limited.end(&again).await;
    assert_eq!(limited.claim_ids(10).await, [runs[1]]);
}

#[tokio::test]
async fn a_requeued_run_keeps_its_permit_and_one_that_fails_at_recovery_gives_it_back() {
    let limited = Limited::new().await;
    let runs = limited.accept_many(2, &permit("a", 1)).await;
    limited.claim(10).await;
    limited.world.cut_liveness(limited.owner).await;
    let recover = async |max_recoveries| {
        let limit = PgRunStore::STUCK_LIMIT;
        recover_dead_instances(&limited.world.pool, &WakeBus::new(), max_recoveries, limit).await.unwrap();
    };
    recover(20).await;
    let heir = limited.world.begin_instance().await;
    let store = &limited.world.store;
    let again = store.claim(heir, ClaimScope::Queue, 10).await.unwrap();
    assert_eq!(again.iter().map(|run| run.claim.run).collect::<Vec<_>>(), [runs[0]]);
    limited.world.cut_liveness(heir).await;
    recover(1).await;
    assert_eq!(limited.state(runs[0]).await, RunState::Failed);
    let next = limited.world.begin_instance().await;
    let claimed = store.claim(next, ClaimScope::Queue, 10).await.unwrap();
    assert_eq!(claimed.iter().map(|run| run.claim.run).collect::<Vec<_>>(), [runs[1]]);
}

#[tokio::test]
async fn a_run_that_finds_no_permit_is_skipped_if_its_pipeline_says_so() {
    let limited = Limited::new().await;
    let skip = PermitRequest { on_limit: OnLimit::Skip, ..permit("a", 1) };
    let runs = limited.accept_many(3, &skip).await;
    let claimed = limited.claim(10).await;
    assert_eq!(claimed.iter().map(|run| run.claim.run).collect::<Vec<_>>(), runs[..1]);
    for run in &runs[1..] {
        let skipped = limited.runs().find(*run).await.unwrap().unwrap();
        assert_eq!((skipped.state, skipped.started_at), (RunState::Cancelled, None));
        assert_eq!(
            skipped.error.unwrap().message,
            "cancelled because no permit of its concurrency key was free"
        );
    }
    assert_eq!(limited.counts().await, (1, 0));
    limited.end(&claimed[0]).await;
    let next = limited.accept(skip).await;
    assert_eq!(limited.claim_ids(10).await, [next]);
}

#[tokio::test]
async fn a_newer_run_cancels_the_oldest_if_its_pipeline_says_so() {
    let limited = Limited::new().await;
    let replace = PermitRequest { on_limit: OnLimit::CancelOldest, ..permit("a", 1) };
    let first = limited.accept(replace.clone()).await;
    let claimed = limited.claim(10).await;
    let second = limited.accept(replace.clone()).await;
    let third = limited.accept(replace).await;
    assert_eq!(limited.claim_ids(10).await, [], "the permit is not free yet");
    let signalled = limited.world.store.list_signalled(limited.owner, &[first]).await.unwrap();
    assert!(signalled[0].cancel_requested, "the run with the permit is cancelled");
    assert_eq!(limited.state(second).await, RunState::Cancelled, "so is the one that waited");
    limited.end(&claimed[0]).await;
    assert_eq!(limited.claim_ids(10).await, [third]);
    assert_eq!(limited.counts().await, (1, 0));
}

#[tokio::test]
async fn a_cancelled_run_leaves_the_line_and_an_overdue_one_ends_without_a_permit() {
    let limited = Limited::new().await;
    let holder = limited.accept(permit("a", 1)).await;
    let claimed = limited.claim(10).await;
    let cancelled = limited.accept(permit("a", 1)).await;
    let timeout = Some(Duration::from_millis(1));
    let overdue = limited.accept_as(|new| NewRun { timeout, ..new }, permit("a", 1)).await;
    let last = limited.accept(permit("a", 1)).await;
    limited.runs().request_cancel(cancelled).await.unwrap();
    assert_eq!(limited.state(cancelled).await, RunState::Cancelled);
    let ending = limited.world.store.claim_ending(limited.owner, ClaimScope::Queue, 10).await.unwrap();
    assert_eq!(ending.iter().map(|run| run.claim.run).collect::<Vec<_>>(), [overdue]);
    limited.end(&ending[0]).await;
    assert_eq!(limited.claim_ids(10).await, [], "run {holder} has the permit");
    limited.end(&claimed[0]).await;
    // What left the line without a permit takes no part of it.
    wait_until("the last run is claimed", async || limited.claim_ids(10).await == [last]).await;
    assert_eq!(limited.counts().await, (1, 0));
}

#[tokio::test]
async fn a_decision_before_its_turn_gives_a_run_no_permit() {
    let limited = Limited::new().await;
    let runs = limited.accept_many(2, &permit("a", 1)).await;
    let claimed = limited.claim(10).await;
    assert!(limited.world.decide(runs[1], &"a".parse().unwrap(), true).await);
    assert_eq!(limited.claim_ids(10).await, [], "the permit is held");
    limited.end(&claimed[0]).await;
    assert_eq!(limited.claim_ids(10).await, [runs[1]]);
}

#[tokio::test]
async fn a_run_joins_its_line_at_its_time() {
    let limited = Limited::new().await;
    let later = chrono::Utc::now() + chrono::TimeDelta::seconds(3600);
    let delayed = limited
        .accept_as(|new| NewRun { available_at: Some(later), priority: 10, ..new }, permit("a", 1))
        .await;
    let wait = limited.world.store.next_available_in(ClaimScope::Queue).await.unwrap().unwrap();
    assert!((3590..=3600).contains(&wait.as_secs()), "{wait:?}");
    let now = limited.accept(permit("a", 1)).await;
    assert_eq!(limited.world.store.next_available_in(ClaimScope::Queue).await.unwrap(), Some(Duration::ZERO));
    let claimed = limited.claim(10).await;
    assert_eq!(claimed[0].claim.run, now);
    limited.end(&claimed[0]).await;
    limited.world.db.execute("UPDATE permit_requests SET available_at = now() WHERE NOT in_line").await;
    assert_eq!(limited.claim_ids(10).await, [delayed]);
}

#[tokio::test]
async fn a_rate_spaces_the_starts_of_a_key() {
    let limited = Limited::new().await;
    let rate = PermitRequest { permits: None, per_second: Some(20.0), ..permit("a", 1) };
    let runs = limited.accept_many(12, &rate).await;
    let began = std::time::Instant::now();
    let mut claimed = Vec::new();
    wait_until("all have started", async || {
        // A closure cannot hold on to what it fills.
        limited.world.store.claim(limited.owner, ClaimScope::Queue, 100).await.unwrap();
        limited.counts().await == (12, 0)
    })
    .await;
    let took = began.elapsed();
    // The first starts at once, and at most a tenth of a second is caught up.
    assert!(took >= Duration::from_millis(11 * 50 - 100 - 60), "12 starts at 20 a second took {took:?}");
    for run in &runs {
        claimed.push(limited.state(*run).await);
    }
    assert_eq!(claimed, [RunState::Running; 12]);
    // An idle key saves no starts for a burst.
    limited.world.db.execute("UPDATE concurrency_keys SET next_at = now() - interval '1 hour'").await;
    limited.accept_many(9, &rate).await;
    assert!(limited.claim(100).await.len() <= 4, "a burst is at most what a tenth of a second allows");
}

#[tokio::test]
async fn a_child_waits_for_a_permit_and_its_parent_hears_if_it_is_skipped() {
    let limited = Limited::new().await;
    let parent = limited.world.accept().await;
    let store = &limited.world.store;
    let claimed = store.claim_run(limited.owner, parent).await.unwrap().unwrap();
    let place = Parent { run: parent, node: "call".parse().unwrap(), round: 0 };
    let graph = limited.world.new_run().await.graph;
    let child = |item| NewChild {
        item,
        graph,
        input: json!({}),
        pipeline: Some((limited.pipeline, 1)),
        deadline_at: None,
        permit: Some(PermitRequest { on_limit: OnLimit::Skip, ..permit("a", 1) }),
    };
    store.start(&place, ChildKind::Awaited, vec![child(0), child(1)], &[]).await.unwrap();
    limited.release(&claimed, Release::Park { waiting_for: WaitingFor::Child, until: None }).await;
    assert_eq!(limited.claim_ids(1).await.len(), 1);
    let states = [limited.state(place.child(0)).await, limited.state(place.child(1)).await];
    assert!(states.contains(&RunState::Running) && states.contains(&RunState::Cancelled), "{states:?}");
    assert_eq!(limited.claim_ids(10).await, [parent], "the end of a child wakes its parent");
}

#[tokio::test]
async fn keys_without_runs_are_deleted_after_a_while() {
    let limited = Limited::new().await;
    limited.accept(permit("busy", 1)).await;
    limited.accept(permit("idle", 1)).await;
    let claimed = limited.claim(10).await;
    limited.end(claimed.iter().find(|run| run.is_limited).unwrap()).await;
    limited.world.db.execute("UPDATE concurrency_keys SET next_at = now() - interval '2 hours'").await;
    assert_eq!(clear_expired(&limited.world.pool).await.unwrap().n_concurrency_keys, 1);
    assert_eq!(limited.counts().await, (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i2_instances_that_claim_and_end_at_once_never_exceed_the_permits_and_leave_no_run() {
    const PERMITS: u32 = 3;
    let limited = Arc::new(Limited::new().await);
    let mut expected = BTreeMap::new();
    for key in ["a", "b", "c", "d"] {
        expected.insert(key, limited.accept_many(25, &permit(key, PERMITS)).await);
    }
    let mut instances = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let limited = Arc::clone(&limited);
        instances.spawn(async move {
            let owner = limited.world.begin_instance().await;
            let store = PgRunStore::new(limited.world.pool.clone(), WakeBus::new());
            loop {
                let claimed = store.claim(owner, ClaimScope::Queue, 7).await.unwrap();
                let most = "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM all_runs
                    WHERE state = 'running' AND permit_key IS NOT NULL GROUP BY permit_key) AS of_key";
                assert!(
                    limited.world.count(most).await <= i64::from(PERMITS),
                    "more run than there are permits"
                );
                for run in &claimed {
                    limited.end(run).await;
                }
                if limited.world.count("SELECT count(*) FROM all_runs WHERE ended_at IS NULL").await == 0 {
                    return;
                }
            }
        });
    }
    tokio::time::timeout(Duration::from_secs(60), instances.join_all()).await.unwrap();
    assert_eq!(limited.counts().await, (0, 0));
    for run in expected.into_values().flatten() {
        assert_eq!(limited.state(run).await, RunState::Succeeded);
    }
}

#[tokio::test]
async fn claims_and_ends_of_limited_runs_read_few_rows_however_many_wait() {
    let limited = Limited::new().await;
    let pipeline = limited.pipeline;
    // Each of the keys has all its permits held, and a line.
    let fill = format!(
        "INSERT INTO concurrency_keys (id, pipeline_id, key, permits, held, waiting)
             SELECT md5(n::text)::uuid, '{pipeline}', n, 1, 1, 5 FROM generate_series(1, 5000) AS n;
         INSERT INTO permit_requests (run_id, key_id, pipeline_id, key, permits, on_limit, priority, available_at, in_line)
             SELECT gen_random_uuid(), md5((n % 5000 + 1)::text)::uuid, '{pipeline}', n % 5000 + 1, 1, 'queue', 5, now(), true
             FROM generate_series(1, 25000) AS n"
    );
    limited.world.db.execute(&fill).await;
    for statistics in [OF_EMPTY_TABLES, ANALYZE] {
        limited.world.db.execute(statistics).await;
        limited.accept_many(30, &permit("a", 10)).await;
        let n_rows = crate::plans::rows_read(&limited.world.db, async |pool| {
            let store = PgRunStore::new(pool, WakeBus::new());
            for _ in 0..3 {
                let claimed = store.claim(limited.owner, ClaimScope::Queue, 20).await.unwrap();
                assert_eq!(claimed.len(), 10);
                for run in &claimed {
                    let result = planned_result(RunEvent::Succeeded);
                    let end = RunEnd { result, abandons_children: false, is_limited: true };
                    let release = Some(Release::End(end));
                    let checkpoint = Checkpoint {
                        claim: run.claim,
                        first_seq: 1,
                        records: vec![],
                        release,
                        frees: Vec::new(),
                    };
                    store.commit(&[checkpoint]).await.unwrap().remove(0).unwrap();
                }
                store.next_available_in(ClaimScope::Queue).await.unwrap();
            }
        })
        .await;
        assert!(n_rows < 30 * 100, "30 limited runs read {n_rows} rows after: {statistics}");
    }
}
