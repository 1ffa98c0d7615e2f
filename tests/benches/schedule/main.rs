//! How late schedules fire, against a drain of as many runs that were simply queued, measured in the same run.
//!
//! `cargo xtask bench schedule` starts this with a database and the server. The result is a table in Markdown on standard
//! output; progress goes to standard error. docs/benchmarks.md explains the lines.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use gathering_e2e::{Client, Database, Server, begin, pipeline, wait_until};
use serde_json::json;
use tokio_postgres::Client as Session;

/// More than anything here takes.
const LIMIT: Duration = Duration::from_secs(120);

/// How long an instance is watched between two due times.
const IDLE: Duration = Duration::from_secs(20);

/// Benchmarks of schedules.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask bench schedule --")]
struct Settings {
    /// How many schedules are due together, one line each
    #[arg(long, value_delimiter = ',', default_value = "1,200,10000")]
    due: Vec<i32>,
    /// Rounds of each line; the medians are shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// What `cargo bench` passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// Milliseconds after the due time, or after the runs were queued.
#[derive(Debug, Clone, Copy, Default)]
struct Lags {
    accepted_last: f64,
    started_median: f64,
    started_p99: f64,
    started_last: f64,
}

fn main() -> Result<()> {
    let settings = Settings::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(&settings))
}

#[expect(clippy::print_stdout, reason = "the table is the result of the benchmark")]
async fn measure(settings: &Settings) -> Result<()> {
    println!(
        "| due together | accepted, last | started, p50 | started, p99 | started, last | limit: drain, last started | ratio |"
    );
    println!("|---|---|---|---|---|---|---|");
    for n_due in &settings.due {
        let (mut fired, mut drained) = (Vec::new(), Vec::new());
        for _ in 0..settings.rounds {
            fired.push(fire(*n_due).await?);
            drained.push(drain(*n_due).await?);
            eprintln!("{n_due}: {:?} beside {:?}", fired.last(), drained.last());
        }
        let of = |lags: &[Lags], get: fn(&Lags) -> f64| median(lags.iter().map(get).collect());
        let (last, limit) = (of(&fired, |lags| lags.started_last), of(&drained, |lags| lags.started_last));
        println!(
            "| {n_due} | {:.1} ms | {:.1} ms | {:.1} ms | {last:.1} ms | {limit:.1} ms | {:.2} |",
            of(&fired, |lags| lags.accepted_last),
            of(&fired, |lags| lags.started_median),
            of(&fired, |lags| lags.started_p99),
            last / limit,
        );
    }
    let n_statements = idle(settings.due.iter().copied().max().unwrap_or(1)).await?;
    println!("\nStatements about schedules in {} s between two due times: {n_statements}", IDLE.as_secs());
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

async fn stand() -> Result<(Database, Server, Client, Session, String)> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let client = server.client().join("ada@example.org").await?;
    let pipeline = client.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let session = database.session().await?;
    Ok((database, server, client, session, pipeline))
}

/// A schedule that is due in a year.
async fn create_yearly(client: &Client, pipeline: &str) -> Result<()> {
    let body = json!({
        "name": "yearly", "trigger": {"type": "cron", "expression": "@yearly"},
        "action": {"action": "execute_pipeline", "pipeline_id": pipeline},
    });
    client.post("/api/v1/schedules", &body).await?.expect(201)?;
    Ok(())
}

/// Copies the schedule, each due once in so long.
async fn multiply(session: &Session, n_due: i32, due_in: &str) -> Result<()> {
    let sql = "INSERT INTO schedules (id, project_id, name, trigger, action, pipeline_id, catch_up, overlap, passed_at, \
        next_due_at, next_fire_at, look_at) \
        SELECT gen_random_uuid(), project_id, 'copy', json_build_object('type', 'once', 'at', \
            to_char(due AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')), \
            action, pipeline_id, catch_up, overlap, now(), due, due, due \
        FROM schedules, date_trunc('second', now() + $1::text::interval) AS due, generate_series(1, $2) \
        WHERE name = 'yearly'";
    session.execute(sql, &[&due_in, &n_due]).await?;
    session.batch_execute("ANALYZE schedules").await?;
    Ok(())
}

