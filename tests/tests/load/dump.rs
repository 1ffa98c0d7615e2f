//! A dump that is open for long delays the maintenance of the journal, and no run.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gathering_e2e::{
    Database, Load, Process, Several, all_succeeded, begin, check_stored, pipeline, soak, wait_until,
};

use crate::MACHINE;

const LIMIT: Duration = Duration::from_secs(120);

/// A week that is long over, and a run of it.
const OLD_WEEK: &str = "CREATE TABLE run_journal_20250106 PARTITION OF run_journal \
                        FOR VALUES FROM (uuid_v7_floor('2025-01-06Z')) TO (uuid_v7_floor('2025-01-13Z'));
                        INSERT INTO run_journal (run_id, seq, kind, epoch) VALUES (uuid_v7_floor('2025-01-07Z'), 1, 'ended', 1)";

/// Takes the last week away, so that a server that starts has to make it.
const DROP_LAST_WEEK: &str = "DO $$ BEGIN EXECUTE 'DROP TABLE ' || (SELECT max(relname) FROM pg_class WHERE relname ~ '^run_journal_[0-9]{8}$' \
     AND relnamespace = current_schema()::regnamespace); END $$";

#[tokio::test(flavor = "multi_thread")]
async fn runs_go_on_while_a_dump_is_open_and_weeks_are_made_and_dropped() -> Result<()> {
    let _machine = MACHINE.write().await;
    let (n_clients, length) = soak((2, Duration::from_secs(4)), (12, Duration::from_secs(300)));
    let database = Database::empty().await?;
    let migrated = Process::start(&mut database.command(&["migrate"])?)?.end(LIMIT).await?;
    ensure!(migrated.code == Some(0), "{migrated:?}");
    let session = database.session().await?;
    session.batch_execute(OLD_WEEK).await?;
    session.batch_execute(DROP_LAST_WEEK).await?;
    let weeks =
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'run_journal'::regclass AND NOT inhdetachpending";
    let n_weeks: i64 = session.query_one(weeks, &[]).await?.get(0);

    let dump = database.session().await?;
    let read = "SET application_name = 'nightly dump'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM run_journal";
    dump.batch_execute(read).await?;
    let begun = Instant::now();
    let mut servers = Several::start(&database, 1, |command| {
        command.env("GATHERING_RETENTION_JOURNAL_DAYS", "30").env("GATHERING_DB_POOL_SIZE", "6");
    })
    .await?;
    let id = servers.client(0).create_pipeline(&pipeline(&[begin()], &[])).await?;
    let load = Load::start(servers.clients(), &id, n_clients);
    load.accepted_more(10, LIMIT).await?;
    // What it has to do at the start, once more while runs go on.
    servers.add(&database).await?;
    wait_until(LIMIT, "the log says who delays the maintenance", async || {
        let log = servers.server(0).log();
        let delayed = log.lines().find(|line| line.contains("dropping old journals failed"));
        match delayed {
            Some(line) if line.contains("nightly dump") && line.contains("lock timeout") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    while begun.elapsed() < length {
        load.accepted_more(10, LIMIT).await?;
    }
    let took = begun.elapsed();
    let accepted = load.end().await?;
    all_succeeded(&session, LIMIT).await?;
    check_stored(&session, &accepted).await?;
    report(accepted.len(), took);

    let now_weeks: i64 = session.query_one(weeks, &[]).await?.get(0);
    ensure!(now_weeks == n_weeks, "the last week was made, and the old one detached: {now_weeks}, {n_weeks}");
    let slowest = "SELECT max(extract(epoch FROM ended_at - created_at))::float8 FROM all_runs";
    let slowest: f64 = session.query_one(slowest, &[]).await?.get(0);
    ensure!(slowest < 2.0, "a run took {slowest} s");
    dump.batch_execute("COMMIT").await?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a figure for runs with --nocapture")]
fn report(n_runs: usize, took: Duration) {
    println!("{:.0} runs a second beside an open dump", n_runs as f64 / took.as_secs_f64());
}
