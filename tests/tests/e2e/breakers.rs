//! Circuit breakers: a node that keeps failing is tried by no run of its pipeline, on no instance, until a probe succeeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use gathering_e2e::{Answer, Client, Database, Peer, Server, call, pipeline, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

async fn run_once(client: &Client, pipeline: &str) -> Result<Value> {
    let run = client.start_run(pipeline).await?;
    client.run_in(&run, &["succeeded", "failed"], LIMIT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_opens_for_all_runs_and_instances_and_closes_after_one_probe() -> Result<()> {
    let database = Database::empty().await?;
    let one = Server::start(&database).await?;
    let is_well = Arc::new(AtomicBool::new(false));
    let peer = {
        let is_well = Arc::clone(&is_well);
        Peer::start(move |_| Answer::now(if is_well.load(Ordering::SeqCst) { 200 } else { 503 }, json!({})))
            .await?
    };
    let ada = one.client().join("ada@example.org").await?;
    let mut node = call("ask", &peer.url("/ask"));
    node["circuit_breaker"] = json!({"failure_threshold": 3, "reset_seconds": 3});
    let id = ada.create_pipeline(&pipeline(&[node], &[])).await?;
    for _ in 0..3 {
        assert_eq!(run_once(&ada, &id).await?["nodes"][0]["error"]["kind"], "http_status");
    }
    let n_tried = peer.n_requests();
    let refused = run_once(&ada, &id).await?;
    assert_eq!(refused["nodes"][0]["error"]["kind"], "circuit_open", "{refused}");
    // Another instance, and one that starts now, know it too.
    let other = Server::start(&database).await?;
    drop(one);
    let ada = other.client().login("ada@example.org").await?;
    let refused = run_once(&ada, &id).await?;
    assert_eq!(refused["nodes"][0]["error"]["kind"], "circuit_open", "{refused}");
    assert_eq!(peer.n_requests(), n_tried);
    is_well.store(true, Ordering::SeqCst);
    wait_until(LIMIT, "a probe succeeds", async || match run_once(&ada, &id).await {
        Ok(run) if run["state"] == "succeeded" => Ok(()),
        Ok(run) => Err(run["error"].to_string()),
        Err(error) => Err(error.to_string()),
    })
    .await?;
    assert_eq!(peer.n_requests(), n_tried + 1);
    assert_eq!(run_once(&ada, &id).await?["state"], "succeeded");
    let session = database.session().await?;
    let rows: i64 = session.query_one("SELECT count(*) FROM circuit_breakers", &[]).await?.get(0);
    assert_eq!(rows, 0, "a healthy breaker has no row");
    Ok(())
}
