//! Budgets: a run whose calls cannot be paid waits, holding nothing, and goes on where it stopped.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Answer, Client, Database, Peer, Request, Server, begin, pipeline, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const ENDS: [&str; 4] = ["succeeded", "failed", "cancelled", "timed_out"];

/// How many answers of tools a request shows the model.
fn n_results(request: &Request) -> usize {
    let body = request.json();
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    messages.iter().filter(|message| message["role"] == "tool").count()
}

fn completion(message: &Value) -> Value {
    json!({
        "id": "x", "object": "chat.completion", "model": "test-model-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    })
}

/// Asks for as many lists of files, all at once.
fn tool_calls(n_calls: usize) -> Value {
    let call = |n| json!({"id": format!("call_{n}"), "type": "function", "function": {"name": "list_files", "arguments": "{}"}});
    let calls: Vec<Value> = (0..n_calls).map(call).collect();
    completion(&json!({"role": "assistant", "content": null, "tool_calls": calls}))
}

fn answer() -> Value {
    completion(&json!({"role": "assistant", "content": "There is nothing."}))
}

/// A model that looks at the files twice, and then answers: three calls.
async fn curious() -> Result<Peer> {
    Peer::start(|request| Answer::now(200, if n_results(request) < 2 { tool_calls(1) } else { answer() }))
        .await
}

fn agent() -> Value {
    let agent =
        json!({"provider": "openai", "model": "m", "tools": ["list_files"], "limits": {"max_steps": 9}});
    let node =
        json!({"id": "clerk", "type": "agent", "config": {"agent": agent, "prompt": "What is there?"}});
    pipeline(&[begin(), node], &[("begin", "clerk")])
}

async fn serve(database: &Database, peer: &Peer) -> Result<Server> {
    let url = peer.url("/v1");
    Server::start_with(database, |command: &mut Command| {
        command.env("OPENAI_BASE_URL", url);
    })
    .await
}

/// The project that pipelines of this client are in.
async fn project_of(client: &Client) -> Result<String> {
    let projects = client.get("/api/v1/projects").await?.expect(200)?;
    Ok(projects["items"][0]["id"].as_str().context("no project")?.to_owned())
}

async fn put_budget(client: &Client, budget: &Value) -> Result<Value> {
    let path = format!("/api/v1/projects/{}/budget", project_of(client).await?);
    client.put(&path, budget).await?.expect(200)
}

async fn budget(client: &Client) -> Result<Value> {
    client.get(&format!("/api/v1/projects/{}/budget", project_of(client).await?)).await?.expect(200)
}

/// Starts a run and waits until it waits for its budget.
async fn waiting(client: &Client, definition: &Value) -> Result<String> {
    let run = client.start_run(&client.create_pipeline(definition).await?).await?;
    let parked = client.run_in(&run, &["waiting", "succeeded", "failed"], LIMIT).await?;
    assert_eq!(
        (&parked["state"], &parked["waiting_for"]),
        (&json!("waiting"), &json!("budget_exceeded")),
        "{parked}"
    );
    Ok(run)
}

fn top_up(run: &str) -> String {
    format!("/api/v1/runs/{run}/budget")
}

/// How often each effect of a run is in its journal, begun and done.
async fn effects(client: &Client, run: &str) -> Result<Vec<(String, String)>> {
    let page = client.get(&format!("/api/v1/runs/{run}/journal?limit=200")).await?.expect(200)?;
    let entries = page["items"].as_array().context("no items")?;
    let of = |entry: &Value| {
        let kind = entry["kind"].as_str().unwrap_or_default().to_owned();
        let key = entry["payload"]["key"].as_str().unwrap_or_default().to_owned();
        (kind, key)
    };
    Ok(entries.iter().map(of).filter(|(kind, _)| kind == "effect_done").collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_waits_for_its_budget_survives_a_kill_and_pays_for_no_call_twice() -> Result<()> {
    let database = Database::empty().await?;
    let peer = curious().await?;
    let mut first = serve(&database, &peer).await?;
    let ada = first.client().join("ada@example.org").await?;
    put_budget(&ada, &json!({"model_calls": 2})).await?;
    let run = waiting(&ada, &agent()).await?;
    assert_eq!(peer.n_requests(), 2);
    let stands = budget(&ada).await?;
    assert_eq!(
        (&stands["spent"]["model_calls"], &stands["reserved"]["model_calls"]),
        (&json!(2), &json!(0)),
        "{stands}"
    );
    first.kill()?;
    // As if it had died before it could settle the last call.
    let session = database.session().await?;
    session.execute("UPDATE budgets SET spent = 1, reserved = 1", &[]).await?;
    let open = "INSERT INTO budget_reservations (budget_id, run_id, effect_key, amount)
        SELECT budgets.id, runs.id, 'clerk/0/model/2', 1 FROM budgets, runs";
    session.execute(open, &[]).await?;

    let second = serve(&database, &peer).await?;
    let ada = second.client().login("ada@example.org").await?;
    ada.post(&top_up(&run), &json!({"add": {"model_calls": 1}})).await?.expect(202)?;
    let ended = ada.run_in(&run, &ENDS, LIMIT).await?;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(ended["nodes"][1]["attempt"], 1, "{ended}");
    assert_eq!(ended["output"]["clerk"]["usage"]["input_tokens"], 30, "{ended}");
    assert_eq!(peer.n_requests(), 3, "each call is made once");
    let done: Vec<String> = effects(&ada, &run).await?.into_iter().map(|(_, key)| key).collect();
    assert_eq!(done, ["model/1", "tool/1/0", "model/2", "tool/2/0", "model/3"]);
    let stands = budget(&ada).await?;
    let used = (&stands["spent"]["model_calls"], &stands["reserved"]["model_calls"]);
    assert_eq!(used, (&json!(2), &json!(0)), "the top-up granted the last call: {stands}");
    ada.post(&top_up(&run), &json!({"add": {"model_calls": 1}})).await?.expect_problem(409, "conflict")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_refused_costs_nothing_and_one_that_was_lost_is_paid_again() -> Result<()> {
    let database = Database::empty().await?;
    let n_asked = AtomicUsize::new(0);
    let peer = Peer::start(move |_| match n_asked.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::now(429, json!({"error": {"message": "later"}})),
        2 => Answer::now(500, json!({"error": {"message": "lost"}})),
        _ => Answer::now(200, answer()),
    })
    .await?;
    let server = serve(&database, &peer).await?;
    let ada = server.client().join("ada@example.org").await?;
    put_budget(&ada, &json!({"model_calls": 1})).await?;
    let mut persistent = agent();
    persistent["nodes"][1]["retry"] = json!({"max_attempts": 3, "initial_backoff_ms": 1});
    let run = ada.start_run(&ada.create_pipeline(&persistent).await?).await?;
    assert_eq!(ada.run_in(&run, &ENDS, LIMIT).await?["state"], "succeeded");
    assert_eq!(budget(&ada).await?["spent"]["model_calls"], 1, "the first was refused");

    put_budget(&ada, &json!({"model_calls": 2})).await?;
    let run = waiting(&ada, &persistent).await?;
    assert_eq!(peer.n_requests(), 3, "the third is lost, and a fourth is not paid for");
    let stands = budget(&ada).await?;
    let used =
        |budget: &Value| (budget["spent"]["model_calls"].clone(), budget["reserved"]["model_calls"].clone());
    assert_eq!(used(&stands), (json!(1), json!(1)), "its cost is unknown");
    ada.post(&format!("/api/v1/runs/{run}/cancel"), &json!({})).await?.expect(202)?;
    ada.run_in(&run, &ENDS, LIMIT).await?;
    waiting(&ada, &persistent).await?;
    assert_eq!(
        used(&budget(&ada).await?),
        (json!(2), json!(0)),
        "its cost stays unknown, so the reservation is spent"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_budget_resumes_every_run_that_waits_for_it() -> Result<()> {
    let database = Database::empty().await?;
    let peer = curious().await?;
    let server = serve(&database, &peer).await?;
    let ada = server.client().join("ada@example.org").await?;
    put_budget(&ada, &json!({"tokens": 0, "period": "month"})).await?;
    let runs = [waiting(&ada, &agent()).await?, waiting(&ada, &agent()).await?];
    assert_eq!(peer.n_requests(), 0);
    let set = put_budget(&ada, &json!({"tokens": 1_000_000, "period": "month"})).await?;
    assert_eq!(
        (&set["tokens"], &set["period"], &set["model_calls"]),
        (&json!(1_000_000), &json!("month"), &json!(null))
    );
    for run in &runs {
        assert_eq!(ada.run_in(run, &ENDS, LIMIT).await?["state"], "succeeded");
    }
    let stands = budget(&ada).await?;
    assert_eq!(
        (&stands["spent"]["tokens"], &stands["reserved"]["tokens"]),
        (&json!(90), &json!(0)),
        "{stands}"
    );
    for request in peer.requests() {
        assert_eq!(
            request.json()["max_tokens"],
            4096,
            "an answer without a bound would be none of the budget"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_below_another_shares_the_allowance_of_its_tree() -> Result<()> {
    let database = Database::empty().await?;
    let peer = curious().await?;
    let server = serve(&database, &peer).await?;
    let ada = server.client().join("ada@example.org").await?;
    put_budget(&ada, &json!({"model_calls": 0})).await?;
    let below = ada.create_pipeline(&agent()).await?;
    let config = json!({"action": "execute_pipeline", "pipeline_id": below});
    let above = pipeline(&[json!({"id": "call", "type": "action", "config": config})], &[]);
    let root = ada.start_run(&ada.create_pipeline(&above).await?).await?;
    let stranger = waiting(&ada, &agent()).await?;
    wait_until(LIMIT, "the child run waits for the budget of its project", async || {
        let topped_up = ada.post(&top_up(&root), &json!({"add": {"model_calls": 3}})).await;
        let status = topped_up.map_err(|error| error.to_string())?.status;
        if status == 202 { Ok(()) } else { Err(status.to_string()) }
    })
    .await?;
    let ended = ada.run_in(&root, &ENDS, LIMIT).await?;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(peer.n_requests(), 3);
    assert_eq!(ada.run_in(&stranger, &["waiting"], LIMIT).await?["waiting_for"], "budget_exceeded");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_its_budget_is_cancelled_like_any_other() -> Result<()> {
    let database = Database::empty().await?;
    let peer = curious().await?;
    let server = serve(&database, &peer).await?;
    let ada = server.client().join("ada@example.org").await?;
    put_budget(&ada, &json!({"model_calls": 1})).await?;
    let run = waiting(&ada, &agent()).await?;
    ada.post(&format!("/api/v1/runs/{run}/cancel"), &json!({})).await?.expect(202)?;
    assert_eq!(ada.run_in(&run, &ENDS, LIMIT).await?["state"], "cancelled");
    ada.post(&top_up(&run), &json!({"add": {"model_calls": 9}})).await?.expect_problem(409, "conflict")?;
    assert_eq!(peer.n_requests(), 1);
    let mut overdue = agent();
    overdue["timeout_seconds"] = json!(1);
    let run = ada.start_run(&ada.create_pipeline(&overdue).await?).await?;
    assert_eq!(ada.run_in(&run, &ENDS, LIMIT).await?["state"], "timed_out");
    let mut impatient = agent();
    impatient["nodes"][1]["timeout_seconds"] = json!(1);
    let run = ada.start_run(&ada.create_pipeline(&impatient).await?).await?;
    let ended = ada.run_in(&run, &ENDS, LIMIT).await?;
    assert_eq!(
        (&ended["state"], &ended["nodes"][1]["state"]),
        (&json!("failed"), &json!("timed_out")),
        "{ended}"
    );
    assert_eq!(peer.n_requests(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_tools_called_at_once_those_that_are_paid_for_are_done_and_not_repeated() -> Result<()> {
    let database = Database::empty().await?;
    let peer = Peer::start(|request| {
        Answer::now(200, if n_results(request) == 0 { tool_calls(3) } else { answer() })
    })
    .await?;
    let server = serve(&database, &peer).await?;
    let ada = server.client().join("ada@example.org").await?;
    put_budget(&ada, &json!({"tool_calls": 2})).await?;
    let run = waiting(&ada, &agent()).await?;
    assert_eq!(effects(&ada, &run).await?.len(), 3, "the model and two tools");
    ada.post(&top_up(&run), &json!({"add": {"tool_calls": 1}})).await?.expect(202)?;
    assert_eq!(ada.run_in(&run, &ENDS, LIMIT).await?["state"], "succeeded");
    let done = effects(&ada, &run).await?;
    assert_eq!(done.iter().collect::<BTreeSet<_>>().len(), 5);
    assert_eq!(done.len(), 5, "each once");

    let node = json!({"id": "look", "type": "tool", "config": {"tool": "list_files"}});
    let run = waiting(&ada, &pipeline(&[node], &[])).await?;
    put_budget(&ada, &json!({})).await?;
    assert_eq!(ada.run_in(&run, &ENDS, LIMIT).await?["state"], "succeeded", "nothing bounds it any more");
    let stands = budget(&ada).await?;
    assert_eq!((&stands["tool_calls"], &stands["spent"]["tool_calls"]), (&json!(null), &json!(null)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_makes_no_sense_is_refused_at_its_place() -> Result<()> {
    let database = Database::empty().await?;
    let peer = curious().await?;
    let server = serve(&database, &peer).await?;
    let ada = server.client().join("ada@example.org").await?;
    let path = format!("/api/v1/projects/{}/budget", project_of(&ada).await?);
    let refused = ada.put(&path, &json!({"money": 5, "tokens": -1, "period": "year", "time": 1})).await?;
    refused.expect_problem(422, "invalid")?;
    let mut pointers = refused.pointers();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/money", "/period", "/time", "/tokens"]);
    assert!(refused.text.contains("no prices are known"), "{}", refused.text);
    put_budget(&ada, &json!({"model_calls": 0})).await?;
    let run = waiting(&ada, &agent()).await?;
    for (add, pointer) in [
        (json!({}), "/add"),
        (json!({"model_calls": 0}), "/add/model_calls"),
        (json!({"model_calls": u64::MAX}), "/add/model_calls"),
        (json!({"money": 1}), "/add/money"),
        (json!({"tokens": 1}), "/add/tokens"),
    ] {
        let refused = ada.post(&top_up(&run), &json!({"add": add})).await?;
        refused.expect_problem(422, "invalid")?;
        assert_eq!(refused.pointers(), [pointer]);
    }
    assert_eq!(ada.run_in(&run, &["waiting"], LIMIT).await?["waiting_for"], "budget_exceeded");
    Ok(())
}
