//! The log of events.

use diesel_async::SimpleAsyncConnection;
use gathering_dag_engine::RunStore;
use gathering_dag_engine::testing::planned_result;
use gathering_domain::{ProjectId, RunEvent};
use gathering_persistence::{DatabaseError, EventFilter, Events, WakeBus};
use serde_json::json;

use crate::common::{World, wait_until};

#[tokio::test]
async fn a_reader_skips_no_event_whose_transaction_commits_late() {
    let world = World::new().await;
    let events = Events::new(world.pool.clone(), WakeBus::new());
    let mut slow = world.db.connection().await;
    slow.batch_execute("BEGIN; INSERT INTO events (type) VALUES ('early')").await.unwrap();
    let late = events.append(Some(world.project), "late", &json!({})).await.unwrap();
    assert_eq!(
        events.list(&EventFilter::default(), 0, 10).await.unwrap(),
        [],
        "the earlier one is not there yet"
    );
    assert_eq!(events.last_seq().await.unwrap(), 0);
    slow.batch_execute("COMMIT").await.unwrap();
    // Others in this cluster may have transactions open.
    wait_until("the events can be read", async || events.last_seq().await.unwrap() == late).await;
    let read = events.list(&EventFilter::default(), 0, 10).await.unwrap();
    assert_eq!(read.iter().map(|event| event.event_type.as_str()).collect::<Vec<_>>(), ["early", "late"]);
    let resumed = events.list(&EventFilter::default(), read[0].seq, 10).await.unwrap();
    assert_eq!(resumed, read[1..]);
}

#[tokio::test]
async fn the_start_and_the_end_of_a_run_are_events_of_its_project() {
    use gathering_dag_engine::{Checkpoint, ClaimScope, Release, RunEnd};

    let world = World::new().await;
    let events = Events::new(world.pool.clone(), WakeBus::new());
    let owner = world.begin_instance().await;
    let run = world.accept().await;
    let claim = world.store.claim(owner, ClaimScope::Queue, 1).await.unwrap().remove(0).claim;
    let end = RunEnd { result: planned_result(RunEvent::Succeeded), abandons_children: false };
    let checkpoint = Checkpoint { claim, first_seq: 1, records: vec![], release: Some(Release::End(end)) };
    world.store.commit(&[checkpoint]).await.unwrap().remove(0).unwrap();
    let filter = EventFilter { project: Some(world.project), ..EventFilter::default() };
    wait_until("both can be read", async || events.list(&filter, 0, 10).await.unwrap().len() == 2).await;
    let read = events.list(&filter, 0, 10).await.unwrap();
    assert_eq!(
        read.iter().map(|event| event.event_type.as_str()).collect::<Vec<_>>(),
        ["run.started", "run.succeeded"]
    );
    assert!(read.iter().all(|event| event.subject == Some(run.as_uuid())));
    let nobodys = EventFilter { visible_to: Some(gathering_domain::UserId::new()), ..EventFilter::default() };
    assert_eq!(events.list(&nobodys, 0, 10).await.unwrap(), []);
}

#[tokio::test]
async fn an_event_of_no_project_is_refused_and_old_ones_can_go() {
    let world = World::new().await;
    let events = Events::new(world.pool.clone(), WakeBus::new());
    let refused = events.append(Some(ProjectId::new()), "custom", &json!({})).await;
    assert!(matches!(refused, Err(DatabaseError::Missing { what: "the project" })), "{refused:?}");
    events.append(None, "custom", &json!({"n": 1})).await.unwrap();
    world.db.execute("UPDATE events SET at = now() - interval '1 year'").await;
    events.append(None, "custom", &json!({"n": 2})).await.unwrap();
    let day_ago = chrono::Utc::now() - chrono::Duration::days(1);
    assert_eq!(events.delete_before(day_ago).await.unwrap(), 1);
    assert_eq!(world.count("SELECT count(*) FROM events").await, 1);
}
