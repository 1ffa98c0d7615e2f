//! The run store: the engine's cases, and what only several sessions can show.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{ACTIVATE, ANALYZE, World, wait_until};
use diesel_async::SimpleAsyncConnection;
use gathering_dag_engine::testing::{StoreFixture, store_cases};
use gathering_dag_engine::{
    Checkpoint, ChildKind, ChildRuns, Claim, ClaimScope, ClaimedRun, JournalEvent, NewChild, Parent, Record,
    Release, RunEnd, RunResult, RunStore, SignalledRun, StoreError,
};
use gathering_domain::{Digest, NodeId, RunId, RunState, WaitingFor};
use gathering_persistence::{
    Acceptance, CancelRequest, DatabaseError, PgRunStore, RunFilter, RunOrigin, Runs, WakeBus,
    recover_dead_instances,
};
use serde_json::{Value, json};

pub fn runs(world: &World) -> Runs {
    Runs::new(world.pool.clone(), WakeBus::new())
}

fn succeeded(claim: Claim, first_seq: i64, output: Value) -> Checkpoint {
    let node: NodeId = "a".parse().unwrap();
    let records = vec![Record::of_node(node, 1, JournalEvent::Succeeded { output })];
    Checkpoint { claim, first_seq, records, release: None, frees: Vec::new() }
}

fn end(claim: Claim) -> Checkpoint {
    let end = RunEnd {
        result: RunResult::Succeeded(json!({"text": "a\0b"})),
        abandons_children: false,
        is_limited: false,
    };
    Checkpoint { claim, first_seq: 1, records: vec![], release: Some(Release::End(end)), frees: Vec::new() }
}

fn park(claim: Claim, waiting_for: WaitingFor) -> Checkpoint {
    Checkpoint {
        claim,
        first_seq: 1,
        records: vec![],
        release: Some(Release::Park { waiting_for, until: None }),
        frees: Vec::new(),
    }
}

async fn commit(world: &World, checkpoint: Checkpoint) -> Result<(), StoreError> {
    world.store.commit(&[checkpoint]).await.unwrap().remove(0)
}

pub async fn claim_one(world: &World, owner: gathering_domain::InstanceId) -> ClaimedRun {
    world.store.claim(owner, ClaimScope::Queue, 1).await.unwrap().remove(0)
}

#[tokio::test]
async fn the_store_passes_the_engine_s_cases() {
    store_cases(async || Box::new(World::new().await) as Box<dyn StoreFixture>).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i2_two_instances_never_claim_the_same_run() {
    const N_RUNS: usize = 200;
    let world = Arc::new(World::new().await);
    for _ in 0..N_RUNS {
        world.accept().await;
    }
    let mut claimers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let owner = world.begin_instance().await;
        let store = world.store.clone();
        claimers.spawn(async move {
            let mut claimed = Vec::new();
            loop {
                let batch = store.claim(owner, ClaimScope::Queue, 7).await.unwrap();
                if batch.is_empty() && store.next_available_in(ClaimScope::Queue).await.unwrap().is_none() {
                    return claimed;
                }
                claimed.extend(batch.into_iter().map(|run| run.claim.run));
            }
        });
    }
    let mut claimed = claimers.join_all().await.concat();
    assert_eq!(claimed.len(), N_RUNS, "none is claimed twice");
    claimed.sort_unstable();
    claimed.dedup();
    assert_eq!(claimed.len(), N_RUNS, "none is left out");
}

