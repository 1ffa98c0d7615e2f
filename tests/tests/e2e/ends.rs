//! A run's end that somebody asks for, or that a time brings, comes at once and on whichever instance: nothing of the run
//! executes afterwards.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gathering_e2e::{
    Answer, Client, Database, Peer, Request, Server, Several, begin, call, check_journals, is_full_soak,
    pipeline, wait_until,
};
use serde_json::{Value, json};
use tokio_postgres::Client as Session;

const LIMIT: Duration = Duration::from_secs(60);

/// Less than an instance's poll interval: only a wake-up is faster.
const TOLD: Duration = Duration::from_secs(4);

/// The states that a run never leaves.
const ENDED: [&str; 4] = ["succeeded", "failed", "cancelled", "timed_out"];

/// How many runs of each kind end at once.
const N_RUNS: usize = 6;

/// Answers `/hang` never, `/again` with a failure that may pass, and everything else.
async fn peer() -> Result<Peer> {
    Peer::start(|request| match request.path.as_str() {
        "/hang" => Answer::held(json!({})),
        "/again" => Answer::now(503, json!({})),
        _ => Answer::now(200, json!({})),
    })
    .await
}

/// A call that nothing ends but the run, or a timeout of its node.
fn hang(peer: &Peer) -> Value {
    let mut hang = call("hang", &peer.url("/hang"));
    hang["config"]["timeout_seconds"] = json!(600);
    hang
}

/// A call that hangs, beside one that is tried again all the time; and one that would come after them.
fn hanging(peer: &Peer) -> Value {
    let mut again = call("again", &peer.url("/again"));
    again["retry"] = json!({"max_attempts": 1000, "initial_backoff_ms": 100, "max_backoff_ms": 100});
    let nodes = [begin(), hang(peer), again, call("after", &peer.url("/after"))];
    pipeline(&nodes, &[("begin", "hang"), ("begin", "again"), ("hang", "after"), ("again", "after")])
}

/// A run that is parked while it waits.
fn parked() -> Value {
    let delay = json!({"id": "delay", "type": "delay", "config": {"seconds": 3600}});
    pipeline(&[begin(), delay], &[("begin", "delay")])
}

/// Two servers, of which the first was alone when the runs began: it drives them.
struct Scene {
    database: Database,
    session: Session,
    peer: Peer,
    servers: Several,
    hanging: Vec<String>,
    parked: Vec<String>,
}

impl Scene {
    /// Begins runs of both kinds, ended by `timeout` if there is one.
    async fn set(timeout: Option<f64>) -> Result<Scene> {
        let database = Database::empty().await?;
        let session = database.session().await?;
        let peer = peer().await?;
        let mut servers = Several::start(&database, 1, |_| {}).await?;
        let ada = servers.client(0);
        let mut ids = Vec::new();
        for mut definition in [hanging(&peer), parked()] {
            if let Some(seconds) = timeout {
                definition["timeout_seconds"] = json!(seconds);
            }
            ids.push(ada.create_pipeline(&definition).await?);
        }
        let hanging = servers.start_runs(&ids[0], N_RUNS).await?;
        let parked = servers.start_runs(&ids[1], N_RUNS).await?;
        if timeout.is_none() {
            for run in &hanging {
                hangs(&peer, run).await?;
            }
        }
        servers.add(&database).await?;
        Ok(Scene { database, session, peer, servers, hanging, parked })
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.hanging.iter().chain(&self.parked)
    }

    /// Ends of this kind, in seconds after what should bring them, as the database saw both; the latest.
    async fn latest(&self, state: &str, cause: &str) -> Result<f64> {
        let query = format!(
            "SELECT count(*), coalesce(max(extract(epoch FROM ended_at - {cause})), 0)::float8 FROM all_runs WHERE state = $1"
        );
        let row = self.session.query_one(&query, &[&state]).await?;
        let (n_ended, seconds): (i64, f64) = (row.get(0), row.get(1));
        ensure!(n_ended == i64::try_from(2 * N_RUNS)?, "{n_ended} runs are {state}");
        Ok(seconds)
    }

    /// Checks that nothing of the runs executes any more, nor is written, though other runs are executed meanwhile and
    /// everything that hung could go on.
    async fn check_nothing_follows(&self) -> Result<()> {
        let mut n_hung = 0;
        for run in &self.hanging {
            n_hung += given_up(&self.peer, run).await?;
        }
        ensure!((1..=self.hanging.len()).contains(&n_hung), "{n_hung} calls hung");
        self.witness(0.0).await?;
        let asked_before: Vec<usize> =
            self.hanging.iter().map(|run| asked(&self.peer, run, "").len()).collect();
        let journal = "SELECT count(*) FROM run_journal WHERE run_id::text = ANY ($1)";
        let runs: Vec<&String> = self.all().collect();
        let n_before: i64 = self.session.query_one(journal, &[&runs]).await?.get(0);
        self.peer.release();
        // Long enough for ten more tries.
        self.witness(1.0).await?;
        let asked_after: Vec<usize> =
            self.hanging.iter().map(|run| asked(&self.peer, run, "").len()).collect();
        ensure!(asked_before == asked_after, "asked again: {asked_before:?}, then {asked_after:?}");
        let n_after: i64 = self.session.query_one(journal, &[&runs]).await?.get(0);
        ensure!(n_before == n_after, "{n_before} entries, then {n_after}");
        ensure!(self.peer.requests_to("/after").is_empty(), "what came after the hanging call was executed");
        check_journals(&self.database.session().await?).await
    }