/// So many schedules, due together.
async fn fire(n_due: i32) -> Result<Lags> {
    let (_database, _server, client, session, pipeline) = stand().await?;
    create_yearly(&client, &pipeline).await?;
    multiply(&session, n_due, "4 seconds").await?;
    // Tells the loop of the copies.
    create_yearly(&client, &pipeline).await?;
    let due: f64 = session
        .query_one(
            "SELECT extract(epoch FROM min(next_due_at))::float8 FROM schedules WHERE name = 'copy'",
            &[],
        )
        .await?
        .get(0);
    lags(&session, n_due, due).await
}

/// So many runs, queued by one statement.
async fn drain(n_runs: i32) -> Result<Lags> {
    let (_database, _server, client, session, pipeline) = stand().await?;
    let run = client.start_run(&pipeline).await?;
    client.run_in(&run, &["succeeded"], LIMIT).await?;
    let sql = "WITH queued AS ( \
            INSERT INTO runs (id, project_id, graph_digest, kind, trigger, pipeline_id, pipeline_version, schedule_id, input) \
            SELECT overlay(gen_random_uuid()::text placing left(id::text, 15) from 1 for 15)::uuid, project_id, graph_digest, \
                kind, trigger, pipeline_id, pipeline_version, id, input FROM runs, generate_series(1, $1) \
            RETURNING id, project_id, priority) \
        INSERT INTO active_runs (run_id, project_id, priority) SELECT id, project_id, priority FROM queued";
    session.execute(sql, &[&n_runs]).await?;
    let queued: f64 =
        session.query_one("SELECT extract(epoch FROM clock_timestamp())::float8", &[]).await?.get(0);
    client.start_run(&pipeline).await?;
    lags(&session, n_runs, queued).await
}

/// What became of the runs with a schedule, counted from `since`.
async fn lags(session: &Session, n_runs: i32, since: f64) -> Result<Lags> {
    let began = Instant::now();
    wait_until(LIMIT, "every run has ended", async || {
        let sql = "SELECT count(*) FROM all_runs WHERE schedule_id IS NOT NULL AND ended_at IS NOT NULL";
        let row = session.query_one(sql, &[]).await.map_err(|error| error.to_string())?;
        // The question must not be in the way of the answer.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let n: i64 = row.get(0);
        if n == i64::from(n_runs) {
            Ok(())
        } else {
            Err(format!("{n} of {n_runs} after {:?}", began.elapsed()))
        }
    })
    .await?;
    let sql = "SELECT \
        1000 * (extract(epoch FROM max(coalesce(fired_at, created_at)))::float8 - $1), \
        1000 * (percentile_disc(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM started_at)::float8) - $1), \
        1000 * (percentile_disc(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM started_at)::float8) - $1), \
        1000 * (max(extract(epoch FROM started_at)::float8) - $1) \
        FROM runs LEFT JOIN schedule_fires ON run_id = runs.id WHERE runs.schedule_id IS NOT NULL";
    let row = session.query_one(sql, &[&since]).await?;
    Ok(Lags {
        accepted_last: row.get(0),
        started_median: row.get(1),
        started_p99: row.get(2),
        started_last: row.get(3),
    })
}

/// How many statements an instance sends about schedules while nothing is due.
async fn idle(n_schedules: i32) -> Result<i64> {
    let (_database, _server, client, session, pipeline) = stand().await?;
    create_yearly(&client, &pipeline).await?;
    multiply(&session, n_schedules, "1 hour").await?;
    create_yearly(&client, &pipeline).await?;
    let scans = "SELECT coalesce(seq_scan, 0) + coalesce(idx_scan, 0) FROM pg_stat_user_tables \
                 WHERE relname = 'schedules' AND schemaname = current_schema()";
    // A backend publishes its counts up to ten seconds late.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let count = async || -> Result<i64> {
        session.batch_execute("SELECT pg_stat_clear_snapshot()").await?;
        Ok(session.query_opt(scans, &[]).await?.context("no statistics")?.get(0))
    };
    let before = count().await?;
    tokio::time::sleep(IDLE).await;
    Ok(count().await? - before)
}
