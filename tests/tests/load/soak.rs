//! Runs that are started, cancelled, timed out and failed leave nothing behind in the server that executed them.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gathering_e2e::{
    Answer, Client, Database, Footprint, Metrics, Peer, Server, begin, call, check_journals, pipeline, soak,
    wait_until,
};
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};
use tokio_postgres::Client as Session;

use crate::MACHINE;

const LIMIT: Duration = Duration::from_secs(120);

/// The mark of the server's database sessions.
const APPLICATION: &str = "gathering_soak";

/// How many runs are begun at once.
const AT_ONCE: usize = 16;

/// What the allocator may keep beyond what it kept after the warm-up, in bytes.
const TOLERANCE_BYTES: u64 = 8 * 1024 * 1024;

/// The ways in which a run can end here; each has its pipeline.
const KINDS: [(&str, &str); 6] = [
    ("it succeeds", "succeeded"),
    ("its call hangs and it is cancelled", "cancelled"),
    ("it is cancelled as soon as it is accepted", "cancelled"),
    ("it waits and is cancelled", "cancelled"),
    ("its call hangs until its deadline", "timed_out"),
    ("its call fails, twice", "failed"),
];

fn definitions(peer: &Peer) -> [Value; 6] {
    let one = |path: &str| {
        let mut call = call("a", &peer.url(path));
        // Longer than this test waits: a call that hangs ends with its run, or is found.
        call["config"]["timeout_seconds"] = json!(600);
        pipeline(&[begin(), call], &[("begin", "a")])
    };
    let delay = json!({"id": "a", "type": "delay", "config": {"seconds": 3600}});
    let mut late = one("/hang");
    late["timeout_seconds"] = json!(0.2);
    let mut bad = one("/bad");
    bad["nodes"][1]["retry"] = json!({"max_attempts": 2, "initial_backoff_ms": 10});
    [one("/good"), one("/hang"), one("/hang"), pipeline(&[begin(), delay], &[("begin", "a")]), late, bad]
}

/// Starts one run and, where it is of such a kind, asks for its end.
async fn begin_one(client: &Client, pipelines: &[String], number: usize) -> Result<()> {
    let kind = number % KINDS.len();
    let run = client.start_run(&pipelines[kind]).await?;
    match kind {
        1 => drop(client.run_in(&run, &["running"], LIMIT).await?),
        2 => {}
        3 => drop(client.run_in(&run, &["waiting"], LIMIT).await?),
        _ => return Ok(()),
    }
    client.post(&format!("/api/v1/runs/{run}/cancel"), &json!({})).await?.expect(202)?;
    Ok(())
}