    /// Another run on each instance.
    async fn witness(&self, seconds: f64) -> Result<()> {
        let delay = json!({"id": "delay", "type": "delay", "config": {"seconds": seconds}});
        let nodes = [delay, call("witness", &self.peer.url("/witness"))];
        let id = self.servers.client(0).create_pipeline(&pipeline(&nodes, &[("delay", "witness")])).await?;
        for client in self.servers.clients() {
            let run = client.start_run(&id).await?;
            client.run_in(&run, &["succeeded"], LIMIT).await?;
        }
        Ok(())
    }
}

/// What a node of a run asked; every node for an empty name.
fn asked(peer: &Peer, run: &str, node: &str) -> Vec<Request> {
    let start = format!("{run}/{node}");
    let is_of = |request: &Request| request.idempotency_key().is_some_and(|key| key.starts_with(&start));
    peer.requests().into_iter().filter(is_of).collect()
}

/// Waits until a run is in the middle of everything.
async fn hangs(peer: &Peer, run: &str) -> Result<()> {
    wait_until(LIMIT, "it hangs, and is tried again", async || {
        let (n_hang, n_again) = (asked(peer, run, "hang").len(), asked(peer, run, "again").len());
        if n_hang == 1 && n_again >= 2 { Ok(()) } else { Err(format!("{n_hang}, {n_again}")) }
    })
    .await
}

/// Waits until a run's connections to the hanging peer are closed; returns their number.
async fn given_up(peer: &Peer, run: &str) -> Result<usize> {
    wait_until(LIMIT, "the connections are closed", async || {
        let hang = asked(peer, run, "hang");
        let n_open = hang.iter().filter(|request| !request.is_given_up).count();
        if n_open == 0 { Ok(hang.len()) } else { Err(format!("{n_open} of {} are open", hang.len())) }
    })
    .await
}

