//! Work that was done before a failure is kept: a rerun asks nobody twice for what succeeded.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Answer, Client, Database, Peer, Request, Server, begin, call, pipeline};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const ENDS: [&str; 4] = ["succeeded", "failed", "cancelled", "timed_out"];

/// A peer that refuses what `is_refused` says until it is told to take everything.
async fn reluctant(
    is_refused: impl Fn(&Request) -> bool + Send + Sync + 'static,
    answer: impl Fn(&Request) -> Value + Send + Sync + 'static,
) -> Result<(Peer, Arc<AtomicBool>)> {
    let takes_all = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&takes_all);
    let peer = Peer::start(move |request| {
        if is_refused(request) && !switch.load(Ordering::SeqCst) {
            return Answer::now(400, json!({}));
        }
        Answer::now(200, answer(request))
    })
    .await?;
    Ok((peer, takes_all))
}

async fn started(client: &Client, pipeline: &str, input: &Value) -> Result<Value> {
    let path = format!("/api/v1/pipelines/{pipeline}/runs");
    let run = client.post(&path, &json!({ "input": input })).await?.expect(202)?;
    client.run_in(run["id"].as_str().context("no id")?, &ENDS, LIMIT).await
}

async fn rerun(client: &Client, run: &Value) -> Result<Value> {
    let path = format!("/api/v1/runs/{}/rerun", run["id"].as_str().context("no id")?);
    let again = client.post(&path, &json!({"from": "failed"})).await?.expect(202)?;
    client.run_in(again["id"].as_str().context("no id")?, &ENDS, LIMIT).await
}

