//! The sessions that stand alone: liveness and wake-ups, and the pool.

use std::time::Duration;

use crate::common::{count, end_session_of, info, wait_until};
use diesel_async::SimpleAsyncConnection;
use futures::FutureExt;
use gathering_dag_engine::{ClaimScope, RunStore, StoreError};
use gathering_domain::{ExposeSecret, InstanceId, Secret};
use gathering_persistence::testing::TestDb;
use gathering_persistence::{
    ConnectOptions, DatabaseError, Liveness, PgRunStore, Pool, PoolSettings, Wake, WakeBus, list_instances,
};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn liveness_is_lost_with_its_session_and_leaves_its_row_to_the_others() {
    let db = TestDb::new().await;
    let liveness = Liveness::begin(&db.options(), &info()).await.unwrap();
    assert!(!liveness.lost().is_cancelled());
    // It is not asked for long now, and knows even so.
    liveness.set_driving(false);
    end_session_of(&db, liveness.instance()).await;
    tokio::time::timeout(Duration::from_secs(20), liveness.lost().cancelled()).await.unwrap();
    let rows = list_instances(&db.pool().await).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [liveness.instance()]);
    assert!(liveness.close().await.is_err());
}

#[tokio::test]
async fn a_closed_liveness_leaves_nothing_behind() {
    let db = TestDb::new().await;
    let liveness = Liveness::begin(&db.options(), &info()).await.unwrap();
    let lost = liveness.lost();
    liveness.announce_draining().await.unwrap();
    assert_eq!(count(&db, "SELECT count(*) FROM instances WHERE state = 'draining'").await, 1);
    liveness.close().await.unwrap();
    assert!(lost.is_cancelled());
    assert_eq!(count(&db, "SELECT count(*) FROM instances").await, 0);
}

#[tokio::test]
async fn an_instance_that_was_taken_for_dead_notices() {
    let db = TestDb::new().await;
    let liveness = Liveness::begin(&db.options(), &info()).await.unwrap();
    db.execute("DELETE FROM instances").await;
    tokio::time::timeout(Duration::from_secs(20), liveness.lost().cancelled()).await.unwrap();
}

#[tokio::test]
async fn a_wake_up_reaches_the_other_instances_of_this_schema_only() {
    let (db, elsewhere) = (TestDb::new().await, TestDb::new().await);
    let (here, there, stranger) = (WakeBus::new(), WakeBus::new(), WakeBus::new());
    let stop = CancellationToken::new();
    let mut services = tokio::task::JoinSet::new();
    for (bus, options) in [(&here, db.options()), (&there, db.options()), (&stranger, elsewhere.options())] {
        let (bus, stop) = (bus.clone(), stop.clone());
        services.spawn(async move { bus.run(options, stop).await });
    }
    let mut awoken = there.subscribe(Wake::Schedules);
    let mut undisturbed = stranger.subscribe(Wake::Schedules);
    // Connecting wakes everybody once.
    for receiver in [&mut awoken, &mut undisturbed, &mut here.subscribe(Wake::Schedules)] {
        tokio::time::timeout(Duration::from_secs(20), receiver.changed()).await.unwrap().unwrap();
    }
    here.wake(Wake::Schedules);
    tokio::time::timeout(Duration::from_secs(20), awoken.changed()).await.unwrap().unwrap();
    assert!(!undisturbed.has_changed().unwrap());
    stop.cancel();
    services.join_all().await;
}

/// How to connect so that the sessions can be found, and ended, by name.
fn named(db: &TestDb) -> ConnectOptions {
    let url = format!("{}&application_name={}", db.url().expose_secret(), db.schema());
    ConnectOptions::parse(&Secret::from(url)).unwrap()
}

/// Ends the named sessions; answers with how many there were.
async fn end_named_sessions(db: &TestDb) -> i64 {
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '{}'",
        db.schema()
    );
    count(db, &sql).await
}

#[tokio::test]
async fn a_wake_up_session_that_ends_is_made_anew() {
    let db = TestDb::new().await;
    let bus = WakeBus::new();
    let stop = CancellationToken::new();
    let service = {
        let (bus, options, stop) = (bus.clone(), named(&db), stop.clone());
        tokio::spawn(async move { bus.run(options, stop).await })
    };
    let mut awoken = bus.subscribe(Wake::Runs);
    for _ in 0..2 {
        // Connecting wakes everybody, as something may have been missed.
        tokio::time::timeout(Duration::from_secs(20), awoken.changed()).await.unwrap().unwrap();
        assert_eq!(end_named_sessions(&db).await, 1);
    }
    stop.cancel();
    service.await.unwrap();
}

