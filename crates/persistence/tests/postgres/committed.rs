//! What is answered as done is committed. PostgreSQL makes the row of an answer before it commits, and may send it though
//! the commit fails, or never comes because it is shut down at once.

use std::sync::Arc;
use std::time::Duration;

use crate::breakers::breaker;
use crate::common::World;
use crate::decisions::{decision, somebody};
use crate::projects::projects;
use gathering_auth::Role;
use gathering_control::testing::session_caller;
use gathering_control::{ChangeProject, EventControl, PostEvent, PostEvents};
use gathering_dag_engine::{BreakerStore, ChildKind, ChildRuns, NewChild, Parent, RunStore};
use gathering_domain::{CircuitBreaker, Pointer, RunId, UserId};
use gathering_persistence::{PgControlStore, Runs, WakeBus};
use serde_json::json;

/// From now on no commit succeeds that has written to this table.
async fn refuse_commits(world: &World, table: &str) {
    let refuse = format!(
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'this commit fails'; END $$;
         CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON {table} DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION refuse()"
    );
    world.db.execute(&refuse).await;
}

#[tokio::test]
async fn i7_a_run_or_a_start_of_runs_below_is_not_accepted_by_a_commit_that_fails() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let (new, parent) = (world.new_run().await, world.accept().await);
    world.store.claim_run(owner, parent).await.unwrap().unwrap();
    let graph = new.graph;
    refuse_commits(&world, "runs").await;
    assert!(world.store.enqueue(new).await.is_err());
    let parent = Parent { run: parent, node: "each".parse().unwrap(), round: 0 };
    let child =
        NewChild { item: 0, graph, input: json!({}), pipeline: None, deadline_at: None, permit: None };
    assert!(world.store.start(&parent, ChildKind::Item, vec![child], &[]).await.is_err());
    assert_eq!(world.count("SELECT count(*) FROM all_runs").await, 1);
}

#[tokio::test]
async fn a_failed_commit_of_another_write_is_not_answered_as_done() {
    let world = World::new().await;
    let (owner, run) = (world.begin_instance().await, world.accept().await);
    let yes = decision(somebody(&world).await, true);
    world.store.claim_run(owner, run).await.unwrap().unwrap();
    let key = breaker(&world).await;
    for table in ["events", "node_decisions", "projects", "circuit_breakers"] {
        refuse_commits(&world, table).await;
    }
    let (pool, bus) = (world.pool.clone(), WakeBus::new());
    let admin = session_caller(UserId::new(), Role::Admin);
    let events = EventControl::new(Arc::new(PgControlStore::new(pool.clone(), bus.clone())));
    let made_up = PostEvent { event_type: "made.up".to_owned(), ..PostEvent::default() };
    let posting = PostEvents { project: Some(world.project), events: vec![(Pointer::root(), made_up)] };
    let event = events.post(&admin, posting).await;
    assert!(event.is_err(), "{event:?}");
    let decided = Runs::new(pool.clone(), bus).decide(run, &"a".parse().unwrap(), &yes).await;
    assert!(decided.is_err(), "{decided:?}");
    let change = ChangeProject { name: Some("another".to_owned()), description: None };
    let renamed = projects(&pool).change(&admin, world.project, &change).await;
    assert!(renamed.is_err(), "{renamed:?}");
    let settings = CircuitBreaker { failure_threshold: 1, reset: Duration::from_secs(1) };
    let noted = world.store.note_failure(&key, RunId::new(), &settings).await;
    assert!(noted.is_err(), "{noted:?}");
}
