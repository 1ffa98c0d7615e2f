//! The queries of every request, and a page of a long list, read little however much is stored.
//!
//! PostgreSQL counts the rows that it reads of each table; a session's counts are there once it has ended.

use diesel_async::SimpleAsyncConnection as _;
use gathering_auth::{AccountStore, AuditFilter, AuditKind, Role, RoleAtCreation, SessionId, TokenId};
use gathering_control::testing::session_caller;
use gathering_dag_engine::{
    BudgetLedger as _, Call, Checkpoint, ClaimScope, Grant, NewRun, Release, RunStore as _,
};
use gathering_domain::{Amounts, Resource, UserId};
use gathering_persistence::testing::TestDb;
use gathering_persistence::{
    PgAccountStore, PgBudgetLedger, PgRunStore, Pool, WakeBus, recover_dead_instances,
};

use crate::accounts::{Fixture, create_account, digest, empty_store};
use crate::common::{ACTIVATE, ANALYZE, OF_EMPTY_TABLES, World, count, named_pool, wait_until};
use crate::projects::projects;

const FILL: &str = "
    INSERT INTO users (id, email, name, password_hash, role)
        SELECT md5('user' || n)::uuid, n || '@example.org', 'n', 'h', 'member' FROM generate_series(1, 5000) AS n;
    INSERT INTO projects (id, name) SELECT md5('project' || n)::uuid, 'p' FROM generate_series(1, 5000) AS n;
    INSERT INTO project_members (project_id, user_id, role)
        SELECT md5('project' || n)::uuid, md5('user' || n)::uuid, 'owner' FROM generate_series(1, 5000) AS n;
    INSERT INTO api_keys (id, user_id, name, secret_hash, scopes, last_used_at)
        SELECT gen_random_uuid(), md5('user' || n)::uuid, 'k', sha256(n::text::bytea), '{read}', now() FROM generate_series(1, 5000) AS n;
    INSERT INTO revoked_tokens (token_id, expires_at)
        SELECT gen_random_uuid(), now() FROM generate_series(1, 5000);
    -- One session that was refreshed for months, among many.
    INSERT INTO refresh_tokens (token_hash, session_id, user_id, expires_at, spent_at)
        SELECT sha256(n::text::bytea), md5('session' || greatest(n - 20000, 0))::uuid, md5('user' || n % 5000 + 1)::uuid, now(),
            CASE WHEN n <> 20000 THEN now() END
        FROM generate_series(1, 25000) AS n;
    INSERT INTO audit_events (id, user_id, type, at)
        SELECT uuid_v7_floor(at), md5('user' || n % 500)::uuid, CASE WHEN n % 1000 = 0 THEN 'role_changed' ELSE 'login_succeeded' END, at
        FROM generate_series(1, 100000) AS n, LATERAL (SELECT now() - n * interval '5 minutes' AS at) AS time;";