/// Begins runs of all kinds, and waits until all have ended as they should; no connection of this is left.
async fn round(
    ada: &Client,
    server: &Server,
    pipelines: &[String],
    n_runs: usize,
    session: &Session,
) -> Result<()> {
    let client =
        Client::new(format!("http://{}", server.address()))?.with_token(ada.token().context("no token")?);
    let earlier: i64 = session.query_one("SELECT count(*) FROM all_runs", &[]).await?.get(0);
    // Several at once, on this thread.
    let starters = async {
        let mut starters = JoinSet::new();
        for starter in 0..AT_ONCE {
            let (client, pipelines) = (client.clone(), pipelines.to_vec());
            starters.spawn_local(async move {
                for number in (starter..n_runs).step_by(AT_ONCE) {
                    begin_one(&client, &pipelines, number).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = starters.join_next().await {
            ended??;
        }
        anyhow::Ok(())
    };
    LocalSet::new().run_until(starters).await?;
    let live = "SELECT count(*) FROM all_runs WHERE ended_at IS NULL";
    wait_until(LIMIT, "every run has ended", async || match session.query_one(live, &[]).await {
        Ok(row) if row.get::<_, i64>(0) == 0 => Ok(()),
        Ok(row) => Err(format!("{} have not", row.get::<_, i64>(0))),
        Err(error) => Err(error.to_string()),
    })
    .await?;
    let all: i64 = session.query_one("SELECT count(*) FROM all_runs", &[]).await?.get(0);
    ensure!(all - earlier == i64::try_from(n_runs)?, "{all} runs after {earlier}");
    for (pipeline, (kind, state)) in pipelines.iter().zip(KINDS) {
        let other = "SELECT count(*) FROM all_runs WHERE pipeline_id::text = $1 AND state <> $2";
        let n_other: i64 = session.query_one(other, &[pipeline, &state]).await?.get(0);
        ensure!(n_other == 0, "{kind}, and yet {n_other} runs are not {state}");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a figure for runs with --nocapture")]
fn report(when: &str, footprint: &Footprint) {
    println!("{when}: {footprint}");
}

/// More than the server needs for any number of items, in bytes.
const MOST_BYTES_OF_A_MAP: u64 = 200 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_map_over_10_000_items_needs_bounded_memory_and_gives_their_outputs_in_order() -> Result<()> {
    const N_ITEMS: usize = 10_000;
    let _machine = MACHINE.read().await;
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let graph =
        json!({"nodes": [{"id": "a", "type": "parallel"}], "output": "{'at': index, 'twice': item * 2}"});
    let config = json!({"items": format!("lists.range({N_ITEMS})"), "graph": graph, "max_concurrency": 200});
    let each = json!({"id": "each", "type": "map", "config": config});
    let run = ada.start_run(&ada.create_pipeline(&pipeline(&[each], &[])).await?).await?;
    let session = database.session().await?;
    let mut most: Option<Footprint> = None;
    let state = "SELECT (SELECT state FROM all_runs WHERE id::text = $1), \
                 (SELECT count(*) FROM all_runs WHERE parent_run_id::text = $1 AND state = 'succeeded')";
    wait_until(LIMIT * 3, "the map has ended", async || {
        let now = Footprint::of(&server, "", &session).await.map_err(|error| format!("{error:#}"))?;
        if most.as_ref().is_none_or(|most| most.resident_bytes < now.resident_bytes) {
            most = Some(now);
        }
        let row = session.query_one(state, &[&run]).await.map_err(|error| error.to_string())?;
        let (state, n_ended): (String, i64) = (row.get(0), row.get(1));
        if matches!(state.as_str(), "queued" | "running" | "waiting") {
            Err(format!("it is {state}, and {n_ended} items have ended"))
        } else {
            Ok(())
        }
    })
    .await?;
    let most = most.context("nothing was measured")?;
    report("at its most", &most);
    assert!(most.resident_bytes < MOST_BYTES_OF_A_MAP, "{most}");
    let ended = ada.run_in(&run, &["succeeded"], LIMIT).await?;
    let outputs = ended["output"]["each"].as_array().context("no list")?;
    assert_eq!(outputs.len(), N_ITEMS);
    for (at, output) in outputs.iter().enumerate() {
        assert_eq!(*output, json!({"at": at, "twice": 2 * at}));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_runs_that_ended_in_every_way_leave_nothing_behind() -> Result<()> {
    let _machine = MACHINE.read().await;
    let (n_warm_up, n_runs) = soak((120, 240), (600, 2000));
    let database = Database::empty().await?;
    let url = database.url()?;
    let server = Server::start_with(&database, |command: &mut Command| {
        // A small pool is full after the warm-up, and stays so.
        command.env("GATHERING_DB_POOL_SIZE", "4");
        command.env("DATABASE_URL", format!("{url}&application_name={APPLICATION}"));
    })
    .await?;
    let peer = Peer::start(|request| match request.path.as_str() {
        "/hang" => Answer::held(json!({})),
        "/bad" => Answer::now(503, json!({})),
        _ => Answer::now(200, json!({})),
    })
    .await?;
    let ada = server.client().join("ada@example.org").await?;
    let mut pipelines = Vec::new();
    for definition in definitions(&peer) {
        pipelines.push(ada.create_pipeline(&definition).await?);
    }
    let session = database.session().await?;
    round(&ada, &server, &pipelines, n_warm_up, &session).await?;
    let before = Footprint::at_rest(&server, APPLICATION, &session, LIMIT).await?;
    report("after the warm-up", &before);
    assert!(before.n_sessions >= 2 && before.n_locks == 1, "{before}");

    round(&ada, &server, &pipelines, n_runs, &session).await?;
    let after = wait_until(LIMIT, "the server holds no more than before", async || {
        let now =
            Footprint::of(&server, APPLICATION, &session).await.map_err(|error| format!("{error:#}"))?;
        if now.is_held_by(&before) { Ok(now) } else { Err(format!("{now}; before: {before}")) }
    })
    .await?;
    report(&format!("after {n_runs} more runs"), &after);
    let most_bytes = before.resident_bytes + TOLERANCE_BYTES;
    assert!(after.resident_bytes <= most_bytes, "{after}; before: {before}");
    assert_eq!(after.n_locks, 1, "it is still itself: {after}");
    let driven = Metrics::read(server.client()).await?.sum("gathering_runs_driven", &[]);
    assert_eq!(driven, 0.0, "runs are driven though all have ended");
    // The first ones hung for as long as the others came and went.
    wait_until(LIMIT, "every call that hung is given up", async || {
        let n_open = peer.requests_to("/hang").iter().filter(|request| !request.is_given_up).count();
        if n_open == 0 { Ok(()) } else { Err(format!("{n_open} are open")) }
    })
    .await?;
    check_journals(&session).await
}
