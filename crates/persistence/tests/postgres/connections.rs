//! What the connections must keep is proved before anything depends on it.

use std::time::Duration;

use gathering_auth::RoleAtCreation;
use gathering_dag_engine::{Checkpoint, JournalEvent, Record, RunStore, StoreError};
use gathering_domain::{ExposeSecret, NodeId, RunId, Secret};
use gathering_persistence::testing::TestDb;
use gathering_persistence::{
    ConnectOptions, ConnectionsError, DatabaseError, Liveness, PgAccountStore, Pool, PoolSettings, Runs,
    WakeBus, check_connections, check_registered,
};

use crate::accounts::create_account;
use crate::common::{World, count, info, named_pool, wait_until};

#[tokio::test]
async fn two_addresses_of_one_database_are_accepted_and_nothing_is_left_of_the_proof() {
    let db = TestDb::empty().await;
    let named = format!("{}&application_name={}", db.url().expose_secret(), db.schema());
    let named = ConnectOptions::parse(&Secret::from(named)).unwrap();
    check_connections(&named, &db.options()).await.unwrap();
    check_connections(&named, &named).await.unwrap();
    let sessions =
        format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}'", db.schema());
    wait_until("its sessions are gone", async || count(&db, &sessions).await == 0).await;
}

#[tokio::test]
async fn addresses_of_different_schemas_or_databases_are_refused_with_both_places() {
    let (one, other) = (TestDb::new().await, TestDb::empty().await);
    let refused = check_connections(&one.options(), &other.options()).await.unwrap_err();
    assert!(matches!(refused, ConnectionsError::Different { .. }), "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains(one.schema()) && text.contains(other.schema()), "{text}");

    let elsewhere = format!("{}&dbname=postgres", one.url().expose_secret());
    let elsewhere = ConnectOptions::parse(&Secret::from(elsewhere)).unwrap();
    let refused = check_connections(&elsewhere, &one.options()).await.unwrap_err();
    assert!(matches!(refused, ConnectionsError::Different { .. }), "{refused:?}");
    assert!(refused.to_string().contains("database postgres "), "{refused}");
}

#[tokio::test]
async fn an_instance_that_the_pool_does_not_see_is_refused() {
    let (one, other) = (TestDb::new().await, TestDb::new().await);
    let liveness = Liveness::begin(&one.options(), &info()).await.unwrap();
    check_registered(&one.pool().await, liveness.instance()).await.unwrap();
    let refused = check_registered(&other.pool().await, liveness.instance()).await.unwrap_err();
    assert!(matches!(refused, ConnectionsError::NotSeen), "{refused:?}");
}

/// Writes through the connections for queries.
async fn write(pool: &Pool) {
    let accounts = PgAccountStore::new(pool.clone());
    let email = format!("{}@example.org", RunId::new());
    create_account(&accounts, &email, RoleAtCreation::AdminIfFirst).await.unwrap();
}

/// Does `work` while every statement of this kind also executes `meddling` on its connection.
async fn with_meddling(db: &TestDb, kind: &str, meddling: &str, work: impl Future<Output = ()>) {
    let sql = format!(
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN EXECUTE $sql${meddling}$sql$; RETURN NULL; END $$;
         CREATE TRIGGER meddle AFTER {kind} FOR EACH STATEMENT EXECUTE FUNCTION meddle()"
    );
    db.execute(&sql).await;
    work.await;
    db.execute("DROP FUNCTION meddle CASCADE").await;
}

const UNLOCK: &str = "SELECT pg_advisory_unlock_all()";

#[tokio::test]
async fn an_instance_whose_session_does_not_keep_its_lock_is_refused() {
    let db = TestDb::new().await;
    let begin = async {
        let refused = Liveness::begin(&db.options(), &info()).await.unwrap_err();
        assert!(matches!(refused, DatabaseError::Unavailable { .. }), "{refused:?}");
        assert!(refused.to_string().contains("does not hold the lock"), "{refused}");
    };
    with_meddling(&db, "INSERT ON instances", UNLOCK, begin).await;
}

#[tokio::test]
async fn i2_an_instance_whose_session_goes_on_without_its_lock_fences_itself() {
    let db = TestDb::new().await;
    let liveness = Liveness::begin(&db.options(), &info()).await.unwrap();
    let lost = liveness.lost();
    let announce = async { liveness.announce_draining().await.unwrap() };
    with_meddling(&db, "UPDATE ON instances", UNLOCK, announce).await;
    tokio::time::timeout(Duration::from_secs(20), lost.cancelled()).await.unwrap();
    assert_eq!(count(&db, "SELECT count(*) FROM instances").await, 1, "its row is there all the same");
}

#[tokio::test]
async fn a_statement_that_is_not_there_is_an_outage_and_the_next_connection_prepares_it() {
    let world = World::new().await;
    let pool = named_pool(&world.db, "forgetful", 1).await;
    let runs = Runs::new(pool.clone(), WakeBus::new());
    runs.find(RunId::new()).await.unwrap();
    with_meddling(&world.db, "INSERT ON users", "DEALLOCATE ALL", write(&pool)).await;
    let refused = runs.find(RunId::new()).await.unwrap_err();
    assert!(matches!(refused, DatabaseError::Unavailable { .. }), "{refused:?}");
    assert!(refused.to_string().contains("prepared statement"), "{refused}");
    runs.find(RunId::new()).await.unwrap();
}

#[tokio::test]
async fn no_run_fails_because_a_statement_of_its_checkpoint_is_not_there() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let run = world.accept().await;
    let claim = world.store.claim_run(owner, run).await.unwrap().unwrap().claim;
    let checkpoint = |first_seq: i64| {
        let node: NodeId = "a".parse().unwrap();
        let records = vec![Record::of_node(node, 1, JournalEvent::Succeeded { output: first_seq.into() })];
        [Checkpoint { claim, first_seq, records, release: None, frees: Vec::new() }]
    };
    let first = async { world.store.commit(&checkpoint(1)).await.unwrap().remove(0).unwrap() };
    with_meddling(&world.db, "INSERT ON run_journal", "DEALLOCATE ALL", first).await;
    let refused = world.store.commit(&checkpoint(2)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "the engine repeats it: {refused:?}");
    world.store.commit(&checkpoint(2)).await.unwrap().remove(0).unwrap();
    assert_eq!(world.store.load_journal(run, 0, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn through_a_pooler_nothing_is_set_that_its_other_clients_would_meet() {
    let db = TestDb::new().await;
    db.execute("CREATE TABLE seen (statement_timeout text)").await;
    let note = "INSERT INTO seen VALUES (current_setting('statement_timeout'))";
    let through_pooler =
        Pool::connect_through_pooler(&db.options(), db.options(), PoolSettings::default()).await.unwrap();
    for (pool, expected) in [(through_pooler, "0"), (db.pool().await, "30s")] {
        with_meddling(&db, "INSERT ON users", note, write(&pool)).await;
        let seen = format!("SELECT count(*) FROM seen WHERE statement_timeout = '{expected}'");
        assert_eq!(count(&db, &seen).await, 1, "{expected}");
    }
}