/// A filled schema.
async fn filled() -> Fixture {
    let fixture = empty_store().await;
    create_account(&fixture, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
    fixture.db.execute(FILL).await;
    fixture.db.execute(ANALYZE).await;
    fixture
}

/// How many rows of the tables, and entries of their indexes, `work` reads on a pool of its own.
pub async fn rows_read(db: &TestDb, work: impl AsyncFnOnce(Pool)) -> i64 {
    let read = "SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = current_schema()) \
                + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = current_schema())";
    let name = format!("plans_{}", UserId::new().as_uuid().simple());
    let pool = named_pool(db, &name, 1).await;
    let before = count(db, read).await;
    work(pool.clone()).await;
    pool.close();
    drop(pool);
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
    wait_until("the session has ended", async || count(db, &sessions).await == 0).await;
    count(db, read).await - before
}

#[tokio::test]
async fn the_queries_of_every_request_read_a_handful_of_rows() {
    let fixture = filled().await;
    let user = uuid_of(&fixture, "user1").await;
    let session = SessionId::from(uuid_of(&fixture, "session0").await);
    let n_rows = rows_read(&fixture.db, async |pool| {
        let store = PgAccountStore::new(pool);
        let status = store.find_token_status(user.into(), session, TokenId::new()).await.unwrap().unwrap();
        assert!(status.is_active && !status.is_revoked);
    })
    .await;
    // A few more than it needs: what was updated or deleted is read until it is cleaned up.
    assert!((1..=10).contains(&n_rows), "find_token_status reads {n_rows}");
    fixture
        .db
        .execute(&format!(
            "UPDATE api_keys SET secret_hash = '\\x{}' WHERE secret_hash = sha256('77')",
            hex("k")
        ))
        .await;
    let n_rows = rows_read(&fixture.db, async |pool| {
        assert!(PgAccountStore::new(pool).find_key_status(digest("k")).await.unwrap().is_some());
    })
    .await;
    assert!((2..=10).contains(&n_rows), "find_key_status reads {n_rows}");
    let n_rows = rows_read(&fixture.db, async |pool| {
        let member = session_caller(user.into(), Role::Member);
        assert_eq!(projects(&pool).list(&member, None, 50).await.unwrap().len(), 1);
    })
    .await;
    assert!((2..=10).contains(&n_rows), "a member's projects read {n_rows}");
}

#[tokio::test]
async fn a_page_of_the_audit_record_reads_little_more_than_it_shows() {
    let fixture = filled().await;
    let user = Some(UserId::from(uuid_of(&fixture, "user7").await));
    let now = chrono::Utc::now();
    let ago = |days| Some(now - chrono::TimeDelta::days(days));
    // A day has 288 events, and the slack of a day before and after has as many.
    let all = AuditFilter::default;
    let cases = [
        ("all", all(), 150),
        ("of long ago", AuditFilter { to: ago(300), ..all() }, 500),
        ("of a day", AuditFilter { from: ago(201), to: ago(200), ..all() }, 1000),
        ("of an account", AuditFilter { user, ..all() }, 150),
        ("of an account, of long ago", AuditFilter { user, to: ago(200), ..all() }, 150),
        ("of a kind", AuditFilter { kind: Some(AuditKind::RoleChanged), ..all() }, 150),
        (
            "of a kind, between",
            AuditFilter { kind: Some(AuditKind::RoleChanged), from: ago(200), to: ago(100), ..all() },
            150,
        ),
        (
            "of a kind that is most, of long ago",
            AuditFilter { kind: Some(AuditKind::LoginSucceeded), to: ago(300), ..all() },
            1000,
        ),
    ];
    for (what, filter, most) in cases {
        let n_rows = rows_read(&fixture.db, async |pool| {
            assert!(!PgAccountStore::new(pool).list_audit_events(&filter, 51).await.unwrap().is_empty());
        })
        .await;
        assert!((1..=most).contains(&n_rows), "a page {what} reads {n_rows}");
    }
}

/// It runs every second while any instance drives a run.
#[tokio::test]
async fn a_search_for_dead_instances_reads_no_run_without_an_owner() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let fill = async |state: &str, owner: &str| {
        let sql = format!(
            "INSERT INTO active_runs (run_id, project_id, priority, state, owner)
                 SELECT gen_random_uuid(), '{}', 5, '{state}', {owner} FROM generate_series(1, 5000)",
            world.project
        );
        world.db.execute(&sql).await;
    };
    // PostgreSQL believes for a while what it learned in a rush. All anew, as dead rows stay while other tests look on.
    fill("running", &format!("'{owner}'")).await;
    world.db.execute(ANALYZE).await;
    world.db.execute("TRUNCATE active_runs").await;
    fill("queued", "NULL").await;
    let is_anyone_driving = async |pool: Pool| {
        recover_dead_instances(&pool, &WakeBus::new(), 20, PgRunStore::STUCK_LIMIT)
            .await
            .unwrap()
            .is_anyone_driving
    };
    for statistics in ["SELECT 1", OF_EMPTY_TABLES, ANALYZE] {
        world.db.execute(statistics).await;
        let n_rows = rows_read(&world.db, async |pool| assert!(!is_anyone_driving(pool).await)).await;
        assert!(n_rows <= 10, "{n_rows} after {statistics}");
    }
    let run = world.accept().await;
    world.store.claim_run(owner, run).await.unwrap().unwrap();
    let n_rows = rows_read(&world.db, async |pool| assert!(is_anyone_driving(pool).await)).await;
    assert!((1..=10).contains(&n_rows), "{n_rows} while somebody drives");
}

