//! Child runs: the items of a map, and pipelines that start pipelines. Each ends when its parent ends.

use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Answer, Database, Peer, Server, begin, call, pipeline, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// How long the peer holds a request that the test does not wait for.
const HELD: Duration = Duration::from_millis(30);

/// A map over `input.items` whose sub-graph is these nodes.
fn map(nodes: &[Value], output: &str, max_concurrency: u32) -> Value {
    let graph = json!({"nodes": nodes, "edges": [], "output": output});
    let config = json!({"items": "input.items", "graph": graph, "max_concurrency": max_concurrency});
    json!({"id": "each", "type": "map", "config": config})
}

async fn ended(client: &gathering_e2e::Client, definition: &Value, input: &Value) -> Result<Value> {
    let id = client.create_pipeline(definition).await?;
    let started = client.post(&format!("/api/v1/pipelines/{id}/runs"), &json!({"input": input})).await?;
    let run = started.expect(202)?["id"].as_str().context("no id")?.to_owned();
    client.run_in(&run, &["succeeded", "failed", "cancelled", "timed_out"], LIMIT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_gives_the_outputs_of_its_items_in_their_order_and_never_runs_more_than_it_may() -> Result<()> {
    let database = Database::empty().await?;
    let one = Server::start(&database).await?;
    let _other = Server::start(&database).await?;
    let peer = Peer::start(|request| Answer::slow(HELD, request.json())).await?;
    let ada = one.client().join("ada@example.org").await?;
    let mut ask = call("ask", &peer.url("/ask"));
    ask["config"]["body"] =
        json!({"square": "${{ item * item }}", "at": "${{ index }}", "by": "${{ input.by }}"});
    let definition = pipeline(&[begin(), map(&[ask], "nodes.ask.output.body", 3)], &[("begin", "each")]);
    let items: Vec<i64> = (1..=20).collect();
    let run = ended(&ada, &definition, &json!({"items": items, "by": "ada"})).await?;
    assert_eq!(run["state"], "succeeded", "{run}");
    let wanted: Vec<Value> = (1..=20).map(|n| json!({"square": n * n, "at": n - 1, "by": "ada"})).collect();
    assert_eq!(run["output"]["each"], json!(wanted));
    assert_eq!(peer.n_requests(), 20);
    // Each was held for as long, so four that began within that time would have been under way at once.
    let mut began: Vec<_> = peer.requests().iter().map(|request| request.at).collect();
    began.sort_unstable();
    let closest = began.windows(4).map(|four| four[3] - four[0]).min();
    assert!(closest >= Some(HELD), "{closest:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_over_nothing_gives_nothing() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let definition = pipeline(&[map(&[begin()], "item", 3)], &[]);
    let run = ended(&ada, &definition, &json!({"items": []})).await?;
    assert_eq!((&run["state"], &run["output"]), (&json!("succeeded"), &json!({"each": []})), "{run}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_fails_fails_the_map_and_ends_the_others() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|request| match request.json()["n"].as_i64() {
        Some(2) => Answer::now(400, json!({"no": "thanks"})),
        _ => Answer::held(json!({})),
    })
    .await?;
    let ada = server.client().join("ada@example.org").await?;
    let mut ask = call("ask", &peer.url("/ask"));
    ask["config"]["body"] = json!({"n": "${{ item }}"});
    let definition = pipeline(&[map(&[ask], "item", 5)], &[]);
    let run = ended(&ada, &definition, &json!({"items": [1, 2, 3, 4, 5, 6, 7, 8]})).await?;
    assert_eq!(run["state"], "failed", "{run}");
    assert_eq!(run["nodes"][0]["error"]["kind"], "child_failed", "{run}");
    let session = database.session().await?;
    wait_until(LIMIT, "every item has ended", async || {
        let alive = "SELECT count(*) FROM all_runs WHERE state IN ('queued', 'running', 'waiting')";
        match session.query_one(alive, &[]).await.map(|row| row.get::<_, i64>(0)) {
            Ok(0) => Ok(()),
            Ok(n) => Err(format!("{n} have not")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    peer.release();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_runs_another_one_and_takes_its_output() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let mut inner = pipeline(&[begin()], &[]);
    inner["output"] = json!("{'doubled': input.n * 2}");
    let inner = ada.create_pipeline(&inner).await?;
    let config =
        json!({"action": "execute_pipeline", "pipeline_id": inner, "input": {"n": "${{ input.n }}"}});
    let mut outer = pipeline(&[json!({"id": "inner", "type": "action", "config": config})], &[]);
    outer["output"] = json!("nodes.inner.output");
    let run = ended(&ada, &outer, &json!({"n": 21})).await?;
    assert_eq!(
        (&run["state"], &run["output"]["output"]["doubled"]),
        (&json!("succeeded"), &json!(42)),
        "{run}"
    );
    let child = run["output"]["run_id"].as_str().context("no child")?;
    let child = ada.get(&format!("/api/v1/runs/{child}")).await?.expect(200)?;
    assert_eq!((&child["pipeline_id"], &child["state"]), (&json!(inner), &json!("succeeded")), "{child}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_runs_itself_is_stopped_at_a_depth() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let config =
        json!({"action": "execute_pipeline", "pipeline_id": "${{ input.id }}", "input": "${{ input }}"});
    let itself = pipeline(&[json!({"id": "again", "type": "action", "config": config})], &[]);
    let id = ada.create_pipeline(&itself).await?;
    let started = ada
        .post(&format!("/api/v1/pipelines/{id}/runs"), &json!({"input": {"id": id}}))
        .await?
        .expect(202)?;
    let run = ada.run_in(started["id"].as_str().context("no id")?, &["failed"], LIMIT).await?;
    assert!(run["error"]["message"].as_str().is_some_and(|why| why.contains("32 deep")), "{run}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_run_ends_those_below_it() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let ada = server.client().join("ada@example.org").await?;
    let inner = ada.create_pipeline(&pipeline(&[call("hang", &peer.url("/hang"))], &[])).await?;
    let config = json!({"action": "execute_pipeline", "pipeline_id": inner});
    let node = json!({"id": "inner", "type": "action", "config": config});
    for (timeout, state) in [(None, "cancelled"), (Some(2), "timed_out")] {
        let mut outer = pipeline(std::slice::from_ref(&node), &[]);
        if let Some(seconds) = timeout {
            outer["timeout_seconds"] = json!(seconds);
        }
        let before = peer.n_requests();
        let run = ada.start_run(&ada.create_pipeline(&outer).await?).await?;
        peer.asked(before + 1, LIMIT).await?;
        if timeout.is_none() {
            ada.post(&format!("/api/v1/runs/{run}/cancel"), &json!({})).await?.expect(202)?;
        }
        let ended = ada.run_in(&run, &["cancelled", "timed_out", "failed", "succeeded"], LIMIT).await?;
        assert_eq!(ended["state"], state, "{ended}");
        wait_until(LIMIT, "the request of the child is given up", async || {
            if peer.requests().iter().all(|request| request.is_given_up) { Ok(()) } else { Err("it is not") }
        })
        .await?;
        let children = ada.get(&format!("/api/v1/runs?pipeline_id={inner}")).await?.expect(200)?;
        let child = children["items"][0]["id"].as_str().context("no child")?.to_owned();
        ada.run_in(&child, &["cancelled", "timed_out"], LIMIT).await?;
    }
    peer.release();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_repeats_no_item_that_has_ended() -> Result<()> {
    let database = Database::empty().await?;
    let mut first = Server::start(&database).await?;
    let peer = Peer::start(|request| Answer::slow(Duration::from_millis(20), request.json())).await?;
    let ada = first.client().join("ada@example.org").await?;
    let mut ask = call("ask", &peer.url("/ask"));
    ask["config"]["body"] = json!({"n": "${{ item }}"});
    let definition = pipeline(&[map(&[ask], "nodes.ask.output.body.n", 4)], &[]);
    let id = ada.create_pipeline(&definition).await?;
    let items: Vec<i64> = (0..60).collect();
    let body = json!({"input": {"items": items}});
    let started = ada.post(&format!("/api/v1/pipelines/{id}/runs"), &body).await?.expect(202)?;
    let run = started["id"].as_str().context("no id")?.to_owned();
    peer.asked(25, LIMIT).await?;
    first.kill()?;
    let second = Server::start(&database).await?;
    let ada = second.client().login("ada@example.org").await?;
    let ended = ada.run_in(&run, &["succeeded", "failed"], LIMIT).await?;
    assert_eq!(ended["output"]["each"], json!(items), "{ended}");
    // Only those that were under way when the server died may have been asked for twice: as many as may be at once.
    let n_repeated = peer.n_requests() - items.len();
    assert!(n_repeated <= 4, "{n_repeated}");
    Ok(())
}
