//! Runs that nodes of other runs start.

use crate::common::{World, wait_until};
use chrono::{TimeDelta, Utc};
use diesel_async::SimpleAsyncConnection;
use gathering_control::Run;
use gathering_dag_engine::testing::{PortsFixture, child_run_cases, planned_result};
use gathering_dag_engine::{
    Checkpoint, ChildKind, ChildRuns, ChildSummary, Claim, ClaimScope, MAX_DEPTH, NewChild, Parent, Release,
    RunEnd, RunResult, RunStore, StartChildrenError, StoreError,
};
use gathering_domain::{Digest, InstanceId, RunEvent, RunId, RunKind, RunState};
use gathering_persistence::{CancelRequest, Runs, WakeBus};
use serde_json::{Value, json};

fn runs(world: &World) -> Runs {
    Runs::new(world.pool.clone(), WakeBus::new())
}

async fn find(world: &World, run: RunId) -> Run {
    runs(world).find(run).await.unwrap().unwrap()
}

/// A run that an instance drives, as the parent of children.
async fn driven(world: &World, owner: InstanceId) -> (Parent, Claim, Digest) {
    let new = world.new_run().await;
    world.store.enqueue(new.clone()).await.unwrap();
    let claim = world.store.claim_run(owner, new.id).await.unwrap().unwrap().claim;
    (Parent { run: new.id, node: "each".parse().unwrap(), round: 0 }, claim, new.graph)
}

fn children(graph: Digest, items: std::ops::Range<u32>) -> Vec<NewChild> {
    let child = |item| NewChild {
        item,
        graph,
        input: json!({ "n": item }),
        pipeline: None,
        deadline_at: None,
        permit: None,
    };
    items.map(child).collect()
}

async fn end(world: &World, claim: Claim, event: RunEvent, output: Option<Value>) {
    let result = output.map_or_else(|| planned_result(event), RunResult::Succeeded);
    let end = RunEnd { result, abandons_children: true, is_limited: false };
    let checkpoint = Checkpoint {
        claim,
        first_seq: 1,
        records: vec![],
        release: Some(Release::End(end)),
        frees: Vec::new(),
    };
    world.store.commit(&[checkpoint]).await.unwrap().remove(0).unwrap();
}

async fn claim_item(world: &World, owner: InstanceId, parent: &Parent, item: u32) -> Claim {
    world.store.claim_run(owner, parent.child(item)).await.unwrap().unwrap().claim
}

#[tokio::test]
async fn the_store_passes_the_engine_s_cases_of_child_runs() {
    child_run_cases(async || Box::new(World::new().await) as Box<dyn PortsFixture>).await;
}

#[tokio::test]
async fn children_are_started_once_however_often_and_by_however_many() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let (parent, _, graph) = driven(&world, owner).await;
    let other = gathering_persistence::PgRunStore::new(world.db.pool().await, WakeBus::new());
    let (one, two) = tokio::join!(
        world.store.start(&parent, ChildKind::Item, children(graph, 0..20), &[]),
        other.start(&parent, ChildKind::Item, children(graph, 0..20), &[]),
    );
    one.unwrap();
    two.unwrap();
    world.store.start(&parent, ChildKind::Item, children(graph, 10..30), &[]).await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM all_runs").await, 31);
    assert_eq!(world.count("SELECT count(*) FROM child_runs").await, 30);
    let summary = world.store.summarize(&parent).await.unwrap();
    assert_eq!(summary, ChildSummary { n_started: 30, n_unfinished: 30, ..ChildSummary::default() });
    let next_round = Parent { round: 1, ..parent };
    assert_eq!(world.store.summarize(&next_round).await.unwrap(), ChildSummary::default());
    world.store.start(&next_round, ChildKind::Item, children(graph, 0..1), &[]).await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM child_runs").await, 31, "a new round has its own");
}

