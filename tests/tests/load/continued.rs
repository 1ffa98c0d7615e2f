//! One run of everything that costs something, killed, cancelled, corrected and continued: no work is done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gathering_e2e::{Answer, Client, Database, Peer, Request, Server, call, pipeline, soak, wait_until};
use serde_json::{Value, json};

use crate::MACHINE;

const LIMIT: Duration = Duration::from_secs(300);
const ENDS: [&str; 4] = ["succeeded", "failed", "cancelled", "timed_out"];

/// How many steps the agent takes.
const N_STEPS: usize = 12;

/// How many items are under way at once: a kill or a cancel may cut off so many calls.
const N_AT_ONCE: usize = 8;

fn clerk() -> Value {
    json!({
        "name": "Clerk", "instructions": "Write notes.", "provider": "openai", "model": "test-model",
        "tools": ["write_file"], "limits": {"max_steps": 20}
    })
}

/// A model that writes a note in each step, and then says that it is done.
fn reply(request: &Request) -> Value {
    let is_result = |message: &&Value| message["role"] == "tool";
    let n_done = request.json()["messages"].as_array().map_or(0, |all| all.iter().filter(is_result).count());
    let message = if n_done < N_STEPS {
        let arguments = json!({"path": format!("{n_done}.txt"), "content": "a note"}).to_string();
        let function = json!({"name": "write_file", "arguments": arguments});
        let call = json!({"id": format!("call_{n_done}"), "type": "function", "function": function});
        json!({"role": "assistant", "content": null, "tool_calls": [call]})
    } else {
        json!({"role": "assistant", "content": "Done."})
    };
    let finish_reason = if n_done < N_STEPS { "tool_calls" } else { "stop" };
    json!({
        "id": "x", "object": "chat.completion", "model": "test-model-1",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    })
}

/// A peer that holds the answers to the items from `held` on, until it is told to release them.
async fn peer(held: usize) -> Result<Peer> {
    let is_held = move |request: &Request| request.json()["n"].as_u64().is_some_and(|n| n >= held as u64);
    Peer::start(move |request| match request.path.as_str() {
        "/v1/chat/completions" => Answer::now(200, reply(request)),
        "/wrong" => Answer::now(404, json!({})),
        "/item" if is_held(request) => Answer::held(request.json()),
        "/item" => Answer::slow(Duration::from_millis(20), request.json()),
        _ => Answer::now(200, json!({})),
    })
    .await
}

/// A payment, an agent, a child pipeline that pays, a list of items, and a last call at this path.
fn everything(peer: &Peer, child: &str, last: &str) -> Value {
    let mut item = call("call", &peer.url("/item"));
    item["config"]["body"] = json!({"n": "${{ item }}"});
    let graph = json!({"nodes": [item], "output": "nodes.call.output.body.n"});
    let each = json!({"items": "input.items", "graph": graph, "max_concurrency": N_AT_ONCE});
    let below = json!({"action": "execute_pipeline", "pipeline_id": child});
    let nodes = [
        call("pay", &peer.url("/pay")),
        json!({"id": "clerk", "type": "agent", "config": {"agent": clerk(), "prompt": "Go on."}}),
        json!({"id": "below", "type": "action", "config": below}),
        json!({"id": "each", "type": "map", "config": each}),
        call("last", &peer.url(last)),
    ];
    let edges = [("pay", "clerk"), ("clerk", "below"), ("below", "each"), ("each", "last")];
    let mut definition = pipeline(&nodes, &edges);
    definition["output"] = json!("nodes.each.output");
    definition
}

fn id(run: &Value) -> Result<&str> {
    run["id"].as_str().context("no id")
}

async fn rerun(client: &Client, run: &str, body: &Value) -> Result<Value> {
    client.post(&format!("/api/v1/runs/{run}/rerun"), body).await?.expect(202)
}

async fn n_items(peer: &Peer, n: usize) -> Result<()> {
    wait_until(LIMIT, "items are done", async || match peer.requests_to("/item").len() {
        seen if seen >= n => Ok(()),
        seen => Err(format!("{seen} of {n}")),
    })
    .await
}

