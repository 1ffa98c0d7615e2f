//! Runs over HTTP: started, watched, cancelled, and finished whatever is killed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gathering_e2e::{Answer, Client, Database, Peer, Server, begin, call, pipeline, wait_until};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(30);

async fn start_with_key(
    client: &Client,
    pipeline: &str,
    key: &str,
    body: &Value,
) -> Result<gathering_e2e::Reply> {
    let path = format!("/api/v1/pipelines/{pipeline}/runs");
    client.send(client.request(Method::POST, &path).header("idempotency-key", key).json(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_an_accepted_run_succeeds_and_shows_its_nodes() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|request| Answer::now(200, json!({"asked": request.json()}))).await?;
    let ada = server.client().join("ada@example.org").await?;
    let mut definition = pipeline(&[begin(), call("ask", &peer.url("/ask"))], &[("begin", "ask")]);
    definition["nodes"][1]["config"]["body"] = json!({"n": "${{ input.n }}"});
    definition["output"] = json!("nodes.ask.output.body.asked.n + 1");
    let id = ada.create_pipeline(&definition).await?;
    let body = json!({"input": {"n": 41}});
    let accepted = ada.post(&format!("/api/v1/pipelines/{id}/runs"), &body).await?.expect(202)?;
    let run = accepted["id"].as_str().context("no id")?;
    let ended = ada.run_in(run, &["succeeded", "failed"], LIMIT).await?;
    assert_eq!((&ended["state"], &ended["output"]), (&json!("succeeded"), &json!(42)), "{ended}");
    assert_eq!((&ended["pipeline_id"], &ended["version"]), (&json!(id), &json!(1)));
    let nodes: Vec<_> = ended["nodes"].as_array().into_iter().flatten().collect();
    let shown: Vec<_> =
        nodes.iter().map(|node| (&node["node_id"], &node["state"], &node["attempt"])).collect();
    let succeeded = json!("succeeded");
    assert_eq!(shown, [(&json!("begin"), &succeeded, &json!(1)), (&json!("ask"), &succeeded, &json!(1))]);
    assert!(nodes.iter().all(|node| node["duration_ms"].is_u64()), "{ended}");
    let asked = peer.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].idempotency_key(), Some(format!("{run}/ask").as_str()));
    let journal = ada.get(&format!("/api/v1/runs/{run}/journal")).await?.expect(200)?;
    let places: Vec<_> =
        journal["items"].as_array().into_iter().flatten().map(|entry| &entry["seq"]).collect();
    assert_eq!(places, (1..=places.len()).map(Value::from).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_run_and_another_body_a_conflict() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let id = ada.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let (one, other) = (json!({"input": {"n": 1}}), json!({"input": {"n": 2}}));
    let mut starts = JoinSet::new();
    for _ in 0..8 {
        let (ada, id, one) = (ada.clone(), id.clone(), one.clone());
        starts.spawn(async move { start_with_key(&ada, &id, "order-1", &one).await });
    }
    let mut runs = Vec::new();
    while let Some(started) = starts.join_next().await {
        runs.push(started??.expect(202)?["id"].clone());
    }
    assert!(runs.iter().all(|run| *run == runs[0]), "{runs:?}");
    let conflict = start_with_key(&ada, &id, "order-1", &other).await?.expect(409)?;
    assert_eq!(conflict["type"], "/problems/conflict");
    let second = start_with_key(&ada, &id, "order-2", &one).await?.expect(202)?;
    assert_ne!(second["id"], runs[0]);
    let listed = ada.get(&format!("/api/v1/runs?pipeline_id={id}")).await?.expect(200)?;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_answers_the_same_run_though_its_pipeline_is_disabled_since() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let id = ada.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let body = json!({"input": {"n": 1}});
    let first = start_with_key(&ada, &id, "order-1", &body).await?.expect(202)?;
    ada.put(&format!("/api/v1/pipelines/{id}"), &json!({"enabled": false})).await?.expect(200)?;
    let again = start_with_key(&ada, &id, "order-1", &body).await?.expect(202)?;
    assert_eq!(again["id"], first["id"]);
    let other = start_with_key(&ada, &id, "order-1", &json!({"input": {"n": 2}})).await?;
    other.expect_problem(409, "conflict")?;
    let new = start_with_key(&ada, &id, "order-2", &body).await?;
    new.expect_problem(409, "conflict")?;
    // A caller who may not see the run learns nothing, with or without a key.
    let eve = server.client().join("eve@example.org").await?;
    start_with_key(&eve, &id, "order-1", &body).await?.expect_problem(404, "not-found")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_a_cancelled_run_ends_within_seconds_and_its_request_is_given_up() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let ada = server.client().join("ada@example.org").await?;
    let definition = pipeline(
        &[begin(), call("hang", &peer.url("/hang")), call("after", &peer.url("/after"))],
        &[("begin", "hang"), ("hang", "after")],
    );
    let run = ada.start_run(&ada.create_pipeline(&definition).await?).await?;
    peer.asked(1, LIMIT).await?;
    let asked_at = Instant::now();
    let answered = ada.post(&format!("/api/v1/runs/{run}/cancel"), &json!({})).await?.expect(202)?;
    assert!(answered["cancel_requested_at"].is_string(), "{answered}");
    let ended = ada.run_in(&run, &["cancelled", "failed", "succeeded"], LIMIT).await?;
    let took = asked_at.elapsed();
    assert_eq!(ended["state"], "cancelled", "{ended}");
    // A wake-up reaches it at once; polling alone would take five seconds.
    assert!(took < Duration::from_secs(3), "{took:?}");
    let states: Vec<_> = ended["nodes"].as_array().into_iter().flatten().map(|node| &node["state"]).collect();
    assert_eq!(states, ["succeeded", "cancelled", "cancelled"].map(Value::from).iter().collect::<Vec<_>>());
    wait_until(LIMIT, "the connection is closed", async || {
        if peer.requests()[0].is_given_up { Ok(()) } else { Err("it is open") }
    })
    .await?;
    let conflict = ada.post(&format!("/api/v1/runs/{run}/cancel"), &json!({})).await?.expect(409)?;
    assert_eq!(conflict["type"], "/problems/conflict");
    peer.release();
    assert_eq!(peer.requests().len(), 1, "nothing came after");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_a_run_on_another_instance() -> Result<()> {
    let database = Database::empty().await?;
    let owner = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let ada = owner.client().join("ada@example.org").await?;
    let id = ada.create_pipeline(&pipeline(&[call("hang", &peer.url("/"))], &[])).await?;
    let run = ada.start_run(&id).await?;
    peer.asked(1, LIMIT).await?;
    let other = Server::start(&database).await?;
    let on_the_other = other.client().login("ada@example.org").await?;
    on_the_other.post(&format!("/api/v1/runs/{run}/cancel"), &json!({})).await?.expect(202)?;
    on_the_other.run_in(&run, &["cancelled"], LIMIT).await?;
    wait_until(LIMIT, "the connection is closed", async || {
        if peer.requests()[0].is_given_up { Ok(()) } else { Err("it is open") }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_runs_of_a_killed_server_are_taken_over_within_seconds() -> Result<()> {
    let database = Database::empty().await?;
    let mut doomed = Server::start(&database).await?;
    let peer = Peer::start(|request| match request.nth {
        0 => Answer::held(json!({})),
        _ => Answer::now(200, json!({})),
    })
    .await?;
    let ada = doomed.client().join("ada@example.org").await?;
    let definition = pipeline(
        &[call("before", &peer.url("/before")), call("during", &peer.url("/during"))],
        &[("before", "during")],
    );
    let id = ada.create_pipeline(&definition).await?;
    let run = ada.start_run(&id).await?;
    peer.asked(1, LIMIT).await?;
    let other = Server::start(&database).await?;
    doomed.kill()?;
    let killed_at = Instant::now();
    let on_the_other = other.client().login("ada@example.org").await?;
    let ended = on_the_other.run_in(&run, &["succeeded", "failed"], LIMIT);
    peer.asked(3, LIMIT).await?;
    peer.release();
    let ended = ended.await?;
    assert_eq!((&ended["state"], &ended["recoveries"]), (&json!("succeeded"), &json!(1)), "{ended}");
    assert!(killed_at.elapsed() < Duration::from_secs(10), "{:?}", killed_at.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_a_server_that_is_only_stopped_keeps_its_run() -> Result<()> {
    let database = Database::empty().await?;
    let paused = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let ada = paused.client().join("ada@example.org").await?;
    let id = ada.create_pipeline(&pipeline(&[call("hang", &peer.url("/"))], &[])).await?;
    let run = ada.start_run(&id).await?;
    peer.asked(1, LIMIT).await?;
    paused.signal(Signal::SIGSTOP)?;
    let other = Server::start(&database).await?;
    let on_the_other = other.client().login("ada@example.org").await?;
    // Several rounds of looking for the dead: another run is executed here meanwhile.
    let second = Peer::start(|_| Answer::slow(Duration::from_secs(3), json!({}))).await?;
    let id = on_the_other.create_pipeline(&pipeline(&[call("slow", &second.url("/"))], &[])).await?;
    let witness = on_the_other.start_run(&id).await?;
    on_the_other.run_in(&witness, &["succeeded"], LIMIT).await?;
    let shown = on_the_other.get(&format!("/api/v1/runs/{run}")).await?.expect(200)?;
    assert_eq!((&shown["state"], &shown["recoveries"]), (&json!("running"), &json!(0)), "{shown}");
    paused.signal(Signal::SIGCONT)?;
    peer.release();
    on_the_other.run_in(&run, &["succeeded"], LIMIT).await?;
    assert_eq!(peer.requests().len(), 1, "no other instance executed it");
    Ok(())
}
