//! Reruns that keep earlier results.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Answer, Database, Peer, Server, call, pipeline};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);
const ENDS: [&str; 4] = ["succeeded", "failed", "cancelled", "timed_out"];

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_reuses_what_succeeded_before_its_point() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let is_well = Arc::new(AtomicBool::new(false));
    let peer = {
        let is_well = Arc::clone(&is_well);
        Peer::start(move |request| match request.path.as_str() {
            "/b" if !is_well.load(Ordering::SeqCst) => Answer::now(400, json!({})),
            _ => Answer::now(200, request.json()),
        })
        .await?
    };
    let ada = server.client().join("ada@example.org").await?;
    let node = |id: &str| {
        let mut node = call(id, &peer.url(&format!("/{id}")));
        node["config"]["body"] = json!({"n": "${{ input.n }}"});
        node
    };
    let mut definition = pipeline(&[node("a"), node("b"), node("c")], &[("a", "b"), ("b", "c")]);
    definition["output"] = json!("[nodes.a.output.body.n, nodes.b.output.body.n, nodes.c.output.body.n]");
    let id = ada.create_pipeline(&definition).await?;
    let started =
        ada.post(&format!("/api/v1/pipelines/{id}/runs"), &json!({"input": {"n": 1}})).await?.expect(202)?;
    let first = started["id"].as_str().context("no id")?.to_owned();
    assert_eq!(ada.run_in(&first, &ENDS, LIMIT).await?["state"], "failed");
    let asked = || ["/a", "/b", "/c"].map(|path| peer.requests_to(path).len());
    assert_eq!(asked(), [1, 1, 0]);
    is_well.store(true, Ordering::SeqCst);
    let rerun = async |run: &str, body: serde_json::Value| -> Result<serde_json::Value> {
        let again = ada.post(&format!("/api/v1/runs/{run}/rerun"), &body).await?.expect(202)?;
        ada.run_in(again["id"].as_str().context("no id")?, &ENDS, LIMIT).await
    };
    let second = rerun(&first, json!({"from": "failed"})).await?;
    assert_eq!((&second["state"], &second["output"]), (&json!("succeeded"), &json!([1, 1, 1])), "{second}");
    assert_eq!(asked(), [1, 2, 1]);
    let second = second["id"].as_str().context("no id")?;
    let third = rerun(second, json!({"from": "c"})).await?;
    assert_eq!(third["output"], json!([1, 1, 1]), "{third}");
    assert_eq!(asked(), [1, 2, 2]);
    let fourth = rerun(second, json!({"from": "c", "input": {"n": 2}})).await?;
    assert_eq!(fourth["output"], json!([2, 2, 2]), "what was made of another input is not kept: {fourth}");
    let fifth = rerun(second, json!({"from": "start", "input": {"n": 3}})).await?;
    assert_eq!(fifth["output"], json!([3, 3, 3]), "{fifth}");
    let nothing = ada.post(&format!("/api/v1/runs/{second}/rerun"), &json!({"from": "failed"})).await?;
    nothing.expect_problem(409, "conflict")?;
    let unknown = ada.post(&format!("/api/v1/runs/{second}/rerun"), &json!({"from": "z"})).await?;
    unknown.expect_problem(422, "invalid")?;
    assert_eq!(unknown.pointers(), ["/from"]);
    // The history of the first run is as it was.
    assert_eq!(ada.run_in(&first, &ENDS, LIMIT).await?["state"], "failed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_failed_in_its_output_alone_is_taken_up_there() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::now(200, json!({}))).await?;
    let ada = server.client().join("ada@example.org").await?;
    let mut definition = pipeline(&[call("a", &peer.url("/a"))], &[]);
    definition["output"] = json!("[nodes.a.output.status, input.n]");
    let id = ada.create_pipeline(&definition).await?;
    let first = ada.start_run(&id).await?;
    let failed = ada.run_in(&first, &ENDS, LIMIT).await?;
    assert_eq!(
        (&failed["state"], &failed["error"]["kind"]),
        (&json!("failed"), &json!("output")),
        "{failed}"
    );
    let body = json!({"from": "failed", "input": {"n": 7}});
    let again = ada.post(&format!("/api/v1/runs/{first}/rerun"), &body).await?.expect(202)?;
    let second = ada.run_in(again["id"].as_str().context("no id")?, &ENDS, LIMIT).await?;
    assert_eq!((&second["state"], &second["output"]), (&json!("succeeded"), &json!([200, 7])), "{second}");
    assert_eq!(peer.requests_to("/a").len(), 1, "what succeeded is not done again");
    Ok(())
}