/// How often the peer was asked for each body, and with how many idempotency keys.
fn counts(peer: &Peer) -> BTreeMap<String, (usize, usize)> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for request in peer.requests() {
        let key = request.idempotency_key().unwrap_or_default().to_owned();
        keys.entry(format!("{} {}", request.path, request.body)).or_default().push(key);
    }
    let count = |keys: Vec<String>| {
        let distinct: BTreeSet<&String> = keys.iter().collect();
        (keys.len(), distinct.len())
    };
    keys.into_iter().map(|(request, keys)| (request, count(keys))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_of_a_failed_loop_asks_only_for_what_failed() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let (peer, takes_all) =
        reluctant(|request| request.json()["n"] == 37, |request| request.json()["n"].clone()).await?;
    let ada = server.client().join("ada@example.org").await?;
    let mut ask = call("ask", &peer.url("/ask"));
    ask["config"]["body"] = json!({"n": "${{ item }}"});
    let graph = json!({"nodes": [ask], "output": "nodes.ask.output.body"});
    let config = json!({"items": "input.items", "graph": graph, "max_concurrency": 4});
    let map = json!({"id": "each", "type": "map", "config": config});
    let id = ada.create_pipeline(&pipeline(&[begin(), map], &[("begin", "each")])).await?;
    let items: Vec<i64> = (0..40).collect();
    let failed = started(&ada, &id, &json!({ "items": items })).await?;
    assert_eq!(failed["state"], "failed", "{failed}");
    takes_all.store(true, Ordering::SeqCst);
    let run = rerun(&ada, &failed).await?;
    assert_eq!((&run["state"], &run["output"]["each"]), (&json!("succeeded"), &json!(items)), "{run}");
    // The items in flight when one failed were cut off: they are asked again, under the same key.
    let mut n_cut_off = 0;
    for (request, count) in counts(&peer) {
        match (request.contains("37"), count) {
            (true, count) => assert_eq!(count, (2, 1), "{request}"),
            (false, (2, 1)) => n_cut_off += 1,
            (false, count) => assert_eq!(count, (1, 1), "{request}"),
        }
    }
    assert!(n_cut_off < 4, "at most four items execute at once, and one of them failed: {n_cut_off}");
    let journal = format!("/api/v1/runs/{}/journal", run["id"].as_str().context("no id")?);
    let entries = ada.get(&journal).await?.expect(200)?;
    let reused = entries["items"].as_array().context("no entries")?;
    let reused = reused.iter().find(|entry| entry["kind"] == "work_reused").context("nothing was reused")?;
    assert_eq!(reused["payload"]["from_runs"], json!([failed["id"]]), "{reused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_takes_up_the_pipeline_that_a_node_runs_where_it_failed() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let (peer, takes_all) = reluctant(|request| request.path == "/thank", |_| json!({})).await?;
    let ada = server.client().join("ada@example.org").await?;
    let inner =
        pipeline(&[call("pay", &peer.url("/pay")), call("thank", &peer.url("/thank"))], &[("pay", "thank")]);
    let inner = ada.create_pipeline(&inner).await?;
    let config = json!({"action": "execute_pipeline", "pipeline_id": inner});
    let outer = pipeline(&[json!({"id": "below", "type": "action", "config": config})], &[]);
    let outer = ada.create_pipeline(&outer).await?;
    let failed = started(&ada, &outer, &json!({})).await?;
    assert_eq!(failed["state"], "failed", "{failed}");
    takes_all.store(true, Ordering::SeqCst);
    let run = rerun(&ada, &failed).await?;
    assert_eq!(run["state"], "succeeded", "{run}");
    let asked = ["/pay", "/thank"].map(|path| peer.requests_to(path).len());
    assert_eq!(asked, [1, 2], "the payment is not repeated");
    let keys: Vec<_> = peer.requests_to("/thank");
    assert_eq!(keys[0].idempotency_key(), keys[1].idempotency_key(), "the same request keeps its key");
    Ok(())
}

/// A model that writes one note in each of twelve steps, and then says that it is done.
fn reply(request: &Request) -> Value {
    let n_done = request.json()["messages"]
        .as_array()
        .map_or(0, |messages| messages.iter().filter(|message| message["role"] == "tool").count());
    let (message, finish_reason) = if n_done < 12 {
        let arguments = json!({"path": format!("{n_done}.txt"), "content": "a note"}).to_string();
        let function = json!({"name": "write_file", "arguments": arguments});
        let call = json!({"id": format!("call_{n_done}"), "type": "function", "function": function});
        (json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls")
    } else {
        (json!({"role": "assistant", "content": "Twelve notes."}), "stop")
    };
    json!({
        "id": "x", "object": "chat.completion", "model": "test-model-1",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_of_an_agent_asks_its_model_for_no_step_again() -> Result<()> {
    let is_last = |request: &Request| request.json()["messages"].to_string().contains("call_11");
    let (peer, takes_all) = reluctant(is_last, reply).await?;
    let database = Database::empty().await?;
    let configure = |command: &mut Command| {
        command.env("OPENAI_BASE_URL", peer.url("/v1")).env("OPENAI_API_KEY", "sk-test-agent");
    };
    let server = Server::start_with(&database, configure).await?;
    let ada = server.client().join("ada@example.org").await?;
    let agent = json!({
        "name": "Clerk", "instructions": "Write twelve notes.", "provider": "openai", "model": "test-model",
        "tools": ["write_file"], "limits": {"max_steps": 20}
    });
    let node = json!({"id": "clerk", "type": "agent", "config": {"agent": agent, "prompt": "Go on."}});
    let id = ada.create_pipeline(&pipeline(&[node], &[])).await?;
    let failed = started(&ada, &id, &json!({})).await?;
    assert_eq!((&failed["state"], peer.n_requests()), (&json!("failed"), 13), "{failed}");
    takes_all.store(true, Ordering::SeqCst);
    let run = rerun(&ada, &failed).await?;
    assert_eq!(run["state"], "succeeded", "{run}");
    assert_eq!(run["output"]["clerk"]["content"], "Twelve notes.", "{run}");
    assert_eq!(peer.n_requests(), 14, "twelve recorded steps, and the last one again");
    Ok(())
}
