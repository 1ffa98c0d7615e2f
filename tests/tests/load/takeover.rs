//! Several servers on one database, killed under load.

use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{
    Answer, Database, Peer, Random, Server, begin, call, check_journals, check_requests, pipeline, wait_until,
};
use serde_json::json;

use crate::MACHINE;

const LIMIT: Duration = Duration::from_secs(90);

/// Runs, each with three calls, and how often a server is killed under them.
const N_RUNS: usize = 60;
const N_KILLS: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn i1_i2_i4_every_accepted_run_ends_though_servers_are_killed_all_the_time() -> Result<()> {
    let _machine = MACHINE.read().await;
    let mut random = Random::printed()?;
    let database = Database::empty().await?;
    let peer = Peer::start(|_| Answer::slow(Duration::from_millis(100), json!({}))).await?;
    let mut servers = [Server::start(&database).await?, Server::start(&database).await?];
    let ada = servers[0].client().join("ada@example.org").await?;
    let token = ada.token().context("no token")?.to_owned();
    let nodes = [begin(), call("a", &peer.url("/a")), call("b", &peer.url("/b")), call("c", &peer.url("/c"))];
    let id = ada.create_pipeline(&pipeline(&nodes, &[("begin", "a"), ("begin", "b"), ("a", "c")])).await?;

    let mut accepted = Vec::new();
    for n_kill in 0..N_KILLS {
        let n_asked = peer.requests().len();
        let client = servers[n_kill % 2].client().with_token(&token);
        for _ in 0..N_RUNS / N_KILLS {
            accepted.push(client.start_run(&id).await?);
        }
        peer.asked(n_asked + 1, LIMIT).await?;
        // The moment is drawn, not waited for: nothing depends on what happens in it, but that the calls are not over.
        tokio::time::sleep(random.below(Duration::from_millis(150))).await;
        // Most often the one that accepted the runs, and so drives most of them.
        let doomed = (n_kill + usize::from(random.number() % 4 == 0)) % 2;
        servers[doomed].kill()?;
        servers[doomed] = Server::start(&database).await?;
    }

    let session = database.session().await?;
    wait_until(LIMIT, "every run has ended", async || {
        let rows = session.query("SELECT state, count(*) FROM all_runs GROUP BY state", &[]).await;
        let rows = rows.map_err(|error| error.to_string())?;
        let states: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        match states.as_slice() {
            [(state, _)] if state == "succeeded" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    accepted.sort_unstable();
    let rows = session.query("SELECT id::text FROM all_runs ORDER BY id::text", &[]).await?;
    let stored: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(stored, accepted, "each accepted run, and no other");
    let recoveries: i64 = session.query_one("SELECT sum(recoveries) FROM all_runs", &[]).await?.get(0);
    assert!(recoveries > 0, "no kill met a run: the test proves nothing");
    check_journals(&session).await?;
    check_requests(&peer, &session).await
}
