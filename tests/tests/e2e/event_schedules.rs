//! Schedules that fire for events, on real processes.

use anyhow::{Context, Result};
use gathering_e2e::{Answer, Client, Database, Peer, Server, begin, call, pipeline};
use serde_json::{Value, json};

use crate::schedules::ledger_with;

async fn create(client: &Client, trigger: &Value, pipeline: &str) -> Result<String> {
    let action = json!({"action": "execute_pipeline", "pipeline_id": pipeline, "input": {"shop": "north"}});
    let schedule = json!({"name": "on events", "trigger": trigger, "action": action});
    let created = client.post("/api/v1/schedules", &schedule).await?.expect(201)?;
    assert_eq!((&created["state"], &created["next_fire_at"]), (&json!("active"), &json!(null)));
    Ok(created["id"].as_str().context("no id")?.to_owned())
}

async fn post(client: &Client, event: &Value) -> Result<()> {
    client.post("/api/v1/events", event).await?.expect(201)?;
    Ok(())
}

fn have_succeeded(n: usize) -> impl Fn(&[Value]) -> bool {
    move |fires| fires.iter().filter(|fire| fire["run_state"] == "succeeded").count() == n
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_posted_anywhere_starts_a_run_that_works_on_it() -> Result<()> {
    let database = Database::empty().await?;
    let (one, other) = (Server::start(&database).await?, Server::start(&database).await?);
    let client = one.client().join("ada@example.org").await?;
    let peer = Peer::start(|_| Answer::now(200, json!({}))).await?;
    let url = peer.url("/orders/${{ string(input.event.data.id) }}");
    let id = client.create_pipeline(&pipeline(&[begin(), call("note", &url)], &[("begin", "note")])).await?;
    let trigger =
        json!({"type": "event", "event_type": "order.paid,order.sent", "when": "event.data.total > 10"});
    let schedule = create(&client, &trigger, &id).await?;
    let elsewhere = other.client().login("ada@example.org").await?;
    post(&elsewhere, &json!({"type": "order.paid", "data": {"id": 1, "total": 10}})).await?;
    post(&elsewhere, &json!({"type": "order.paid", "data": {"id": 2, "total": 11}})).await?;
    post(&elsewhere, &json!({"type": "order.lost", "data": {"id": 3, "total": 99}})).await?;
    let batch = json!([
        {"type": "order.sent", "data": {"id": 4, "total": 20}}, {"type": "order.sent", "data": {"id": 5, "total": 21}},
    ]);
    post(&elsewhere, &json!({"events": batch})).await?;
    let ledger = ledger_with(&client, &schedule, "three runs have succeeded", have_succeeded(3)).await?;
    assert!(ledger.iter().all(|fire| fire["outcome"] == "started"), "{ledger:?}");
    let mut paths: Vec<String> = peer.requests().iter().map(|request| request.path.clone()).collect();
    paths.sort();
    assert_eq!(paths, ["/orders/2", "/orders/4", "/orders/5"]);
    let run = ledger[0]["run_id"].as_str().context("no run")?;
    let run = client.get(&format!("/api/v1/runs/{run}")).await?.expect(200)?;
    assert_eq!(
        (&run["input"]["shop"], &run["input"]["event"]["type"]),
        (&json!("north"), &json!("order.paid"))
    );
    assert_eq!(run["trigger"]["event"]["seq"], ledger[0]["event_seq"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_an_event_that_was_written_while_nothing_ran_fires_when_an_instance_is_back() -> Result<()> {
    let database = Database::empty().await?;
    let mut server = Server::start(&database).await?;
    let client = server.client().join("ada@example.org").await?;
    let id = client.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let schedule = create(&client, &json!({"type": "event", "event_type": "order.*"}), &id).await?;
    server.kill()?;
    let session = database.session().await?;
    let write = "INSERT INTO events (project_id, type, data, at) \
                 SELECT project_id, 'order.paid', '{}', now() - interval '1 hour' FROM schedules, generate_series(1, 3)";
    session.execute(write, &[]).await?;
    let server = Server::start(&database).await?;
    let client = server.client().login("ada@example.org").await?;
    let ledger = ledger_with(&client, &schedule, "three runs have succeeded", have_succeeded(3)).await?;
    assert!(ledger.iter().all(|fire| fire["outcome"] == "caught_up"), "{ledger:?}");
    Ok(())
}

/// A schedule that would start itself for ever fires once for what others caused.
#[tokio::test(flavor = "multi_thread")]
async fn a_loop_of_runs_and_events_ends_and_says_so() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let client = server.client().join("ada@example.org").await?;
    let id = client.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let own = format!("event.data.pipeline_id == '{id}'");
    let trigger = json!({"type": "event", "event_type": "run.succeeded", "when": own});
    let (one, two) = (create(&client, &trigger, &id).await?, create(&client, &trigger, &id).await?);
    client.start_run(&id).await?;
    // Each fires for the run by hand and for the first run of the other, and not for what began with itself.
    for schedule in [one, two] {
        let is_done = |fires: &[Value]| fires.len() == 5 && have_succeeded(2)(fires);
        let ledger = ledger_with(&client, &schedule, "it has met all five ends", is_done).await?;
        let n_loops = ledger.iter().filter(|fire| fire["reason"] == "loop").count();
        assert_eq!(n_loops, 3, "{ledger:?}");
    }
    let runs = client.get("/api/v1/runs").await?.expect(200)?;
    assert_eq!(runs["items"].as_array().map(Vec::len), Some(5), "{runs}");
    Ok(())
}