#[tokio::test]
async fn a_child_inherits_the_project_the_priority_and_the_deadline_of_its_parent() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let mut new = world.new_run().await;
    new.priority = 9;
    new.timeout = Some(std::time::Duration::from_secs(3600));
    world.store.enqueue(new.clone()).await.unwrap();
    let claimed = world.store.claim_run(owner, new.id).await.unwrap().unwrap();
    let parent = Parent { run: new.id, node: "call".parse().unwrap(), round: 0 };
    let mut two = children(new.graph, 0..2);
    let sooner = Utc::now() + TimeDelta::minutes(1);
    two[0].deadline_at = Some(sooner);
    two[1].deadline_at = Some(Utc::now() + TimeDelta::days(1));
    world.store.start(&parent, ChildKind::Item, two, &[]).await.unwrap();
    let (first, second) = (find(&world, parent.child(0)).await, find(&world, parent.child(1)).await);
    assert_eq!(first.deadline_at.unwrap().timestamp_micros(), sooner.timestamp_micros());
    assert_eq!(second.deadline_at, claimed.deadline_at, "the parent's is earlier");
    assert_eq!((first.project, first.priority, first.kind), (world.project, 9, RunKind::Item));
    assert_eq!((first.parent, first.input), (Some(parent.run), json!({ "n": 0 })));
    assert_eq!(first.trigger, json!({ "type": "run", "run_id": parent.run, "node_id": "call" }));
    let claimed = world.store.claim_run(owner, first.id).await.unwrap().unwrap();
    assert!(claimed.is_item());
    let alone = Parent { node: "detached".parse().unwrap(), ..parent };
    world.store.start(&alone, ChildKind::Detached, children(new.graph, 0..1), &[]).await.unwrap();
    let detached = find(&world, alone.child(0)).await;
    assert_eq!((detached.parent, detached.kind), (None, RunKind::Pipeline));
    assert_eq!(world.store.summarize(&alone).await.unwrap(), ChildSummary::default(), "no run waits for it");
}

#[tokio::test]
async fn the_summary_and_the_outputs_follow_the_items() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let (parent, _, graph) = driven(&world, owner).await;
    world.store.start(&parent, ChildKind::Item, children(graph, 0..5), &[]).await.unwrap();
    for (item, output) in [(4, Some(json!("a\0b"))), (0, None), (2, Some(json!([2])))] {
        let claim = claim_item(&world, owner, &parent, item).await;
        end(&world, claim, RunEvent::Succeeded, output).await;
    }
    let outputs = world.store.load_outputs(&parent, 0, 10).await.unwrap();
    assert_eq!(outputs, [(0, Value::Null), (2, json!([2])), (4, json!("a\0b"))]);
    assert_eq!(world.store.load_outputs(&parent, 1, 1).await.unwrap(), [(2, json!([2]))]);
    for (item, event) in [(3, RunEvent::TimedOut), (1, RunEvent::Failed)] {
        let claim = claim_item(&world, owner, &parent, item).await;
        end(&world, claim, event, None).await;
    }
    let summary = world.store.summarize(&parent).await.unwrap();
    assert_eq!((summary.n_started, summary.n_unfinished), (5, 0));
    let unsuccessful = summary.unsuccessful.unwrap();
    assert_eq!((unsuccessful.item, unsuccessful.run), (1, parent.child(1)));
    assert_eq!(
        (unsuccessful.state, unsuccessful.error.unwrap().kind.as_str()),
        (RunState::Failed, "planned")
    );
}

#[tokio::test]
async fn cancelled_children_end_at_once_or_hear_of_it() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let (parent, _, graph) = driven(&world, owner).await;
    world.store.start(&parent, ChildKind::Awaited, children(graph, 0..3), &[]).await.unwrap();
    let other = Parent { node: "other".parse().unwrap(), ..parent.clone() };
    world.store.start(&other, ChildKind::Awaited, children(graph, 0..1), &[]).await.unwrap();
    let done = claim_item(&world, owner, &parent, 0).await;
    end(&world, done, RunEvent::Succeeded, None).await;
    let driven = claim_item(&world, owner, &parent, 1).await;
    world.store.cancel(&parent).await.unwrap();
    world.store.cancel(&parent).await.unwrap();
    assert_eq!(find(&world, done.run).await.state, RunState::Succeeded);
    let heard = world.store.list_signalled(owner, &[driven.run]).await.unwrap();
    assert!(
        heard.iter().any(|signalled| signalled.run == driven.run && signalled.cancel_requested),
        "{heard:?}"
    );
    assert_eq!(find(&world, parent.child(2)).await.state, RunState::Cancelled);
    assert_eq!(world.count("SELECT count(*) FROM events WHERE type = 'run.cancelled'").await, 1);
    assert_eq!(find(&world, other.child(0)).await.cancel_requested_at, None, "another node's");
    assert_eq!(runs(&world).request_cancel(parent.child(2)).await.unwrap(), CancelRequest::AlreadyEnded);
}