/// A long reader keeps PostgreSQL from vacuuming the index entries of claimed runs.
#[tokio::test]
async fn a_claim_does_not_read_runs_that_were_claimed_long_before() {
    const N_DEAD: i64 = 2000;
    const N_ROUNDS: i64 = 40;
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let mut reader = world.db.connection().await;
    let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM active_runs";
    reader.batch_execute(snapshot).await.unwrap();
    fill_with_old(&world, N_DEAD).await;
    let driven = format!("UPDATE active_runs SET state = 'running', owner = '{owner}', available_at = NULL");
    let ended = "DELETE FROM active_runs; UPDATE runs SET state = 'succeeded', ended_at = now()";
    world.db.execute(&format!("{driven}; {ended}")).await;
    let began = std::time::Instant::now();
    let n_rows = rows_read(&world.db, async |pool| {
        let store = PgRunStore::new(pool, WakeBus::new());
        for _ in 0..N_ROUNDS {
            let run = world.accept().await;
            assert_eq!(store.claim(owner, ClaimScope::Queue, 10).await.unwrap().len(), 1);
            let wait = store.next_available_in(ClaimScope::Queue).await.unwrap();
            assert!(wait.is_none_or(|wait| !wait.is_zero()), "{wait:?}");
            assert_eq!(store.claim_ending(owner, ClaimScope::Queue, 10).await.unwrap(), []);
            assert_eq!(store.list_signalled(owner, &[run]).await.unwrap(), []);
        }
    })
    .await;
    // A full scan comes first; then two a second by claims, and five by polls that only ask.
    let n_whole = 3 + i64::try_from(began.elapsed().as_millis() / 130).unwrap();
    assert!(
        n_rows < (n_whole + 1) * N_DEAD,
        "{N_ROUNDS} rounds read {n_rows}, with {n_whole} looks at everything"
    );
    reader.batch_execute("COMMIT").await.unwrap();
}

/// It is before the scan window of claims, and must not wait for the next scan of the whole queue.
#[tokio::test]
async fn a_requeued_run_is_claimed_in_its_turn_whatever_its_age() {
    let world = World::new().await;
    let (here, there) = (world.begin_instance().await, world.begin_instance().await);
    fill_with_old(&world, 1).await;
    let claim = world.store.claim(there, ClaimScope::Queue, 1).await.unwrap().remove(0).claim;
    let store = PgRunStore::new(world.pool.clone(), WakeBus::new());
    // The first finds the end, and was a look at the whole queue.
    assert_eq!(store.claim(here, ClaimScope::Queue, 10).await.unwrap(), []);
    let back = Checkpoint {
        claim,
        first_seq: 2,
        records: vec![],
        release: Some(Release::Requeue),
        frees: Vec::new(),
    };
    world.store.commit(&[back]).await.unwrap().remove(0).unwrap();
    let urgent = NewRun { priority: 10, ..world.new_run().await };
    store.enqueue(urgent.clone()).await.unwrap();
    let later = world.accept().await;
    for run in [urgent.id, claim.run, later] {
        let claimed = store.claim(here, ClaimScope::Queue, 1).await.unwrap();
        assert_eq!(claimed.iter().map(|run| run.claim.run).collect::<Vec<_>>(), [run]);
    }
}

#[tokio::test]
async fn the_next_available_run_may_be_a_requeued_one() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    fill_with_old(&world, 1).await;
    let claim = world.store.claim(owner, ClaimScope::Queue, 10).await.unwrap().remove(0).claim;
    let wait = world.store.next_available_in(ClaimScope::Queue).await.unwrap();
    assert!(wait.is_none_or(|wait| !wait.is_zero()), "{wait:?}");
    let back = Checkpoint {
        claim,
        first_seq: 2,
        records: vec![],
        release: Some(Release::Requeue),
        frees: Vec::new(),
    };
    world.store.commit(&[back]).await.unwrap().remove(0).unwrap();
    assert_eq!(
        world.store.next_available_in(ClaimScope::Queue).await.unwrap(),
        Some(std::time::Duration::ZERO)
    );
}

