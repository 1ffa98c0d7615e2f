//! Payments of which nobody knows whether they took place: a person finds out, and the rerun follows them.

use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Answer, Client, Database, Peer, Reply, Server, begin, pipeline};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const ENDS: [&str; 4] = ["succeeded", "failed", "cancelled", "timed_out"];

/// A bank that takes every payment, and hangs up without an answer to the first one at each path.
async fn bank() -> Result<Peer> {
    Peer::start(|request| match request.nth {
        0 => Answer::none(),
        _ => Answer::now(200, json!({"receipt": request.nth})),
    })
    .await
}

/// A payment; `thanks` follows it, and `sorry` where it failed and the definition handles that.
fn payment(url: &str, handles_failure: bool) -> Value {
    let params = json!({"method": "POST", "url": url, "body": "7 to Bob"});
    let pay = json!({"id": "pay", "type": "tool", "config": {"tool": "http_request", "params": params}});
    let thanks = json!({"id": "thanks", "type": "parallel"});
    let mut definition = pipeline(&[begin(), pay, thanks], &[("begin", "pay"), ("pay", "thanks")]);
    if handles_failure {
        let sorry = json!({"id": "sorry", "type": "fail", "config": {"message": "sorry, Bob"}});
        if let Some(nodes) = definition["nodes"].as_array_mut() {
            nodes.push(sorry);
        }
        if let Some(edges) = definition["edges"].as_array_mut() {
            edges.push(json!({"from": "pay", "to": "sorry", "on": "failure"}));
        }
    }
    definition
}

fn id(run: &Value) -> Result<&str> {
    run["id"].as_str().context("no id")
}

/// The node `pay` of a run as it is shown.
fn pay(run: &Value) -> &Value {
    run["nodes"]
        .as_array()
        .and_then(|nodes| nodes.iter().find(|node| node["node_id"] == "pay"))
        .unwrap_or(&Value::Null)
}

/// A run that ended with a payment of which nobody knows whether it took place.
async fn unknown(client: &Client, definition: &Value) -> Result<Value> {
    let run = client.start_run(&client.create_pipeline(definition).await?).await?;
    let run = client.run_in(&run, &ENDS, LIMIT).await?;
    assert_eq!(
        (&run["state"], &pay(&run)["error"]["kind"]),
        (&json!("failed"), &json!("effect_unknown")),
        "{run}"
    );
    Ok(run)
}

async fn rerun(client: &Client, run: &Value) -> Result<Value> {
    let path = format!("/api/v1/runs/{}/rerun", id(run)?);
    let again = client.post(&path, &json!({"from": "failed"})).await?.expect(202)?;
    client.run_in(id(&again)?, &ENDS, LIMIT).await
}

