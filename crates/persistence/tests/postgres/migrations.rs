//! The migrations: there and back on filled tables, by several at once, and the rules that every table follows.

use crate::accounts::create_account;
use crate::common::{World, count, wait_until};
use crate::projects::projects;
use gathering_auth::{AccountStore, RoleAtCreation};
use gathering_control::testing::session_caller;
use gathering_dag_engine::{ClaimScope, RunStore};
use gathering_domain::{Email, RunKind, RunState, WaitingFor};
use gathering_persistence::testing::TestDb;
use gathering_persistence::{
    MigrateError, Migrator, PgAccountStore, drop_journal_before, ensure_journal_partitions,
};
use serde_json::json;

/// Every table of the schema that is not a partition.
const TABLES: &str = "FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') \
                      AND NOT relispartition AND relname <> '__diesel_schema_migrations'";

/// Puts at least one row into every table.
async fn fill(world: &World) {
    let owner = world.begin_instance().await;
    let run = world.accept().await;
    world.store.claim(owner, ClaimScope::Queue, 1).await.unwrap();
    world.insert_pipeline(&json!({"nodes": [{"id": "a", "type": "trigger"}]})).await;
    let sql = format!(
        "INSERT INTO users (id, email, name, password_hash, role)
             VALUES (gen_random_uuid(), 'ada@example.org', 'Ada', 'x', 'admin');
         INSERT INTO refresh_tokens (token_hash, session_id, user_id, expires_at)
             SELECT decode(repeat('ab', 32), 'hex'), gen_random_uuid(), id, now() FROM users;
         INSERT INTO revoked_tokens (token_id, user_id, expires_at) SELECT gen_random_uuid(), id, now() FROM users;
         INSERT INTO api_keys (id, user_id, name, secret_hash, scopes)
             SELECT gen_random_uuid(), id, 'k', decode(repeat('cd', 32), 'hex'), '{{}}' FROM users;
         INSERT INTO idempotency_keys (user_id, key, kind, digest, created_id)
             SELECT id, 'k', 'pipeline', decode(repeat('01', 32), 'hex'), gen_random_uuid() FROM users;
         INSERT INTO login_throttles (key, spent_until) VALUES (decode(repeat('01', 32), 'hex'), now());
         INSERT INTO audit_events (id, type) VALUES (gen_random_uuid(), 'login_succeeded');
         INSERT INTO project_members (project_id, user_id, role)
             SELECT projects.id, users.id, 'owner' FROM projects, users;
         INSERT INTO run_journal (run_id, seq, kind, epoch) VALUES ('{run}', 1, 'node_started', 1);
         INSERT INTO blobs (digest, content) VALUES (decode(repeat('ef', 32), 'hex'), 'x');
         INSERT INTO budgets (id, project_id, resource, amount)
             SELECT gen_random_uuid(), id, 'tokens', 1 FROM projects;
         INSERT INTO budget_reservations (budget_id, run_id, effect_key, amount) SELECT id, '{run}', 'e', 1 FROM budgets;
         INSERT INTO circuit_breakers (pipeline_id, node_id) SELECT id, 'a' FROM pipelines;
         INSERT INTO child_runs (run_id, parent_run_id, node_id, round, item, root_run_id)
             VALUES ('{run}', '{run}', 'a', 0, 0, '{run}');
         INSERT INTO node_decisions (run_id, node_id, approve, decided_by, decided_as)
             SELECT '{run}', 'a', true, id, email FROM users;
         INSERT INTO node_questions (id, run_id, node_id, attempt, owner, epoch, tool, asked_by, message, url, answer,
                 decided_by, decided_as, decided_at)
             SELECT gen_random_uuid(), '{run}', 'a', 1, gen_random_uuid(), 1, 't', 's', 'm', 'https://example.org/',
                 'accepted', id, email, now() FROM users;
         INSERT INTO agents (id, project_id, version, created_at, updated_at)
             SELECT gen_random_uuid(), id, 1, now(), now() FROM projects;
         INSERT INTO agent_versions (agent_id, version, definition, created_at)
             SELECT id, 1, '{{}}', now() FROM agents;
         INSERT INTO node_outcomes (run_id, node_id, outcome, reason, decided_by, decided_as)
             SELECT '{run}', 'a', 'repeat', 'r', id, email FROM users;
         INSERT INTO schedules (id, project_id, name, trigger, action, catch_up, overlap, passed_at)
             SELECT gen_random_uuid(), id, 's', '{{}}', '{{}}', 'latest', 'skip', now() FROM projects;
         UPDATE schedules SET days = '{{\"except\": [\"2026-12-25\"]}}',
             calendars = '{{\"files\": {{\"except\": \"holidays.ics\"}}, \"problem\": \"p\"}}';
         INSERT INTO schedule_fires (schedule_id, due_at, outcome, reason)
             SELECT id, now(), 'skipped', 'missed' FROM schedules;
         INSERT INTO idempotency_keys (user_id, key, kind, digest, created_id)
             SELECT id, 'k', 'schedule', decode(repeat('01', 32), 'hex'), gen_random_uuid() FROM users;
         INSERT INTO hooks (id, project_id, name, target, token_hash, scheme, token_header, secrets, max_body_bytes,
                 max_per_minute)
             SELECT gen_random_uuid(), id, 'h', '{{}}', decode(repeat('02', 32), 'hex'), 'token', 'x-hook-token', '{{s}}',
                 1, 1 FROM projects;
         INSERT INTO hooks (id, project_id, name, target, token_hash, scheme, token_header, sealed_secrets, secret_key_ids,
                 max_body_bytes, max_per_minute)
             SELECT gen_random_uuid(), id, 'h', '{{}}', decode(repeat('03', 32), 'hex'), 'token', 'x-hook-token',
                 ARRAY['s'::bytea], '{{k}}', 1, 1 FROM projects;
         INSERT INTO secrets (id, project_id, name, key_id, sealed)
             SELECT gen_random_uuid(), id, 'S', 'k', decode('00', 'hex') FROM projects;
         INSERT INTO mcp_servers (project_id, name, settings, pins) SELECT id, 'm', '{{}}', '{{}}' FROM projects;
         INSERT INTO hook_deliveries (id, hook_id, outcome, size_bytes) SELECT gen_random_uuid(), id, 'accepted', 0 FROM hooks;
         INSERT INTO idempotency_keys (user_id, key, kind, digest, created_id)
             SELECT id, 'k', 'hook', decode(repeat('01', 32), 'hex'), gen_random_uuid() FROM users;
         INSERT INTO runs (id, project_id, graph_digest, kind, input)
             SELECT gen_random_uuid(), project_id, graph_digest, 'action', '{{}}' FROM runs;
         INSERT INTO active_runs (run_id, project_id, priority, state, waiting_for, permit_key)
             SELECT id, project_id, 5, 'waiting', 'concurrency', gen_random_uuid() FROM runs WHERE kind = 'action';
         INSERT INTO runs (id, project_id, graph_digest, kind, input, state, ended_at)
             SELECT gen_random_uuid(), project_id, graph_digest, 'tool', '{{}}', 'failed', now() FROM runs LIMIT 1;
         INSERT INTO unsuccessful_runs (run_id, project_id, state)
             SELECT id, project_id, state FROM runs WHERE ended_at IS NOT NULL;
         INSERT INTO concurrency_keys (id, pipeline_id, key, permits) SELECT gen_random_uuid(), id, 'k', 1 FROM pipelines;
         INSERT INTO permit_requests (run_id, key_id, pipeline_id, key, permits, on_limit, priority, available_at)
             SELECT active_runs.run_id, permit_key, pipelines.id, 'k', 1, 'queue', 5, now()
             FROM active_runs, pipelines WHERE permit_key IS NOT NULL;
         INSERT INTO node_permits (run_id, node_id, key_id, is_held) SELECT run_id, 'a', permit_key, true
             FROM active_runs WHERE permit_key IS NOT NULL;
         INSERT INTO events (project_id, type) SELECT id, 'test' FROM projects;"
    );
    world.db.execute(&sql).await;
    for table in names(&world.db, &format!("SELECT relname::text {TABLES}")).await {
        assert!(
            count(&world.db, &format!("SELECT count(*) FROM {table}")).await > 0,
            "{table} is empty: fill it"
        );
    }
}