/// Checks which state each node ended in.
fn check_nodes(ended: &Value, expected: &[(&str, &str)]) -> Result<()> {
    let nodes = ended["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (node, state) in expected {
        let found = nodes.iter().find(|found| found["node_id"] == *node);
        ensure!(found.is_some_and(|found| found["state"] == *state), "{node} is not {state}: {ended}");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a figure for runs with --nocapture")]
fn report(what: &str, seconds: f64) {
    println!("{what}: {seconds:.3} s");
}

/// Cancels a run and waits for its end; returns how long that took.
async fn cancel(client: &Client, run: &str) -> Result<Duration> {
    let asked_at = Instant::now();
    client.post(&format!("/api/v1/runs/{run}/cancel"), &json!({})).await?.expect(202)?;
    let ended = client.run_in(run, &ENDED, LIMIT).await?;
    let took = asked_at.elapsed();
    ensure!(ended["state"] == "cancelled", "{ended}");
    Ok(took)
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_a_run_is_cancelled_from_another_instance_within_a_second_and_nothing_of_it_follows() -> Result<()>
{
    let scene = Scene::set(None).await?;
    for run in &scene.parked {
        scene.servers.client(1).run_in(run, &["waiting"], LIMIT).await?;
    }
    let mut took = Vec::new();
    for run in scene.all() {
        took.push(cancel(&scene.servers.client(1), run).await?);
    }
    let slowest = took.into_iter().max().unwrap_or_default();
    report("from the request to `cancelled` as another client sees it, the slowest", slowest.as_secs_f64());
    let latest = scene.latest("cancelled", "cancel_requested_at").await?;
    report("from the request to `cancelled` in the database, the slowest", latest);
    assert!(slowest < TOLD, "{slowest:?}");
    ensure!(!is_full_soak() || slowest < Duration::from_secs(1), "{slowest:?}");
    scene.check_nothing_follows().await?;
    for run in &scene.hanging {
        let ended = scene.servers.client(0).get(&format!("/api/v1/runs/{run}")).await?.expect(200)?;
        let expected =
            [("begin", "succeeded"), ("hang", "cancelled"), ("again", "cancelled"), ("after", "cancelled")];
        check_nodes(&ended, &expected)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_a_run_ends_at_its_deadline_and_nothing_of_it_follows() -> Result<()> {
    let scene = Scene::set(Some(4.0)).await?;
    for run in scene.all() {
        let ended = scene.servers.client(1).run_in(run, &ENDED, LIMIT).await?;
        ensure!(ended["state"] == "timed_out", "{ended}");
    }
    let latest = scene.latest("timed_out", "deadline_at").await?;
    report("from the deadline to `timed_out` in the database, the slowest", latest);
    let early = "SELECT count(*) FROM all_runs WHERE state = 'timed_out' AND ended_at < deadline_at";
    assert_eq!(scene.session.query_one(early, &[]).await?.get::<_, i64>(0), 0, "not before its time");
    assert!(latest < TOLD.as_secs_f64(), "{latest} s");
    ensure!(!is_full_soak() || latest < 1.0, "{latest} s");
    scene.check_nothing_follows().await
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_an_attempt_ends_at_its_nodes_timeout_and_its_call_is_given_up() -> Result<()> {
    let database = Database::empty().await?;
    let peer = peer().await?;
    let servers = Several::start(&database, 2, |_| {}).await?;
    let mut hang = hang(&peer);
    hang["timeout_seconds"] = json!(0.5);
    hang["retry"] = json!({"max_attempts": 2, "initial_backoff_ms": 100, "max_backoff_ms": 100});
    let nodes = [begin(), hang, call("after", &peer.url("/after"))];
    let id =
        servers.client(0).create_pipeline(&pipeline(&nodes, &[("begin", "hang"), ("hang", "after")])).await?;
    let runs = servers.start_runs(&id, N_RUNS).await?;
    for run in &runs {
        let ended = servers.client(1).run_in(run, &ENDED, LIMIT).await?;
        ensure!(ended["state"] == "failed", "{ended}");
        check_nodes(&ended, &[("hang", "timed_out"), ("after", "cancelled")])?;
        assert_eq!(given_up(&peer, run).await?, 2, "two attempts");
    }
    let session = database.session().await?;
    let attempts = "SELECT max(extract(epoch FROM e.at - s.at))::float8, min(extract(epoch FROM e.at - s.at))::float8 \
                    FROM run_journal s JOIN run_journal e USING (run_id, node_id, attempt) WHERE node_id = 'hang' \
                    AND s.kind = 'node_started' AND e.kind IN ('node_retrying', 'node_failed')";
    let row = session.query_one(attempts, &[]).await?;
    let (longest, shortest): (f64, f64) = (row.get(0), row.get(1));
    report("attempts that may take 0.5 s, the longest", longest);
    assert!(shortest >= 0.5 && longest < 0.5 + TOLD.as_secs_f64(), "{shortest} s to {longest} s");
    ensure!(!is_full_soak() || longest < 1.5, "{longest} s");
    peer.release();
    let witness =
        servers.client(0).create_pipeline(&pipeline(&[call("a", &peer.url("/witness"))], &[])).await?;
    for client in servers.clients() {
        client.run_in(&client.start_run(&witness).await?, &["succeeded"], LIMIT).await?;
    }
    assert_eq!(peer.requests_to("/hang").len(), 2 * runs.len(), "two attempts each, and nothing afterwards");
    assert!(peer.requests_to("/after").is_empty());
    check_journals(&session).await
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_a_cancel_and_a_deadline_need_no_room_for_another_run() -> Result<()> {
    let database = Database::empty().await?;
    let peer = peer().await?;
    let server = Server::start_with(&database, |command| {
        command.env("GATHERING_MAX_CONCURRENT_RUNS", "1").env("GATHERING_OUTBOUND_ALLOW", "127.0.0.0/8");
    })
    .await?;
    let ada = server.client().join("ada@example.org").await?;
    let waits = ada.start_run(&ada.create_pipeline(&parked()).await?).await?;
    ada.run_in(&waits, &["waiting"], LIMIT).await?;
    let fills = ada.start_run(&ada.create_pipeline(&pipeline(&[hang(&peer)], &[])).await?).await?;
    wait_until(LIMIT, "it fills all room", async || match asked(&peer, &fills, "hang").len() {
        1 => Ok(()),
        n => Err(format!("{n} calls hang")),
    })
    .await?;
    let mut limited = pipeline(&[call("late", &peer.url("/late"))], &[]);
    limited["timeout_seconds"] = json!(1);
    let queued = ada.start_run(&ada.create_pipeline(&limited).await?).await?;
    let took = cancel(&ada, &waits).await?;
    report("from the request to `cancelled` without room, as the client sees it", took.as_secs_f64());
    assert!(took < TOLD, "{took:?}");
    let ended = ada.run_in(&queued, &ENDED, LIMIT).await?;
    assert_eq!(ended["state"], "timed_out");
    assert!(peer.requests_to("/late").is_empty(), "nothing of it was executed");
    let still = ada.get(&format!("/api/v1/runs/{fills}")).await?.expect(200)?;
    assert_eq!(still["state"], "running");
    check_journals(&database.session().await?).await
}