/// Runs that were accepted a minute ago, and whose deadline has passed since.
pub async fn fill_with_old(world: &World, n_runs: i64) {
    let graph = world.new_run().await.graph;
    let old = format!(
        "INSERT INTO runs (id, project_id, graph_digest, kind, input, created_at, deadline_at)
             SELECT overlay(uuid_v7_floor(at)::text placing lpad(n::text, 12, '0') from 25)::uuid, '{}',
                 decode('{graph}', 'hex'), 'pipeline', '{{}}', at, at + interval '5 s'
             FROM generate_series(1, {n_runs}) AS n, LATERAL (SELECT now() - interval '1 minute' AS at) AS time;
         {ACTIVATE}",
        world.project
    );
    world.db.execute(&old).await;
}

/// Every call of a model or a tool asks for its budget, and most projects have none.
#[tokio::test]
async fn a_call_reads_no_run_but_those_that_its_budget_knows() {
    let world = World::new().await;
    let graph = world.new_run().await.graph;
    let fill = format!(
        "INSERT INTO runs (id, project_id, graph_digest, kind, input, state, ended_at)
             SELECT gen_random_uuid(), '{}', decode('{graph}', 'hex'), 'pipeline', '{{}}',
                 CASE WHEN n % 2 = 0 THEN 'succeeded' END, CASE WHEN n % 2 = 0 THEN now() END
             FROM generate_series(1, 10000) AS n;
         {ACTIVATE};
         UPDATE active_runs SET state = 'waiting', waiting_for = 'budget_exceeded', available_at = NULL;",
        world.project
    );
    world.db.execute(&fill).await;
    let run = world.accept().await;
    let call = Call { project: world.project, run, key: "a" };
    for statistics in ["SELECT 1", OF_EMPTY_TABLES, ANALYZE] {
        world.db.execute(statistics).await;
        let n_rows = rows_read(&world.db, async |pool| {
            let budgets = PgBudgetLedger::new(pool, WakeBus::new());
            let grant = budgets.reserve(call, &[(Resource::Tokens, 1)].into()).await.unwrap();
            assert_eq!(grant, Grant::Unbounded);
        })
        .await;
        assert!(n_rows <= 2, "{n_rows} without a budget, after {statistics}");
    }
    let budget = format!(
        "INSERT INTO budgets (id, project_id, resource, amount) VALUES (gen_random_uuid(), '{}', 'tokens', 1);
         INSERT INTO budget_reservations (budget_id, run_id, effect_key, amount, is_granted)
             SELECT budgets.id, waiter.id, 'a', 9, false
             FROM budgets, (SELECT id FROM all_runs WHERE state = 'waiting' LIMIT 5) AS waiter",
        world.project
    );
    world.db.execute(&budget).await;
    for statistics in ["SELECT 1", OF_EMPTY_TABLES, ANALYZE] {
        world.db.execute(statistics).await;
        let n_rows = rows_read(&world.db, async |pool| {
            let budgets = PgBudgetLedger::new(pool, WakeBus::new());
            let grant = budgets.reserve(call, &[(Resource::Tokens, 1)].into()).await.unwrap();
            assert_eq!(grant, Grant::Reserved(vec![Resource::Tokens]));
            budgets.settle(call, &Amounts::new()).await.unwrap();
        })
        .await;
        assert!((1..=150).contains(&n_rows), "{n_rows} with a budget, after {statistics}");
    }
}

async fn uuid_of(fixture: &Fixture, name: &str) -> uuid::Uuid {
    let half = |from| format!("SELECT ('x' || substr(md5('{name}'), {from}, 16))::bit(64)::bigint");
    let high = count(&fixture.db, &half(1)).await.cast_unsigned();
    let low = count(&fixture.db, &half(17)).await.cast_unsigned();
    uuid::Uuid::from_u64_pair(high, low)
}

fn hex(text: &str) -> String {
    digest(text).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