async fn names(db: &TestDb, sql: &str) -> Vec<String> {
    use diesel_async::RunQueryDsl;

    #[derive(diesel::QueryableByName)]
    struct Name {
        #[diesel(sql_type = diesel::sql_types::Text)]
        name: String,
    }
    let mut conn = db.connection().await;
    let sql = format!("SELECT name FROM ({sql}) AS found (name) ORDER BY name");
    let rows: Vec<Name> = diesel::sql_query(sql).load(&mut conn).await.unwrap();
    rows.into_iter().map(|row| row.name).collect()
}

#[tokio::test]
async fn up_down_and_up_again_on_filled_tables() {
    let world = World::new().await;
    fill(&world).await;
    let migrator = Migrator::new(world.db.options());
    let objects = "SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace \
                   UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = current_schema()::regnamespace";
    let before = names(&world.db, objects).await;
    assert!(migrator.revert_all().await.unwrap() > 5);
    let left: Vec<String> = names(&world.db, objects)
        .await
        .into_iter()
        .filter(|name| !name.starts_with("__diesel_schema_migrations"))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "down takes back what up made");
    assert!(migrator.run().await.unwrap() > 5);
    assert_eq!(names(&world.db, objects).await, before);
    assert_eq!(migrator.run().await.unwrap(), 0);
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_what_to_do() {
    let db = TestDb::new().await;
    db.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000001')").await;
    let migrator = Migrator::new(db.options());
    let refused = migrator.run().await;
    let Err(MigrateError::NewerSchema { unknown_versions }) = &refused else { panic!("{refused:?}") };
    assert_eq!(unknown_versions, &["29990101000001"]);
    assert!(refused.unwrap_err().to_string().contains("upgrade gathering"));
}