async fn decide(client: &Client, run: &Value, node: &str, decision: Value) -> Result<Reply> {
    client.post(&format!("/api/v1/runs/{}/nodes/{node}/decision", id(run)?), &decision).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_took_place_is_not_repeated() -> Result<()> {
    let (peer, database) = (bank().await?, Database::empty().await?);
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let failed = unknown(&ada, &payment(&peer.url("/pay"), false)).await?;
    let again = rerun(&ada, &failed).await?;
    assert_eq!(
        (&again["state"], &pay(&again)["error"]["kind"]),
        (&json!("failed"), &json!("effect_unknown"))
    );
    let paid = json!({"outcome": "succeeded", "output": {"receipt": 1}, "reason": "The bank shows it."});
    let decided = decide(&ada, &again, "pay", paid).await?.expect(202)?;
    assert_eq!((&decided["state"], &decided["id"]), (&json!("failed"), &again["id"]), "it stays as it ended");
    let run = rerun(&ada, &again).await?;
    assert_eq!(
        (&run["state"], &run["output"]["thanks"]["pay"]),
        (&json!("succeeded"), &json!({"receipt": 1})),
        "{run}"
    );
    assert_eq!(peer.n_requests(), 1, "nothing was paid again");
    let journal = ada.get(&format!("/api/v1/runs/{}/journal", id(&run)?)).await?.expect(200)?;
    let entries = journal["items"].as_array().context("no entries")?;
    let said = entries.iter().find(|entry| entry["kind"] == "node_decided").context("nothing was decided")?;
    let payload = &said["payload"];
    assert_eq!(
        (&payload["outcome"], &payload["reason"], &payload["decided_by"]),
        (&json!("succeeded"), &json!("The bank shows it."), &json!("ada@example.org")),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_did_not_take_place_is_made_once_more_with_its_key() -> Result<()> {
    let (peer, database) = (bank().await?, Database::empty().await?);
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let failed = unknown(&ada, &payment(&peer.url("/pay"), false)).await?;
    decide(&ada, &failed, "pay", json!({"outcome": "repeat", "reason": "no trace"})).await?.expect(202)?;
    let run = rerun(&ada, &failed).await?;
    assert_eq!(run["state"], "succeeded", "{run}");
    let keys: Vec<Option<String>> =
        peer.requests().iter().map(|request| request.idempotency_key().map(str::to_owned)).collect();
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(keys[0].is_some() && keys[0] == keys[1], "{keys:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_failed_takes_its_failure_edge_or_fails_the_run() -> Result<()> {
    let (peer, database) = (bank().await?, Database::empty().await?);
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let no = json!({"outcome": "failed", "reason": "Bob closed his account."});
    let failed = unknown(&ada, &payment(&peer.url("/one"), false)).await?;
    decide(&ada, &failed, "pay", no.clone()).await?.expect(202)?;
    let run = rerun(&ada, &failed).await?;
    let said = run["error"]["message"].as_str().unwrap_or_default();
    assert!(said.ends_with("ada@example.org decided that it failed: Bob closed his account."), "{run}");
    let handled = unknown(&ada, &payment(&peer.url("/two"), true)).await?;
    assert_eq!(handled["error"]["message"], "sorry, Bob", "{handled}");
    decide(&ada, &handled, "pay", no).await?.expect(202)?;
    let run = rerun(&ada, &handled).await?;
    assert_eq!((&run["state"], &run["error"]["message"]), (&json!("failed"), &json!("sorry, Bob")), "{run}");
    assert_eq!(pay(&run)["state"], "failed", "{run}");
    assert_eq!(peer.n_requests(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_unknown_end_is_decided_once_by_somebody_who_may_run_it() -> Result<()> {
    let (peer, database) = (bank().await?, Database::empty().await?);
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let bob = server.client().join("bob@example.org").await?;
    let failed = unknown(&ada, &payment(&peer.url("/pay"), false)).await?;
    let repeat = json!({"outcome": "repeat", "reason": "no trace"});
    decide(&bob, &failed, "pay", repeat.clone()).await?.expect_problem(404, "not-found")?;
    let (reader, _) = ada.create_key(&["read"]).await?;
    decide(&reader, &failed, "pay", repeat.clone()).await?.expect_problem(403, "forbidden")?;
    decide(&ada, &failed, "other", repeat.clone()).await?.expect_problem(404, "not-found")?;
    decide(&ada, &failed, "begin", repeat.clone()).await?.expect_problem(409, "conflict")?;
    decide(&ada, &failed, "pay", json!({"approve": true})).await?.expect_problem(409, "conflict")?;
    for (wrong, place) in [
        (json!({"outcome": "repeat"}), "/reason"),
        (json!({"outcome": "repeat", "reason": ""}), "/reason"),
        (json!({"outcome": "done", "reason": "r"}), "/outcome"),
        (json!({"outcome": "failed", "reason": "r", "output": 1}), "/output"),
        (json!({"outcome": "failed", "reason": "r", "approve": false}), "/outcome"),
        (json!({"reason": "r"}), ""),
    ] {
        let reply = decide(&ada, &failed, "pay", wrong.clone()).await?;
        reply.expect_problem(422, "invalid")?;
        assert_eq!(reply.pointers(), [place], "{wrong}");
    }
    decide(&ada, &failed, "pay", repeat.clone()).await?.expect(202)?;
    decide(&ada, &failed, "pay", repeat).await?.expect_problem(409, "conflict")?;
    Ok(())
}