#[tokio::test]
async fn i2_an_instance_that_was_taken_for_dead_claims_nothing_more() {
    let world = World::new().await;
    let (zombie, other) = (world.begin_instance().await, world.begin_instance().await);
    world.accept().await;
    world.cut_liveness(zombie).await;
    let recovered =
        recover_dead_instances(&world.pool, &WakeBus::new(), 20, PgRunStore::STUCK_LIMIT).await.unwrap();
    assert_eq!(recovered.of.iter().map(|recovery| recovery.instance).collect::<Vec<_>>(), [zombie]);
    assert_eq!(world.store.claim(zombie, ClaimScope::Queue, 10).await.unwrap(), []);
    assert_eq!(world.store.claim(other, ClaimScope::Queue, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn i1_a_late_append_meets_a_number_that_is_taken() {
    let world = World::new().await;
    let (dead, heir) = (world.begin_instance().await, world.begin_instance().await);
    let run = world.accept().await;
    let late = claim_one(&world, dead).await.claim;
    commit(&world, succeeded(late, 1, json!(1))).await.unwrap();
    world.cut_liveness(dead).await;
    recover_dead_instances(&world.pool, &WakeBus::new(), 20, PgRunStore::STUCK_LIMIT).await.unwrap();
    let refused = commit(&world, succeeded(late, 2, json!(2))).await;
    assert!(matches!(refused, Err(StoreError::ClaimLost { .. })), "{refused:?}");
    let mine = claim_one(&world, heir).await;
    let journal = world.store.load_journal(run, 0, 10).await.unwrap();
    assert!(journal[1..].iter().all(|entry| entry.record.event == JournalEvent::TakenOver), "{journal:?}");
    let refused = commit(&world, succeeded(late, 3, json!(2))).await;
    assert!(matches!(refused, Err(StoreError::ClaimLost { .. })), "{refused:?}");
    let next = journal.last().unwrap().seq + 1;
    commit(&world, succeeded(mine.claim, next, json!(3))).await.unwrap();
}

#[tokio::test]
async fn i1_a_former_owner_that_released_the_run_appends_nothing() {
    let world = World::new().await;
    let (former, heir) = (world.begin_instance().await, world.begin_instance().await);
    let run = world.accept().await;
    let late = claim_one(&world, former).await.claim;
    let requeue = Checkpoint { release: Some(Release::Requeue), ..succeeded(late, 1, json!(1)) };
    commit(&world, requeue).await.unwrap();
    claim_one(&world, heir).await;
    let refused = commit(&world, succeeded(late, 2, json!(2))).await;
    assert!(matches!(refused, Err(StoreError::ClaimLost { .. })), "{refused:?}");
    let journal = world.store.load_journal(run, 0, 10).await.unwrap();
    assert_eq!(journal[1].record.event, JournalEvent::TakenOver);
    assert_eq!((journal.len(), journal[1].owner), (2, Some(heir)));
}

#[tokio::test]
async fn i2_a_claim_that_waited_for_another_finds_the_run_taken() {
    let world = World::new().await;
    let (first, second) = (world.begin_instance().await, world.begin_instance().await);
    let run = world.accept().await;
    let mut claiming = world.db.connection().await;
    let sql = format!(
        "BEGIN; UPDATE active_runs SET state = 'running', owner = '{first}', epoch = epoch + 1, available_at = NULL \
         WHERE run_id = '{run}'"
    );
    claiming.batch_execute(&sql).await.unwrap();
    assert_eq!(world.store.claim(second, ClaimScope::Queue, 10).await.unwrap(), [], "a batch does not wait");
    let store = world.store.clone();
    let waiting = tokio::spawn(async move { store.claim_run(second, run).await.unwrap() });
    let blocked = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
                   WHERE NOT granted AND query LIKE '%claimed%' AND locktype = 'transactionid'";
    wait_until("the second waits", async || world.count(blocked).await > 0).await;
    claiming.batch_execute("COMMIT").await.unwrap();
    assert_eq!(waiting.await.unwrap(), None);
}

#[tokio::test]
async fn i2_a_former_claim_releases_nothing() {
    let world = World::new().await;
    let (former, heir) = (world.begin_instance().await, world.begin_instance().await);
    let run = world.accept().await;
    let late = claim_one(&world, former).await.claim;
    let requeue = Checkpoint { release: Some(Release::Requeue), ..end(late) };
    commit(&world, requeue.clone()).await.unwrap();
    // The same instance again, under a later epoch; then another one.
    for owner in [former, heir] {
        let claim = claim_one(&world, owner).await.claim;
        for release in [requeue.clone(), end(late), park(late, WaitingFor::Approval)] {
            let refused = commit(&world, release).await;
            assert!(matches!(refused, Err(StoreError::ClaimLost { .. })), "{refused:?}");
        }
        assert_eq!(runs(&world).find(run).await.unwrap().unwrap().state, RunState::Running);
        commit(&world, Checkpoint { claim, ..requeue.clone() }).await.unwrap();
    }
}

#[tokio::test]
async fn i7_a_batch_of_many_runs_is_one_transaction_and_keeps_large_payloads() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let large = json!("x".repeat(100_000));
    for _ in 0..20 {
        world.accept().await;
    }
    let claimed = world.store.claim(owner, ClaimScope::Queue, 20).await.unwrap();
    let batch: Vec<Checkpoint> = claimed.iter().map(|run| succeeded(run.claim, 1, large.clone())).collect();
    assert!(world.store.commit(&batch).await.unwrap().iter().all(Result::is_ok));
    assert_eq!(
        world.count("SELECT count(DISTINCT xmin::text) FROM run_journal").await,
        1,
        "in one transaction"
    );
    assert_eq!(world.count("SELECT count(*) FROM blobs").await, 1, "the same content once");
    for run in claimed {
        let journal = world.store.load_journal(run.claim.run, 0, 10).await.unwrap();
        assert_eq!(journal[0].record.event, JournalEvent::Succeeded { output: large.clone() });
    }
}

#[tokio::test]
async fn i5_a_terminal_run_never_changes() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let run = world.accept().await;
    let claim = claim_one(&world, owner).await.claim;
    commit(&world, end(claim)).await.unwrap();
    commit(&world, end(claim)).await.unwrap();
    let before = runs(&world).find(run).await.unwrap().unwrap();
    assert_eq!((before.state, before.output.as_ref()), (RunState::Succeeded, Some(&json!({"text": "a\0b"}))));
    let refused = commit(&world, park(claim, WaitingFor::Approval)).await;
    assert!(matches!(refused, Err(StoreError::ClaimLost { .. })), "{refused:?}");
    assert_eq!(runs(&world).request_cancel(run).await.unwrap(), CancelRequest::AlreadyEnded);
    assert!(!runs(&world).make_available(run).await.unwrap());
    assert_eq!(world.store.claim_run(owner, run).await.unwrap(), None);
    assert_eq!(runs(&world).find(run).await.unwrap().unwrap(), before);
}

#[tokio::test]
async fn an_idempotency_key_answers_the_same_run_and_refuses_another_request() {
    let world = World::new().await;
    let origin = |body: &[u8]| RunOrigin {
        idempotency: Some(("key".to_owned(), Digest::of(body))),
        ..RunOrigin::default()
    };
    let (one, two) = (world.new_run().await, world.new_run().await);
    let runs = runs(&world);
    let (first, second) = (origin(b"one"), origin(b"one"));
    let (a, b) = tokio::join!(runs.accept(&one, &first), runs.accept(&two, &second));
    let accepted: Vec<RunId> = [a.unwrap(), b.unwrap()]
        .into_iter()
        .map(|acceptance| match acceptance {
            Acceptance::Accepted(run) => run.id,
            Acceptance::AcceptedBefore(id) => id,
            Acceptance::OtherRequest => panic!("it is the same request"),
        })
        .collect();
    assert_eq!(accepted[0], accepted[1]);
    assert_eq!(world.count("SELECT count(*) FROM all_runs").await, 1);
    let other = runs.accept(&world.new_run().await, &origin(b"two")).await.unwrap();
    assert_eq!(other, Acceptance::OtherRequest);
}

#[tokio::test]
async fn a_run_of_a_missing_graph_is_refused_by_name() {
    let world = World::new().await;
    let mut run = world.new_run().await;
    run.graph = Digest::of(b"nowhere");
    let refused = runs(&world).accept(&run, &RunOrigin::default()).await;
    assert!(matches!(refused, Err(DatabaseError::Missing { what: "the graph" })), "{refused:?}");
}

#[tokio::test]
async fn a_cancel_request_reaches_the_owner_and_ends_a_run_that_was_never_claimed() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let run = world.accept().await;
    claim_one(&world, owner).await;
    assert_eq!(runs(&world).request_cancel(run).await.unwrap(), CancelRequest::Requested);
    assert_eq!(
        world.store.list_signalled(owner, &[run]).await.unwrap(),
        [SignalledRun { run, cancel_requested: true, cancel_reason: None }]
    );
    let queued = world.accept().await;
    assert_eq!(runs(&world).request_cancel(queued).await.unwrap(), CancelRequest::Requested);
    assert_eq!(runs(&world).find(queued).await.unwrap().unwrap().state, RunState::Cancelled);
    assert_eq!(runs(&world).request_cancel(RunId::new()).await.unwrap(), CancelRequest::Missing);
}

