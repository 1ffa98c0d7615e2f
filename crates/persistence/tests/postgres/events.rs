//! The log of events: read in one order by readers that skip nothing, whatever is open.

use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection;
use gathering_control::{EventPage, EventStore, EventsOf, LoggedEvent};
use gathering_dag_engine::RunStore;
use gathering_dag_engine::testing::planned_result;
use gathering_domain::RunEvent;
use gathering_persistence::{PgControlStore, WakeBus, delete_events_before};

use crate::common::{World, wait_until};

fn store(world: &World) -> PgControlStore {
    PgControlStore::new(world.pool.clone(), WakeBus::new())
}

async fn page(store: &PgControlStore, after: i64) -> EventPage {
    store.list_events(&EventsOf::Everything, after, 100).await.unwrap()
}

async fn read(store: &PgControlStore, after: i64) -> Vec<String> {
    let page = page(store, after).await;
    page.events.into_iter().map(|event: LoggedEvent| event.event_type).collect()
}

const WRITE: &str = "INSERT INTO events (type) VALUES";

/// Gives the transaction a number, as a change of a run does before its event is written.
const BEGIN: &str = "BEGIN; SELECT pg_current_xact_id()";

#[tokio::test]
async fn a_reader_skips_no_event_whose_transaction_commits_late() {
    let world = World::new().await;
    let store = store(&world);
    let mut slow = world.db.connection().await;
    slow.batch_execute(&format!("{BEGIN}; {WRITE} ('early')")).await.unwrap();
    world.db.execute(&format!("{WRITE} ('late')")).await;
    for _ in 0..5 {
        assert_eq!(read(&store, 0).await, [""; 0], "the earlier one is not there yet");
        assert!(page(&store, 0).await.is_held_back);
    }
    let unknown = tokio::time::timeout(Duration::from_millis(100), store.last_event()).await;
    assert!(unknown.is_err(), "where the log ends is not known: {unknown:?}");
    slow.batch_execute("COMMIT").await.unwrap();
    wait_until("both can be read", async || read(&store, 0).await.len() == 2).await;
    assert_eq!(read(&store, 0).await, ["early", "late"]);
    assert_eq!(read(&store, 1).await, ["late"]);
}

/// The one with the smaller number takes the larger place and commits first.
#[tokio::test]
async fn a_reader_skips_no_event_of_a_transaction_that_began_later() {
    let world = World::new().await;
    let store = store(&world);
    world.db.execute(&format!("{WRITE} ('known')")).await;
    wait_until("it can be read", async || read(&store, 0).await == ["known"]).await;
    let (mut older, mut younger) = (world.db.connection().await, world.db.connection().await);
    older.batch_execute(BEGIN).await.unwrap();
    younger.batch_execute(&format!("{BEGIN}; {WRITE} ('second')")).await.unwrap();
    older.batch_execute(&format!("{WRITE} ('third'); COMMIT")).await.unwrap();
    assert_eq!(read(&store, 0).await, ["known"]);
    // Longer than a gap is waited for by transactions alone.
    let end = Instant::now() + Duration::from_millis(400);
    while Instant::now() < end {
        assert_eq!(read(&store, 0).await, ["known"], "its writer still has the log open");
    }
    younger.batch_execute("COMMIT").await.unwrap();
    wait_until("all can be read", async || read(&store, 1).await.len() == 2).await;
    assert_eq!(read(&store, 0).await, ["known", "second", "third"]);
}

#[tokio::test]
async fn a_transaction_that_writes_no_event_holds_no_reader_up() {
    let world = World::new().await;
    let mut other = world.db.connection().await;
    // Rolled back: a place that nobody will ever have.
    world.db.execute(&format!("{WRITE} ('first')")).await;
    world.db.execute(&format!("BEGIN; {WRITE} ('never'); ROLLBACK")).await;
    other.batch_execute(BEGIN).await.unwrap();
    world.db.execute(&format!("{WRITE} ('second')")).await;
    let store = store(&world);
    assert_eq!(store.last_event().await.unwrap(), 3, "at once");
    assert_eq!(read(&store, 0).await, ["first", "second"]);
    world.db.execute(&format!("{WRITE} ('third')")).await;
    assert_eq!(read(&store, 0).await, ["first", "second", "third"], "without a gap at once");
    other.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn the_start_and_the_end_of_a_run_are_events_of_its_project() {
    use gathering_dag_engine::{Checkpoint, ClaimScope, Release, RunEnd};

    let world = World::new().await;
    let store = store(&world);
    let owner = world.begin_instance().await;
    let run = world.accept().await;
    let claim = world.store.claim(owner, ClaimScope::Queue, 1).await.unwrap().remove(0).claim;
    let end =
        RunEnd { result: planned_result(RunEvent::Succeeded), abandons_children: false, is_limited: false };
    let checkpoint = Checkpoint {
        claim,
        first_seq: 1,
        records: vec![],
        release: Some(Release::End(end)),
        frees: Vec::new(),
    };
    world.store.commit(&[checkpoint]).await.unwrap().remove(0).unwrap();
    wait_until("both can be read", async || read(&store, 0).await == ["run.started", "run.succeeded"]).await;
    for event in page(&store, 0).await.events {
        assert_eq!((event.project, event.subject), (Some(world.project), Some(run.to_string())));
    }
    let nobodys = EventsOf::Member(gathering_domain::UserId::new());
    assert_eq!(store.list_events(&nobodys, 0, 10).await.unwrap().events, []);
    assert_eq!(store.list_events(&EventsOf::Admin, 0, 10).await.unwrap().events.len(), 2);
    world.db.execute("UPDATE projects SET workspace_path = '/home/ada'").await;
    assert_eq!(store.list_events(&EventsOf::Admin, 0, 10).await.unwrap().events, [], "the operator's");
    assert!(store.list_audiences(&[world.project]).await.unwrap().is_empty());
}

#[tokio::test]
async fn old_events_leave_and_a_reader_learns_how_far() {
    let world = World::new().await;
    let store = store(&world);
    world.db.execute("INSERT INTO events (type) SELECT 'old' FROM generate_series(1, 10500)").await;
    world.db.execute("UPDATE events SET at = now() - interval '1 year'").await;
    world.db.execute(&format!("{WRITE} ('new')")).await;
    let day_ago = chrono::Utc::now() - chrono::Duration::days(1);
    assert_eq!(delete_events_before(&world.pool, day_ago).await.unwrap(), 10_500);
    assert_eq!(delete_events_before(&world.pool, day_ago).await.unwrap(), 0);
    wait_until("the rest can be read", async || read(&store, 0).await == ["new"]).await;
    assert_eq!(page(&store, 0).await.pruned_until, 10_500);
}