#[tokio::test]
async fn a_pool_is_bounded_and_says_so() {
    let db = TestDb::new().await;
    let settings =
        PoolSettings { max_size: 2, wait_timeout: Duration::from_secs(20), ..PoolSettings::default() };
    let pool = Pool::connect(db.options(), settings).await.unwrap();
    assert_eq!(pool.schema(), db.schema());
    let pings = (0..20).map(|_| pool.ping());
    assert!(futures::future::join_all(pings).await.iter().all(Result::is_ok));
    assert!(pool.status().n_open <= 2, "{:?}", pool.status());
    pool.close();
    assert!(pool.ping().await.is_err());
}

#[tokio::test]
async fn a_pool_forgets_the_connections_that_the_server_ended() {
    let db = TestDb::new().await;
    let settings = PoolSettings { max_size: 1, ..PoolSettings::default() };
    let pool = Pool::connect(named(&db), settings).await.unwrap();
    pool.ping().await.unwrap();
    assert_eq!(end_named_sessions(&db).await, 1);
    // The first query after it may still meet the dead connection; no later one does.
    wait_until("the pool answers", async || pool.ping().await.is_ok()).await;
    pool.ping().await.unwrap();
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended_by_the_server_and_told_as_a_time_out() {
    let db = TestDb::new().await;
    let settings = PoolSettings { statement_timeout: Duration::from_millis(50), ..PoolSettings::default() };
    let pool = Pool::connect(db.options(), settings).await.unwrap();
    let mut blocker = db.connection().await;
    blocker.batch_execute("BEGIN; LOCK TABLE instances IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let refused = list_instances(&pool).await;
    assert!(matches!(refused, Err(DatabaseError::TimedOut { .. })), "{refused:?}");
    blocker.batch_execute("COMMIT").await.unwrap();
    assert_eq!(list_instances(&pool).await.unwrap(), []);
}

#[tokio::test]
async fn a_schema_that_does_not_exist_is_named_as_the_problem() {
    let db = TestDb::empty().await;
    let options = db.options();
    db.execute(&format!("DROP SCHEMA {}", db.schema())).await;
    let refused = Pool::connect(options.clone(), PoolSettings::default()).await;
    assert!(matches!(refused, Err(DatabaseError::NoSchema)), "{refused:?}");
    let refused = Liveness::begin(&options, &info()).await;
    assert!(matches!(refused, Err(DatabaseError::NoSchema)), "{refused:?}");
}

/// The engine's own connections have no task that drives them: the caller of a query does.
#[tokio::test]
async fn a_question_whose_session_ends_is_answered_and_the_next_finds_another_session() {
    let db = TestDb::new().await;
    let pool = Pool::connect(named(&db), PoolSettings::default()).await.unwrap();
    let store = PgRunStore::new(pool, WakeBus::new());
    let answers = async || store.next_available_in(ClaimScope::Queue).await.is_ok();
    assert!(answers().await);

    // While nobody asks.
    assert!(end_named_sessions(&db).await >= 1);
    wait_until("the engine's connection answers", answers).await;

    // While somebody waits for the answer.
    let mut holder = db.connection().await;
    holder.batch_execute("BEGIN; LOCK TABLE active_runs").await.unwrap();
    let asked = tokio::spawn({
        let store = store.clone();
        async move { store.next_available_in(ClaimScope::Queue).await }
    });
    let blocked = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND wait_event_type = 'Lock'",
        db.schema()
    );
    wait_until("the question waits", async || count(&db, &blocked).await == 1).await;
    assert!(end_named_sessions(&db).await >= 1);
    let answered = tokio::time::timeout(Duration::from_secs(20), asked).await;
    assert!(matches!(answered.unwrap().unwrap(), Err(StoreError::Unavailable(_))));

    // Who gives up in the middle leaves no other an answer that is not theirs. Another connection may have ended with its
    // session, too, and then the first question of it fails at once.
    let is_given_up = async || store.next_available_in(ClaimScope::Queue).now_or_never().is_none();
    wait_until("a question is given up in the middle", is_given_up).await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    wait_until("the engine's connection answers again", answers).await;
    assert_eq!(store.list_signalled(InstanceId::new(), &[]).await.unwrap(), []);
}