#[tokio::test]
async fn nothing_is_started_in_the_name_of_a_run_that_ended_or_is_too_deep() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let (parent, claim, graph) = driven(&world, owner).await;
    let mut above = parent.clone();
    for depth in 1..=MAX_DEPTH {
        world.store.start(&above, ChildKind::Awaited, children(graph, 0..1), &[]).await.unwrap();
        above = Parent { run: above.child(0), ..above };
        claim_item_of(&world, owner, &above, depth).await;
    }
    let n_runs = world.count("SELECT count(*) FROM all_runs").await;
    let refused = world.store.start(&above, ChildKind::Awaited, children(graph, 0..1), &[]).await;
    assert!(matches!(refused, Err(StartChildrenError::TooDeep)), "{refused:?}");
    end(&world, claim, RunEvent::Succeeded, None).await;
    let refused = world.store.start(&parent, ChildKind::Awaited, children(graph, 5..6), &[]).await;
    assert!(matches!(refused, Err(StartChildrenError::ParentEnded)), "{refused:?}");
    assert_eq!(world.count("SELECT count(*) FROM all_runs").await, n_runs);
    let (parent, ..) = driven(&world, owner).await;
    let refused =
        world.store.start(&parent, ChildKind::Awaited, children(Digest::of(b"nowhere"), 0..1), &[]).await;
    assert!(matches!(refused, Err(StartChildrenError::Store(StoreError::Missing { .. }))), "{refused:?}");
}

async fn claim_item_of(world: &World, owner: InstanceId, child: &Parent, depth: u32) {
    world.store.claim_run(owner, child.run).await.unwrap().unwrap();
    let stored = format!("SELECT depth FROM all_runs WHERE id = '{}'", child.run);
    assert_eq!(world.count(&stored).await, i64::from(depth));
}

/// How many sessions of this schema wait for another to end its transaction.
const N_WAITING: &str = "SELECT count(DISTINCT waiting.pid) FROM pg_locks AS waiting JOIN pg_locks AS table_lock USING (pid) \
                         WHERE NOT waiting.granted AND waiting.locktype = 'transactionid' \
                         AND table_lock.relation = 'active_runs'::regclass";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_meets_the_end_of_the_parent_starts_nothing() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let (parent, _, graph) = driven(&world, owner).await;
    let mut ending = world.db.connection().await;
    let sql = format!(
        "BEGIN; DELETE FROM active_runs WHERE run_id = '{0}';
         UPDATE runs SET state = 'failed', ended_at = now() WHERE id = '{0}'",
        parent.run
    );
    ending.batch_execute(&sql).await.unwrap();
    let (store, place) = (world.store.clone(), parent.clone());
    let starting =
        tokio::spawn(async move { store.start(&place, ChildKind::Item, children(graph, 0..3), &[]).await });
    wait_until("the start waits", async || world.count(N_WAITING).await > 0).await;
    ending.batch_execute("COMMIT").await.unwrap();
    let refused = starting.await.unwrap();
    assert!(matches!(refused, Err(StartChildrenError::ParentEnded)), "{refused:?}");
    assert_eq!(world.count("SELECT count(*) FROM all_runs").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_that_the_end_of_the_parent_meets_are_cancelled_with_it() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let (parent, claim, graph) = driven(&world, owner).await;
    // Holds the start up after it has locked the parent, where it looks for the graph.
    let mut blocker = world.db.connection().await;
    blocker.batch_execute("BEGIN; SELECT FROM graphs FOR UPDATE").await.unwrap();
    let (store, place) = (world.store.clone(), parent.clone());
    let starting =
        tokio::spawn(async move { store.start(&place, ChildKind::Item, children(graph, 0..3), &[]).await });
    let locked = format!(
        "SELECT count(*) FROM active_runs WHERE run_id = '{}' AND xmax <> 0", // `xmax`: who has locked it
        parent.run
    );
    wait_until("the start holds the parent", async || world.count(&locked).await > 0).await;
    let store = world.store.clone();
    let end =
        RunEnd { result: planned_result(RunEvent::Cancelled), abandons_children: true, is_limited: false };
    let checkpoint = Checkpoint {
        claim,
        first_seq: 1,
        records: vec![],
        release: Some(Release::End(end)),
        frees: Vec::new(),
    };
    let ending = tokio::spawn(async move { store.commit(&[checkpoint]).await });
    wait_until("both wait", async || world.count(N_WAITING).await == 2).await;
    blocker.batch_execute("COMMIT").await.unwrap();
    starting.await.unwrap().unwrap();
    ending.await.unwrap().unwrap().remove(0).unwrap();
    let left = "SELECT count(*) FROM all_runs WHERE state = 'queued' AND cancel_requested_at IS NULL";
    assert_eq!(world.count(left).await, 0, "no child goes on");
}

