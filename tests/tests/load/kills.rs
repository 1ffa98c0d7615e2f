//! One server, killed at random moments under load and started again each time: nothing that it accepted is lost, and
//! nothing that it has done is done again.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use gathering_e2e::{
    Answer, Database, Load, Peer, Process, Random, Server, all_succeeded, begin, call, check_journals,
    check_requests, check_stored, pipeline, soak,
};
use serde_json::{Value, json};

use crate::MACHINE;

const LIMIT: Duration = Duration::from_secs(120);

/// One of so many kills meets a server that is just starting.
const STARTING: u64 = 5;

/// Calls side by side and in a row.
fn definition(peer: &Peer) -> Value {
    let ids = ["left", "right", "both", "last"];
    let mut nodes = vec![begin()];
    nodes.extend(ids.map(|id| call(id, &peer.url(&format!("/{id}")))));
    nodes[3]["join"] = json!("all");
    let edges =
        [("begin", "left"), ("begin", "right"), ("left", "both"), ("right", "both"), ("both", "last")];
    let mut definition = pipeline(&nodes, &edges);
    definition["output"] = json!("nodes.last.output.body.path");
    definition
}

/// A run may well meet every kill.
fn patient(command: &mut std::process::Command) {
    command.env("GATHERING_MAX_RECOVERIES", "10000").env("GATHERING_DB_POOL_SIZE", "8");
}

/// Starts a server and kills it before it may be ready.
async fn kill_while_it_starts(database: &Database, moment: Duration) -> Result<()> {
    let mut command = database.command(&["serve"])?;
    command.env("GATHERING_BIND", "127.0.0.1:0");
    patient(&mut command);
    let mut process = Process::start(&mut command)?;
    // The moment is drawn, not waited for: nothing depends on what happens in it.
    tokio::time::sleep(moment).await;
    process.kill()
}

#[expect(clippy::print_stdout, reason = "a figure for runs with --nocapture")]
fn report(n_kills: usize, n_runs: usize, recoveries: i64, peer: &Peer) {
    let mut keys: HashMap<String, usize> = HashMap::new();
    for request in peer.requests() {
        *keys.entry(request.idempotency_key().unwrap_or_default().to_owned()).or_default() += 1;
    }
    println!(
        "{n_kills} kills, {n_runs} runs accepted, {recoveries} recoveries, {} effects, {} of them repeated after an \
         interruption",
        keys.len(),
        keys.values().filter(|n_asked| **n_asked > 1).count()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_i4_i7_a_server_killed_at_random_moments_loses_nothing_and_repeats_nothing() -> Result<()> {
    let _machine = MACHINE.read().await;
    let n_kills = soak(12, 200);
    let mut random = Random::printed()?;
    let database = Database::empty().await?;
    let peer = Peer::start(|request| {
        let delay = Duration::from_millis(u64::try_from(request.number % 7).unwrap_or(0) * 10);
        Answer::slow(delay, json!({"path": request.path}))
    })
    .await?;
    let mut server = Server::start_with(&database, patient).await?;
    let ada = server.client().join("ada@example.org").await?;
    let id = ada.create_pipeline(&definition(&peer)).await?;
    let load = Load::start(vec![ada.clone()], &id, 4);
    for _ in 0..n_kills {
        load.accepted_more(4, LIMIT).await?;
        // The moment is drawn, not waited for: nothing depends on what happens in it.
        tokio::time::sleep(random.below(Duration::from_millis(600))).await;
        server.kill()?;
        if random.number().is_multiple_of(STARTING) {
            kill_while_it_starts(&database, random.below(Duration::from_millis(300))).await?;
        }
        server = Server::start_with(&database, patient).await?;
        let token = ada.token().unwrap_or_default();
        load.go_to(vec![server.client().with_token(token)]);
    }
    let accepted = load.end().await?;
    let session = database.session().await?;
    all_succeeded(&session, LIMIT).await?;
    check_stored(&session, &accepted).await?;
    check_journals(&session).await?;
    check_requests(&peer, &session).await?;
    let wrong = "SELECT count(*) FROM all_runs WHERE output::text IS DISTINCT FROM '\"/last\"'";
    let n_wrong: i64 = session.query_one(wrong, &[]).await?.get(0);
    ensure!(n_wrong == 0, "{n_wrong} runs have another output");
    let recoveries: i64 = session.query_one("SELECT sum(recoveries) FROM all_runs", &[]).await?.get(0);
    assert!(recoveries > 0, "no kill met a run: the test proves nothing");
    report(n_kills, accepted.len(), recoveries, &peer);
    Ok(())
}
