//! The server as a process of its own: how soon it begins, and what it does when there is nothing to do.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gathering_e2e::{Answer, Client, Database, Peer, Process, Server, call, pipeline};
use serde_json::json;

use crate::bare::Commits;
use crate::table::{Figure, Report, quantile};

const LIMIT: Duration = Duration::from_secs(30);

/// Between two requests at low load.
const PAUSE: Duration = Duration::from_millis(20);

/// How many runs warm the server up: each statement is planned anew five times before its plan is kept.
const N_FIRST: usize = 20;

/// What a start does that is over after this time.
const SETTLED: Duration = Duration::from_secs(10);

/// How long it takes to begin a run, one after the other.
#[derive(Default)]
struct Beginnings {
    /// From the request to the answer 202.
    accepted: Vec<Duration>,
    /// From the answer to the first node's request at its peer; none where that came first.
    since_accepted: Vec<Duration>,
    /// From the request to the first node's request at its peer.
    since_asked: Vec<Duration>,
    /// The same database, asked for one minimal commit beside each of them.
    commits: Vec<Duration>,
}

/// From the answer 202 to the first node's request at its peer, one run after the other.
pub(crate) async fn first_node(n_runs: usize, report: &mut Report) -> Result<()> {
    eprintln!("{n_runs} runs over HTTP");
    let database = Database::empty().await?;
    let server = Server::start_with(&database, |command| {
        command
            .env("GATHERING_RATE_LIMITS", "off")
            .env("GATHERING_LOG", "info")
            .env("GATHERING_OUTBOUND_ALLOW", "127.0.0.0/8");
    })
    .await?;
    let peer = Peer::start(|_| Answer::now(200, json!({}))).await?;
    let client = server.client().join("ada@example.org").await?;
    let definition = pipeline(&[call("first", &peer.url("/"))], &[]);
    let path = format!("/api/v1/pipelines/{}/runs", client.create_pipeline(&definition).await?);
    let session = Arc::new(database.session().await?);
    let commits = Commits::prepare(&session).await?;
    let times = begin(&client, &path, &peer, &commits, n_runs).await?;
    let limit = quantile(&times.commits, 0.5)?;
    for (q, name) in [(0.5, "p50"), (0.99, "p99")] {
        let figures = [
            (&times.accepted, "accepting a run over HTTP"),
            (&times.since_accepted, "from accepted to its first node's request"),
            (&times.since_asked, "from asking to its first node's request"),
        ];
        for (times, what) in figures {
            report.add(format!("{what}, {name}"), quantile(times, q)?, ("one minimal commit, p50", limit));
        }
    }
    Ok(())
}

/// The first ones of all plan the statements and fill the caches; they are not counted, as there are few in a server's life.
async fn begin(
    client: &Client,
    path: &str,
    peer: &Peer,
    commits: &Commits,
    n_runs: usize,
) -> Result<Beginnings> {
    let mut times = Beginnings::default();
    for number in 0..N_FIRST + n_runs {
        tokio::time::sleep(PAUSE).await;
        let commit = commits.write(1).await?;
        tokio::time::sleep(PAUSE).await;
        let (asked, answered) = ask(client.clone(), path.to_owned()).await?;
        peer.asked(number + 1, LIMIT).await?;
        let started = peer.requests()[number].at;
        if number >= N_FIRST {
            times.accepted.push(answered - asked);
            times.since_accepted.push(started.saturating_duration_since(answered));
            times.since_asked.push(started - asked);
            times.commits.push(commit);
        }
    }
    Ok(times)
}

/// Starts one run; answers when it was asked for, and when it was accepted. On a task, as the bare commits are: the main
/// thread is no worker of the runtime, and would have to be woken for the answer.
async fn ask(client: Client, path: String) -> Result<(Instant, Instant)> {
    tokio::spawn(async move {
        let asked = Instant::now();
        client.post(&path, &json!({})).await?.expect(202)?;
        Ok((asked, Instant::now()))
    })
    .await?
}

/// The start on an existing database, and what an idle instance asks and holds.
pub(crate) async fn idle(n_starts: usize, seconds: u64, report: &mut Report) -> Result<()> {
    eprintln!("starting and idling");
    let database = Database::empty().await?;
    // Makes the schema.
    drop(start(&database).await?);
    let mut times = Vec::new();
    for _ in 0..n_starts {
        times.push(start(&database).await?.1);
    }
    report.add(
        "from exec to ready on an existing database, p50",
        quantile(&times, 0.5)?,
        goal(Figure::Time(Duration::from_millis(150))),
    );
    let session = database.session().await?;
    // PostgreSQL clears up by itself, in transactions that count as well: as little as can be, and what is left is known.
    session.batch_execute("VACUUM ANALYZE").await?;
    let by_itself = transactions_a_day(&session, seconds).await?;
    let (process, _) = start(&database).await?;
    tokio::time::sleep(SETTLED).await;
    let per_day = (transactions_a_day(&session, seconds).await? - by_itself).max(0.0);
    report.add(
        "transactions of an idle instance a day",
        Figure::Count(per_day),
        goal(Figure::Count(10_000.0)),
    );
    let resident = resident_bytes(process.id())?;
    report.add("resident memory of an idle instance", Figure::Bytes(resident), goal(Figure::Bytes(40e6)));
    Ok(())
}

/// How many transactions of this database end in some seconds, extrapolated.
async fn transactions_a_day(session: &tokio_postgres::Client, seconds: u64) -> Result<f64> {
    let sql = "SELECT (xact_commit + xact_rollback)::float8 FROM pg_stat_database WHERE datname = current_database()";
    let before: f64 = session.query_one(sql, &[]).await?.get(0);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after: f64 = session.query_one(sql, &[]).await?.get(0);
    // The first of our own two is in the difference.
    Ok((after - before - 1.0) / seconds as f64 * 86_400.0)
}

fn goal(figure: Figure) -> (&'static str, Figure) {
    ("the goal", figure)
}

/// A server on a port that was free just now, and how long it took to be ready.
async fn start(database: &Database) -> Result<(Process, Duration)> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let mut command = database.command(&["serve"])?;
    command.env("GATHERING_BIND", &address).env("GATHERING_LOG", "info");
    let client = Client::new(format!("http://{address}"))?;
    let begin = Instant::now();
    let mut process = Process::start(&mut command)?;
    loop {
        if let Ok(reply) = client.get("/health/ready").await
            && reply.status == 200
        {
            return Ok((process, begin.elapsed()));
        }
        ensure!(
            process.is_running() && begin.elapsed() < LIMIT,
            "the server is not ready: {}",
            process.stderr()
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn resident_bytes(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0)
}