/// Each request had one key, however often it was sent, and only what was cut off was sent again.
fn check_items(peer: &Peer, items: &[usize], n_interruptions: usize) -> Result<()> {
    let mut keys: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for request in peer.requests_to("/item") {
        let n = request.json()["n"].as_u64().and_then(|n| usize::try_from(n).ok()).context("no number")?;
        keys.entry(n).or_default().push(request.idempotency_key().unwrap_or_default().to_owned());
    }
    ensure!(keys.keys().eq(items), "{} items were asked for", keys.len());
    for (n, keys) in &keys {
        let distinct: BTreeSet<&String> = keys.iter().collect();
        ensure!(distinct.len() == 1, "item {n} was asked for as {} different requests", distinct.len());
    }
    let n_again: usize = keys.values().map(|keys| keys.len() - 1).sum();
    ensure!(n_again <= n_interruptions * N_AT_ONCE, "{n_again} items were asked for again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_killed_cancelled_corrected_and_continued_pays_nothing_twice() -> Result<()> {
    let _machine = MACHINE.read().await;
    let items: Vec<usize> = (0..soak(100, 1000)).collect();
    let (database, peer) = (Database::empty().await?, peer(items.len() / 2).await?);
    let configure = |command: &mut Command| {
        command.env("OPENAI_BASE_URL", peer.url("/v1")).env("OPENAI_API_KEY", "sk-test-continued");
    };
    let mut first = Server::start_with(&database, configure).await?;
    let ada = first.client().join("ada@example.org").await?;
    let child = pipeline(
        &[call("pay", &peer.url("/child")), call("thank", &peer.url("/thank"))],
        &[("pay", "thank")],
    );
    let child = ada.create_pipeline(&child).await?;
    let outer = ada.create_pipeline(&everything(&peer, &child, "/wrong")).await?;
    let path = format!("/api/v1/pipelines/{outer}/runs");
    let run = ada.post(&path, &json!({"input": {"items": items}})).await?.expect(202)?;

    n_items(&peer, items.len() / 4).await?;
    first.kill()?;
    let second = Server::start_with(&database, configure).await?;
    let ada = second.client().login("ada@example.org").await?;
    n_items(&peer, items.len() / 2).await?;
    ada.post(&format!("/api/v1/runs/{}/cancel", id(&run)?), &json!({})).await?.expect(202)?;
    assert_eq!(ada.run_in(id(&run)?, &ENDS, LIMIT).await?["state"], "cancelled");
    peer.release();

    let failed = rerun(&ada, id(&run)?, &json!({"from": "failed"})).await?;
    assert_eq!(failed["plan"]["kept"], json!(["pay", "clerk", "below"]), "{failed}");
    let failed = ada.run_in(id(&failed)?, &ENDS, LIMIT).await?;
    assert_eq!(failed["state"], "failed", "the last call is wrong: {failed}");

    let change = json!({"definition": everything(&peer, &child, "/last")});
    ada.put(&format!("/api/v1/pipelines/{outer}"), &change).await?.expect(200)?;
    let corrected = rerun(&ada, id(&failed)?, &json!({"from": "failed", "version": 2})).await?;
    assert_eq!(corrected["plan"]["kept"], json!(["pay", "clerk", "below", "each"]), "{corrected}");
    let ended = ada.run_in(id(&corrected)?, &ENDS, LIMIT).await?;
    assert_eq!(
        (&ended["state"], &ended["output"]),
        (&json!("succeeded"), &json!(items)),
        "{}",
        ended["error"]
    );

    check_items(&peer, &items, 2)?;
    let asked = ["/pay", "/v1/chat/completions", "/child", "/thank", "/wrong", "/last"];
    let asked = asked.map(|path| peer.requests_to(path).len());
    assert_eq!(asked, [1, N_STEPS + 1, 1, 1, 1, 1]);
    Ok(())
}