#[tokio::test]
async fn a_schema_from_before_the_baseline_is_refused_with_what_to_do() {
    let db = TestDb::empty().await;
    let old = "CREATE TABLE __diesel_schema_migrations (version varchar(50) PRIMARY KEY, run_on timestamp DEFAULT now());
               INSERT INTO __diesel_schema_migrations (version) VALUES ('20261123000001'), ('20261128000018')";
    db.execute(old).await;
    let migrator = Migrator::new(db.options());
    let refused = migrator.run().await;
    let Err(MigrateError::OlderSchema { unknown_versions }) = &refused else { panic!("{refused:?}") };
    assert_eq!(unknown_versions, &["20261123000001", "20261128000018"]);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("start with an empty database"), "{message}");
    assert_eq!(count(&db, "SELECT count(*) FROM pg_class WHERE relname = 'users' AND relnamespace = current_schema()::regnamespace").await, 0);
}

#[tokio::test]
async fn of_two_that_migrate_at_once_one_does() {
    let db = TestDb::empty().await;
    let migrator = Migrator::new(db.options());
    let pending = migrator.count_pending().await.unwrap();
    let (one, two) = tokio::join!(migrator.run(), migrator.run());
    let mut n_run = [one.unwrap(), two.unwrap()];
    n_run.sort_unstable();
    assert_eq!(n_run, [0, pending]);
    let locks = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' \
                 AND query LIKE '%__diesel_schema_migrations%' AND query NOT LIKE '%pg_locks%'";
    wait_until("the migration locks are free", async || count(&db, locks).await == 0).await;
}

#[tokio::test]
async fn every_project_id_refers_to_the_projects_and_goes_with_them() {
    let db = TestDb::new().await;
    let without = names(
        &db,
        "SELECT c.relname::text FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid \
         WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND a.attname = 'project_id' \
         AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conrelid = c.oid AND k.contype = 'f' \
             AND k.confrelid = 'projects'::regclass AND k.conkey = ARRAY[a.attnum] AND k.confdeltype = 'c')",
    )
    .await;
    // They are written with every run: their project is not checked. Rows of runs go with their runs, and events are taken
    // along when it is deleted.
    assert_eq!(without, ["active_runs", "events", "unsuccessful_runs"]);
}

#[tokio::test]
async fn every_foreign_key_has_an_index_to_find_its_rows_by() {
    let db = TestDb::new().await;
    let without = names(
        &db,
        "SELECT k.conrelid::regclass::text || '.' || k.conname FROM pg_constraint AS k \
         WHERE k.contype = 'f' AND k.connamespace = current_schema()::regnamespace AND k.conparentid = 0 \
         AND NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = k.conrelid AND i.indkey[0] = ANY (k.conkey) \
             AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) LIKE '% IS NOT NULL)'))",
    )
    .await;
    // Accounts are disabled rather than deleted, and graphs are cleared away in bulk: an index would only cost.
    let exempt = ["pipeline_versions.pipeline_versions_created_by_fkey", "runs.runs_graph_digest_fkey"];
    assert_eq!(without, exempt, "deleting what they refer to would scan these tables");
}