#[tokio::test]
async fn a_wake_up_that_comes_before_the_run_is_parked_is_not_lost() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let run = world.accept().await;
    let claim = claim_one(&world, owner).await.claim;
    assert!(runs(&world).make_available(run).await.unwrap());
    commit(&world, park(claim, WaitingFor::Approval)).await.unwrap();
    assert_eq!(claim_one(&world, owner).await.claim.run, run);
}

#[tokio::test]
async fn the_end_of_a_child_wakes_its_parent_even_in_the_same_batch() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    for same_batch in [false, true] {
        let parent = world.accept().await;
        let parent_claim = claim_one(&world, owner).await.claim;
        let place = Parent { run: parent, node: "a".parse().unwrap(), round: 0 };
        let graph = world.new_run().await.graph;
        let child =
            NewChild { item: 0, graph, input: json!({}), pipeline: None, deadline_at: None, permit: None };
        world.store.start(&place, ChildKind::Awaited, vec![child], &[]).await.unwrap();
        let child_claim = claim_one(&world, owner).await.claim;
        let both = [park(parent_claim, WaitingFor::Child), end(child_claim)];
        if same_batch {
            assert!(world.store.commit(&both).await.unwrap().iter().all(Result::is_ok));
        } else {
            for checkpoint in both {
                assert_eq!(
                    world.store.claim(owner, ClaimScope::Queue, 1).await.unwrap(),
                    [],
                    "nothing is available yet"
                );
                commit(&world, checkpoint).await.unwrap();
            }
        }
        let woken = claim_one(&world, owner).await.claim;
        assert_eq!(woken.run, parent, "same batch: {same_batch}");
        commit(&world, Checkpoint { first_seq: 9, ..end(woken) }).await.unwrap();
    }
}