/// The statement of the end begins while the parent can be claimed, and is written after it was claimed.
#[tokio::test]
async fn i4_the_end_of_a_child_signals_a_parent_that_is_claimed_meanwhile() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let (parent, claim, graph) = driven(&world, owner).await;
    world.store.start(&parent, ChildKind::Item, children(graph, 0..2), &[]).await.unwrap();
    let first = claim_item(&world, owner, &parent, 0).await;
    let second = claim_item(&world, owner, &parent, 1).await;
    let waiting_for = gathering_domain::WaitingFor::Child;
    let park = Release::Park { waiting_for, until: None };
    let parked = Checkpoint { claim, first_seq: 1, records: vec![], release: Some(park), frees: Vec::new() };
    world.store.commit(&[parked]).await.unwrap().remove(0).unwrap();
    end(&world, first, RunEvent::Succeeded, None).await;

    let mut holder = world.db.connection().await;
    let hold = format!("BEGIN; SELECT FROM active_runs WHERE run_id = '{}' FOR UPDATE", second.run);
    holder.batch_execute(&hold).await.unwrap();
    let store = gathering_persistence::PgRunStore::new(world.db.pool().await, WakeBus::new());
    let ending =
        RunEnd { result: planned_result(RunEvent::Succeeded), abandons_children: false, is_limited: false };
    let ended = Checkpoint {
        claim: second,
        first_seq: 1,
        records: vec![],
        release: Some(Release::End(ending)),
        frees: Vec::new(),
    };
    let ending = tokio::spawn(async move { store.commit(&[ended]).await.unwrap().remove(0) });
    let blocked = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
                   WHERE NOT granted AND query LIKE '%release AS%' AND locktype = 'transactionid'";
    wait_until("the end of the second waits", async || world.count(blocked).await > 0).await;
    let again = world.store.claim_run(owner, parent.run).await.unwrap().unwrap();
    assert_eq!(world.store.summarize(&parent).await.unwrap().n_unfinished, 1);
    holder.batch_execute("COMMIT").await.unwrap();
    ending.await.unwrap().unwrap();
    let signalled = world.store.list_signalled(owner, &[again.claim.run]).await.unwrap();
    assert!(
        signalled.iter().any(|signalled| signalled.run == again.claim.run),
        "nobody is told: {signalled:?}"
    );
}

/// The limit stands in a column of the run: no JSON that the API shows or takes can carry it away.
#[tokio::test]
async fn detached_runs_count_towards_the_depth_like_all_others() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let (parent, _, graph) = driven(&world, owner).await;
    let mut above = parent;
    for _ in 0..MAX_DEPTH {
        world.store.start(&above, ChildKind::Detached, children(graph, 0..1), &[]).await.unwrap();
        above = Parent { run: above.child(0), ..above };
        world.store.claim_run(owner, above.run).await.unwrap().unwrap();
    }
    world.db.execute("UPDATE runs SET trigger = '{}'").await;
    let refused = world.store.start(&above, ChildKind::Detached, children(graph, 0..1), &[]).await;
    assert!(matches!(refused, Err(StartChildrenError::TooDeep)), "{refused:?}");
    assert_eq!(world.count("SELECT max(depth) FROM all_runs").await, i64::from(MAX_DEPTH));
}

/// One statement cannot change a row twice: the end of the parent must not meet the release of its child.
#[tokio::test]
async fn i4_a_child_that_is_released_in_the_batch_that_ends_its_parent_is_told() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let park = Release::Park { waiting_for: gathering_domain::WaitingFor::Approval, until: None };
    for release in [park, Release::Requeue] {
        let (parent, claim, graph) = driven(&world, owner).await;
        world.store.start(&parent, ChildKind::Item, children(graph, 0..1), &[]).await.unwrap();
        let child = claim_item(&world, owner, &parent, 0).await;
        let failed =
            RunEnd { result: planned_result(RunEvent::Failed), abandons_children: true, is_limited: false };
        let batch = [
            Checkpoint {
                claim,
                first_seq: 1,
                records: vec![],
                release: Some(Release::End(failed)),
                frees: Vec::new(),
            },
            Checkpoint {
                claim: child,
                first_seq: 1,
                records: vec![],
                release: Some(release),
                frees: Vec::new(),
            },
        ];
        assert!(world.store.commit(&batch).await.unwrap().iter().all(Result::is_ok));
        let told = find(&world, child.run).await.cancel_requested_at;
        assert!(told.is_some(), "the child goes on without its parent");
        let ending = world.store.claim_ending(owner, ClaimScope::Queue, 10).await.unwrap();
        assert_eq!(ending.iter().map(|run| run.claim.run).collect::<Vec<_>>(), [child.run]);
    }
}