#[tokio::test]
async fn the_schema_checks_exactly_the_states_kinds_and_wait_reasons_of_the_types() {
    let db = TestDb::new().await;
    let checked = async |table: &str, constraint: &str| {
        let words = format!(
            "SELECT word[1] FROM pg_constraint, \
                 regexp_matches(pg_get_constraintdef(oid), '''([a-z_]+)''', 'g') AS word \
             WHERE conrelid = '{table}'::regclass AND conname = '{table}_{constraint}_check'"
        );
        names(&db, &words).await
    };
    let sorted = |words: &mut [&'static str]| {
        words.sort_unstable();
        words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>()
    };
    let terminal = RunState::ALL.into_iter().filter(|state| state.is_terminal()).map(RunState::as_str);
    let unsuccessful = terminal.clone().filter(|state| *state != RunState::Succeeded.as_str());
    let active = sorted(&mut RunState::ACTIVE.map(RunState::as_str));
    assert_eq!(checked("active_runs", "state").await, active);
    assert_eq!(checked("runs", "state").await, sorted(&mut terminal.collect::<Vec<_>>()));
    assert_eq!(checked("unsuccessful_runs", "state").await, sorted(&mut unsuccessful.collect::<Vec<_>>()));
    assert_eq!(checked("runs", "kind").await, sorted(&mut RunKind::ALL.map(RunKind::as_str)));
    let reasons = sorted(&mut WaitingFor::ALL.map(WaitingFor::as_str));
    assert_eq!(checked("active_runs", "waiting_for").await, reasons);
}

#[tokio::test]
async fn every_table_has_a_comment() {
    let db = TestDb::new().await;
    let without =
        names(&db, &format!("SELECT relname::text {TABLES} AND obj_description(oid, 'pg_class') IS NULL"))
            .await;
    assert_eq!(without, Vec::<String>::new());
}

#[tokio::test]
async fn deleting_a_project_takes_everything_of_it_along() {
    let world = World::new().await;
    fill(&world).await;
    world.db.execute("DELETE FROM active_runs; UPDATE runs SET state = 'succeeded', ended_at = now()").await;
    let accounts = PgAccountStore::new(world.pool.clone());
    let ada: Email = "ada@example.org".parse().unwrap();
    let ada = accounts.find_account_by_email(&ada).await.unwrap().unwrap().account;
    projects(&world.pool).delete(&session_caller(ada.id, ada.role), world.project).await.unwrap();
    for table in [
        "runs",
        "pipelines",
        "budgets",
        "events",
        "project_members",
        "hooks",
        "hook_deliveries",
        "secrets",
        "mcp_servers",
    ] {
        assert_eq!(world.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
}

#[tokio::test]
async fn the_application_alone_decides_what_lower_case_is() {
    let db = TestDb::new().await;
    let store = PgAccountStore::new(db.pool().await);
    // Letters of which locales hold different opinions.
    for typed in ["\u{130}@example.org", "\u{1E9E}\u{3A3}@EXAMPLE.org", "\u{10A0}@example.org", "\u{1C89}@x"]
    {
        let email: Email = typed.parse().unwrap();
        let created = create_account(&store, email.as_str(), RoleAtCreation::AdminIfFirst).await.unwrap();
        assert_eq!(store.find_account_by_email(&email).await.unwrap().unwrap().account, created);
    }
    // As it would be where PostgreSQL and the application do not agree.
    db.execute("UPDATE users SET email = 'ADA@x' WHERE role = 'admin'").await;
}

#[tokio::test]
async fn partitions_of_the_journal_are_made_ahead_and_stay_while_they_may_be_needed() {
    let world = World::new().await;
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'run_journal'::regclass";
    let before = world.count(partitions).await;
    let other = world.db.pool().await;
    assert_eq!(before, 6, "last week's, this one's, and those of four weeks");
    let (one, two) =
        tokio::join!(ensure_journal_partitions(&world.pool, 6), ensure_journal_partitions(&other, 6));
    assert_eq!(one.unwrap() + two.unwrap(), 2);
    assert_eq!(world.count(partitions).await, before + 2);
    let long_after = chrono::Utc::now() + chrono::Duration::days(365);
    assert_eq!(drop_journal_before(&world.pool, long_after).await.unwrap(), 0, "all may still be needed");
}