#[tokio::test]
async fn a_deadline_makes_a_parked_run_available() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let mut run = world.new_run().await;
    run.timeout = Some(Duration::from_millis(1));
    world.store.enqueue(run.clone()).await.unwrap();
    let claimed = claim_one(&world, owner).await;
    assert!(claimed.deadline_at.unwrap() > claimed.created_at);
    commit(&world, park(claimed.claim, WaitingFor::Approval)).await.unwrap();
    wait_until("the deadline passed", async || {
        !world.store.claim(owner, ClaimScope::Queue, 1).await.unwrap().is_empty()
    })
    .await;
}

#[tokio::test]
async fn runs_are_listed_newest_first_page_by_page() {
    let world = World::new().await;
    let mut accepted = Vec::new();
    for _ in 0..5 {
        accepted.push(world.accept().await);
    }
    accepted.reverse();
    let mut filter =
        RunFilter { project: Some(world.project), state: Some(RunState::Queued), ..RunFilter::default() };
    let mut listed = Vec::new();
    loop {
        let page = runs(&world).list(&filter, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.before = Some(last.id);
        listed.extend(page.iter().map(|run| run.id));
    }
    assert_eq!(listed, accepted);
    let nobodys = RunFilter { visible_to: Some(gathering_domain::UserId::new()), ..RunFilter::default() };
    assert_eq!(runs(&world).list(&nobodys, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_run_that_waits_for_a_later_time_is_not_claimed_however_urgent() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let later = world.accept().await;
    world
        .db
        .execute(&format!(
            "INSERT INTO runs (id, project_id, graph_digest, kind, input, priority)
             SELECT gen_random_uuid(), project_id, graph_digest, kind, input, 9
             FROM runs, generate_series(1, 5000) WHERE id = '{later}';
             {ACTIVATE};
             UPDATE active_runs SET available_at = now() + interval '1 day' WHERE priority = 9;
             {ANALYZE}"
        ))
        .await;
    let claimed = world.store.claim(owner, ClaimScope::Queue, 10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    let wait = world.store.next_available_in(ClaimScope::Queue).await.unwrap().unwrap();
    assert!(wait > Duration::from_secs(3600), "{wait:?}");
}

#[tokio::test]
async fn a_run_that_enters_the_queue_before_the_scan_window_is_claimed() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let young = world.accept().await;
    let claimed = world.store.claim(owner, ClaimScope::Queue, 10).await.unwrap();
    assert_eq!(claimed.iter().map(|run| run.claim.run).collect::<Vec<_>>(), [young]);
    // As old released runs do: more of them than one claim takes.
    for _ in 0..25 {
        world.accept().await;
    }
    world
        .db
        .execute(
            "UPDATE active_runs SET available_at = available_at - interval '1 hour' WHERE state = 'queued'",
        )
        .await;
    let n_left = "SELECT count(*) FROM all_runs WHERE state = 'queued'";
    wait_until("all are claimed", async || {
        world.store.claim(owner, ClaimScope::Queue, 10).await.unwrap();
        world.count(n_left).await == 0
    })
    .await;
}

#[tokio::test]
async fn i4_a_run_that_cannot_be_read_spoils_no_claim_of_others() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let (deep, fine) = (world.accept().await, world.accept().await);
    let input = format!("{}{}", "[".repeat(200), "]".repeat(200));
    world.db.execute(&format!("UPDATE runs SET input = '{input}' WHERE id = '{deep}'")).await;
    let claimed = world.store.claim(owner, ClaimScope::Queue, 10).await.unwrap();
    assert_eq!(claimed.iter().map(|run| run.claim.run).collect::<Vec<_>>(), [deep, fine]);
    assert!(claimed[0].input.as_ref().is_err_and(|reason| reason.contains("its input")), "{claimed:?}");
    assert!(claimed[1].input.is_ok());
    let shown = runs(&world).find(deep).await.unwrap().unwrap();
    assert!(shown.input["unreadable"].is_string(), "{:?}", shown.input);
    assert_eq!(runs(&world).list(&RunFilter::default(), 10).await.unwrap().len(), 2);
}
