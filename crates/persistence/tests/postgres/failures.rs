//! What a failure of the real database is taken for.

use diesel_async::SimpleAsyncConnection;
use gathering_auth::Role;
use gathering_control::testing::session_caller;
use gathering_control::{ControlError, CreateProject, ProjectStore as _};
use gathering_dag_engine::{
    Checkpoint, Claim, JournalEvent, Record, Release, RunEnd, RunResult, RunStore, StoreError,
};
use gathering_domain::{Digest, ExposeSecret, ProjectId, RunId, Secret, UserId};
use gathering_persistence::testing::TestDb;
use gathering_persistence::{
    ConnectOptions, DatabaseError, PgControlStore, PgRunStore, Pool, PoolSettings, WakeBus,
};

use serde_json::json;

use crate::common::{World, named_pool, wait_until};
use crate::projects::projects;

/// A request that reads one row.
async fn find(pool: &Pool) -> Result<(), ControlError> {
    let store = PgControlStore::new(pool.clone(), WakeBus::new());
    let caller = session_caller(UserId::new(), Role::Member);
    store.find_whole_project(&caller, ProjectId::new()).await.map(drop)
}

/// What the database did; control's error must say the same.
fn cause(error: &ControlError) -> &DatabaseError {
    let (ControlError::Unavailable(cause) | ControlError::TimedOut(cause) | ControlError::Broken(cause)) =
        error
    else {
        panic!("{error:?}");
    };
    let cause = cause.downcast_ref().unwrap();
    let says_the_same = match cause {
        DatabaseError::Unavailable { .. } => matches!(error, ControlError::Unavailable(_)),
        DatabaseError::TimedOut { .. } => matches!(error, ControlError::TimedOut(_)),
        _ => matches!(error, ControlError::Broken(_)),
    };
    assert!(says_the_same, "{error:?}");
    cause
}

#[tokio::test]
async fn a_schema_that_is_not_the_programs_is_a_fault_and_the_next_request_is_fine_once_it_is_repaired() {
    let world = World::new().await;
    let rename = async |from: &str, to: &str| {
        world.db.execute(&format!("ALTER TABLE projects RENAME COLUMN {from} TO {to}")).await;
    };
    find(&world.pool).await.unwrap();
    rename("description", "about").await;
    let refused = find(&world.pool).await.unwrap_err();
    assert!(matches!(cause(&refused), DatabaseError::Fault { .. }), "{refused:?}");
    let text = cause(&refused).to_string();
    assert!(text.contains("description") && text.contains("does not exist"), "the innermost cause: {text}");
    rename("about", "description").await;
    find(&world.pool).await.unwrap();

    world.db.execute("ALTER TABLE run_journal RENAME TO hidden").await;
    let refused = RunStore::load_journal(&world.store, RunId::new(), 0, 1).await.unwrap_err();
    assert!(matches!(refused, StoreError::Fault(_)), "the port says so, too: {refused:?}");
    world.db.execute("ALTER TABLE hidden RENAME TO run_journal").await;
    RunStore::load_journal(&world.store, RunId::new(), 0, 1).await.unwrap();
}

#[tokio::test]
async fn a_constraint_that_no_rule_expects_is_a_fault() {
    let world = World::new().await;
    world.db.execute("ALTER TABLE projects ADD CONSTRAINT no_more CHECK (name <> 'forbidden')").await;
    let forbidden = CreateProject { name: "forbidden".to_owned(), description: String::new(), once: None };
    let caller = session_caller(UserId::new(), Role::Member);
    let refused = projects(&world.pool).create(&caller, forbidden).await.unwrap_err();
    assert!(matches!(cause(&refused), DatabaseError::Fault { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_wait_for_a_lock_that_reaches_its_limit_is_a_time_out() {
    let world = World::new().await;
    let url = format!("{}%20-c%20lock_timeout%3D50", world.db.url().expose_secret());
    let options = ConnectOptions::parse(&Secret::from(url)).unwrap();
    let pool = Pool::connect(options, PoolSettings::default()).await.unwrap();
    let mut holder = world.db.connection().await;
    holder.batch_execute("BEGIN; LOCK TABLE projects, graphs").await.unwrap();
    let refused = find(&pool).await.unwrap_err();
    assert!(matches!(cause(&refused), DatabaseError::TimedOut { .. }), "{refused:?}");
    let definition = json!({"nodes": [{"id": "a", "type": "trigger"}]});
    let stored = PgRunStore::new(pool, WakeBus::new()).ensure_graph(Digest::of(b"a"), &definition).await;
    let refused = ControlError::from(stored.unwrap_err());
    assert!(matches!(refused, ControlError::TimedOut(_)), "the port of the engine says so, too: {refused:?}");
}

#[tokio::test]
async fn a_session_that_an_operator_ended_is_an_outage_and_the_pool_replaces_it() {
    let world = World::new().await;
    let pool = named_pool(&world.db, world.db.schema(), 1).await;
    let mut holder = world.db.connection().await;
    holder.batch_execute("BEGIN; LOCK TABLE projects").await.unwrap();
    let end = async {
        let session = format!("FROM pg_stat_activity WHERE application_name = '{}'", world.db.schema());
        let waiting = format!("SELECT count(*) {session} AND wait_event_type = 'Lock'");
        wait_until("the request waits for the lock", async || world.count(&waiting).await == 1).await;
        world.db.execute(&format!("SELECT pg_terminate_backend(pid) {session}")).await;
    };
    let refused = tokio::join!(find(&pool), end).0.unwrap_err();
    assert!(matches!(cause(&refused), DatabaseError::Unavailable { .. }), "{refused:?}");
    holder.batch_execute("ROLLBACK").await.unwrap();
    // PostgreSQL says why before it closes the socket; until that is noticed, a request may meet the old session.
    wait_until("a request gets a new session", async || find(&pool).await.is_ok()).await;
}

/// Leads to the test cluster, but to no database.
fn to_no_database(db: &TestDb) -> ConnectOptions {
    ConnectOptions::parse(&Secret::from(format!("{}&dbname=not_there", db.url().expose_secret()))).unwrap()
}

#[tokio::test]
async fn a_connection_that_is_refused_tells_the_innermost_cause_once() {
    let db = TestDb::empty().await;
    let refused = Pool::connect(to_no_database(&db), PoolSettings::default()).await.unwrap_err();
    assert!(matches!(refused, DatabaseError::Unavailable { .. }), "{refused:?}");
    let text = refused.to_string();
    assert_eq!(text.matches("unavailable while").count(), 1, "{text}");
    assert!(text.contains("\"not_there\" does not exist"), "{text}");
    let closed = ConnectOptions::parse(&Secret::from("postgresql://ada@127.0.0.1:1/db")).unwrap();
    let text = Pool::connect(closed, PoolSettings::default()).await.unwrap_err().to_string();
    assert!(text.contains("Connection refused"), "{text}");
}

#[tokio::test]
async fn a_rehearsal_tells_the_fault_of_one_checkpoint_from_a_fault_that_meets_all_and_writes_nothing() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let run = world.accept().await;
    let claim = world.store.claim_run(owner, run).await.unwrap().unwrap().claim;
    let checkpoint = |output: &str| {
        let (node, output) = ("a".parse().unwrap(), json!(output.repeat(100_000)));
        let result = RunResult::Succeeded(output.clone());
        Checkpoint {
            claim,
            first_seq: 1,
            records: vec![Record::of_node(node, 1, JournalEvent::Succeeded { output })],
            release: Some(Release::End(RunEnd { result, abandons_children: true, is_limited: false })),
            frees: Vec::new(),
        }
    };
    world.db.execute("ALTER TABLE runs ADD CHECK (output IS NULL OR output::text NOT LIKE '%y%')").await;
    assert!(matches!(world.store.commit(&[checkpoint("y")]).await, Err(StoreError::Fault(_))));
    assert!(matches!(world.store.rehearse(&checkpoint("y")).await, Err(StoreError::Fault(_))));
    world.store.rehearse(&checkpoint("x")).await.unwrap();
    let lost = Checkpoint { claim: Claim { epoch: 7, ..claim }, ..checkpoint("x") };
    world.store.rehearse(&lost).await.unwrap();
    world.db.execute("ALTER TABLE events RENAME TO hidden").await;
    assert!(matches!(world.store.rehearse(&checkpoint("x")).await, Err(StoreError::Fault(_))));
    world.db.execute("ALTER TABLE hidden RENAME TO events").await;
    for written in
        ["run_journal", "blobs", "runs WHERE state <> 'running'", "events WHERE type = 'run.succeeded'"]
    {
        assert_eq!(world.count(&format!("SELECT count(*) FROM {written}")).await, 0, "{written}");
    }
    world.store.commit(&[checkpoint("x")]).await.unwrap().remove(0).unwrap();
}
