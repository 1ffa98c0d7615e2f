//! Limits of pipelines: runs of one key execute at most as many at once, start at most as often, on all instances together.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::{DateTime, FixedOffset};
use gathering_e2e::{
    Answer, Client, Database, Peer, Server, begin, call, pipeline, wait_until, workspace_root,
};
use reqwest::Method;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const ENDS: [&str; 4] = ["succeeded", "failed", "cancelled", "timed_out"];

/// A pipeline that asks the peer, with these fields beside its nodes.
fn limited(peer: &Peer, fields: &Value) -> Value {
    let mut ask = call("ask", &peer.url("/ask"));
    ask["config"]["body"] = json!({"of": "${{ input.customer }}"});
    let mut definition = pipeline(&[begin(), ask], &[("begin", "ask")]);
    for (name, value) in fields.as_object().into_iter().flatten() {
        definition[name] = value.clone();
    }
    definition
}

async fn start(client: &Client, pipeline: &str, input: &Value) -> Result<Value> {
    let path = format!("/api/v1/pipelines/{pipeline}/runs");
    client.post(&path, &json!({ "input": input })).await?.expect(202)
}

fn id_of(run: &Value) -> Result<String> {
    Ok(run["id"].as_str().context("no id")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_a_key_share_its_permits_on_all_instances_also_after_one_is_killed() -> Result<()> {
    const PERMITS: usize = 2;
    let database = Database::empty().await?;
    let mut one = Server::start(&database).await?;
    let other = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let ada = other.client().join("ada@example.org").await?;
    let concurrency = json!({"concurrency": {"key": "input.customer", "limit": PERMITS}});
    let id = ada.create_pipeline(&limited(&peer, &concurrency)).await?;
    let mut runs = Vec::new();
    for n in 0..10 {
        let customer = if n < 8 { "busy" } else { "quiet" };
        runs.push(id_of(&start(&ada, &id, &json!({ "customer": customer })).await?)?);
    }
    // Two of each customer are asked for, and no other: those who wait hold nothing.
    peer.asked(2 * PERMITS, LIMIT).await?;
    let waiting = ada.get("/api/v1/runs?state=waiting").await?.expect(200)?;
    let waiting = waiting["items"].as_array().context("no items")?;
    assert!(
        waiting.len() == 6 && waiting.iter().all(|run| run["waiting_for"] == "concurrency"),
        "{waiting:?}"
    );
    let session = database.session().await?;
    one.kill()?;
    wait_until(LIMIT, "the runs of the dead instance execute again", async || {
        let dead =
            "SELECT count(*) FROM all_runs WHERE state = 'running' AND owner NOT IN (SELECT id FROM instances)";
        let queued = "SELECT count(*) FROM all_runs WHERE state = 'queued'";
        let mut n_left = 0;
        for sql in [dead, queued] {
            n_left += session.query_one(sql, &[]).await.map_err(|error| error.to_string())?.get::<_, i64>(0);
        }
        if n_left == 0 { Ok(()) } else { Err(format!("{n_left} do not")) }
    })
    .await?;
    let most = "SELECT max(n) FROM (SELECT count(*) AS n FROM all_runs WHERE state = 'running' GROUP BY permit_key) AS k";
    assert_eq!(session.query_one(most, &[]).await?.get::<_, i64>(0), i64::try_from(PERMITS)?);
    peer.release();
    for run in &runs {
        let ended = ada.run_in(run, &ENDS, LIMIT).await?;
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
    let held = session.query_one("SELECT sum(held + waiting) FROM concurrency_keys", &[]).await?;
    assert_eq!(held.get::<_, i64>(0), 0, "every permit was given back");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_at_the_limit_is_as_the_pipeline_says() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let ada = server.client().join("ada@example.org").await?;
    let input = json!({"customer": "c"});
    let with = |on_limit: &str| json!({"concurrency": {"key": "'all'", "limit": 1, "on_limit": on_limit}});

    let skipping = ada.create_pipeline(&limited(&peer, &with("skip"))).await?;
    let first = id_of(&start(&ada, &skipping, &input).await?)?;
    peer.asked(1, LIMIT).await?;
    let second = id_of(&start(&ada, &skipping, &input).await?)?;
    let skipped = ada.run_in(&second, &ENDS, LIMIT).await?;
    assert_eq!((&skipped["state"], &skipped["started_at"]), (&json!("cancelled"), &Value::Null), "{skipped}");
    assert_eq!(skipped["error"]["message"], "cancelled because no permit of its concurrency key was free");

    let replacing = ada.create_pipeline(&limited(&peer, &with("cancel_oldest"))).await?;
    let old = id_of(&start(&ada, &replacing, &input).await?)?;
    peer.asked(2, LIMIT).await?;
    let new = id_of(&start(&ada, &replacing, &input).await?)?;
    let cancelled = ada.run_in(&old, &ENDS, LIMIT).await?;
    assert_eq!(cancelled["state"], "cancelled", "{cancelled}");
    let message = "cancelled because a newer run of its concurrency key took its place";
    assert_eq!(cancelled["error"]["message"], message, "{cancelled}");
    peer.asked(3, LIMIT).await?;
    peer.release();
    for run in [&first, &new] {
        let ended = ada.run_in(run, &ENDS, LIMIT).await?;
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_spaces_the_starts_of_its_key() -> Result<()> {
    const N_RUNS: usize = 8;
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let _other = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::now(200, json!({}))).await?;
    let ada = server.client().join("ada@example.org").await?;
    let rate = json!({"rate_limit": {"key": "input.customer", "per_second": 5}});
    let id = ada.create_pipeline(&limited(&peer, &rate)).await?;
    let began = Instant::now();
    for _ in 0..N_RUNS {
        start(&ada, &id, &json!({"customer": "c"})).await?;
    }
    peer.asked(N_RUNS, LIMIT).await?;
    let took = began.elapsed();
    // Seven pauses of 200 ms; a late claim may catch up 100 ms of them.
    assert!(took >= Duration::from_millis(7 * 200 - 100), "{N_RUNS} starts took {took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_without_a_key_is_refused_by_every_door_before_a_run_is_accepted() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::now(200, json!({}))).await?;
    let ada = server.client().join("ada@example.org").await?;
    let concurrency = json!({"concurrency": {"key": "input.customer", "limit": 1}});
    let definition = limited(&peer, &concurrency);
    let id = ada.create_pipeline(&definition).await?;
    let refused = ada.post(&format!("/api/v1/pipelines/{id}/runs"), &json!({"input": {}})).await?;
    assert_eq!(refused.pointers(), ["/input"]);
    refused.expect_problem(422, "invalid")?;
    let schedule = json!({
        "name": "s", "trigger": {"type": "interval", "seconds": 3600},
        "action": {"action": "execute_pipeline", "pipeline_id": id, "input": {}},
    });
    let refused = ada.post("/api/v1/schedules", &schedule).await?;
    assert_eq!(refused.pointers(), ["/action/input"]);
    let mut unlimited = definition;
    unlimited["concurrency"]["limit"] = json!(0);
    let body = json!({"name": "p", "definition": unlimited});
    assert_eq!(ada.post("/api/v1/pipelines", &body).await?.pointers(), ["/definition/concurrency/limit"]);
    let session = database.session().await?;
    assert_eq!(session.query_one("SELECT count(*) FROM all_runs", &[]).await?.get::<_, i64>(0), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_of_a_limited_pipeline_waits_for_its_permit_and_holds_no_instance() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let ada = server.client().join("ada@example.org").await?;
    let concurrency = json!({"concurrency": {"key": "input.customer", "limit": 1}});
    let child = ada.create_pipeline(&limited(&peer, &concurrency)).await?;
    let config = json!({"action": "execute_pipeline", "pipeline_id": child, "input": {"customer": "c"}});
    let node = json!({"id": "call", "type": "action", "config": config});
    let parent = ada.create_pipeline(&pipeline(&[node], &[])).await?;
    let runs = [start(&ada, &parent, &json!({})).await?, start(&ada, &parent, &json!({})).await?];
    peer.asked(1, LIMIT).await?;
    for run in &runs {
        ada.run_in(&id_of(run)?, &["waiting"], LIMIT).await?;
    }
    assert_eq!(peer.n_requests(), 1, "the second child has no permit");
    peer.release();
    for run in &runs {
        let ended = ada.run_in(&id_of(run)?, &ENDS, LIMIT).await?;
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_imports_of_the_example_come_one_after_the_other_for_each_customer() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let example = std::fs::read_to_string(workspace_root()?.join("examples/one-import-per-customer.yaml"))?;
    let request = ada.request(Method::POST, "/api/v1/pipelines").header("content-type", "application/yaml");
    let made = ada.send(request.body(example)).await?.expect(201)?;
    let id = made["id"].as_str().context("no id")?;
    let mut runs = Vec::new();
    for _ in 0..3 {
        for customer in ["acme", "globex"] {
            runs.push(start(&ada, id, &json!({"customer": customer, "seconds": 0.2})).await?);
        }
    }
    let mut last_end: std::collections::BTreeMap<String, DateTime<FixedOffset>> =
        std::collections::BTreeMap::new();
    for run in &runs {
        let ended = ada.run_in(&id_of(run)?, &ENDS, LIMIT).await?;
        assert_eq!(ended["state"], "succeeded", "{ended}");
        let at = |field: &str| {
            anyhow::Ok(DateTime::parse_from_rfc3339(ended[field].as_str().context("no time")?)?)
        };
        let customer = ended["input"]["customer"].as_str().context("no customer")?.to_owned();
        let (started, end) = (at("started_at")?, at("ended_at")?);
        if let Some(before) = last_end.insert(customer, end) {
            assert!(started >= before, "{ended} began before the one before it had ended, at {before}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_limited_in_all_runs_on_all_instances_also_after_one_is_killed() -> Result<()> {
    const PERMITS: usize = 2;
    const N_RUNS: usize = 8;
    let database = Database::empty().await?;
    let mut one = Server::start(&database).await?;
    let other = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let ada = other.client().join("ada@example.org").await?;
    let mut definition = limited(&peer, &json!({}));
    definition["nodes"][1]["concurrency"] = json!({"limit": PERMITS, "key": "input.region"});
    let id = ada.create_pipeline(&definition).await?;
    let mut runs = Vec::new();
    for _ in 0..N_RUNS {
        runs.push(id_of(&start(&ada, &id, &json!({"customer": "c", "region": "north"})).await?)?);
    }
    peer.asked(PERMITS, LIMIT).await?;
    wait_until(LIMIT, "the others stand in line", async || {
        let listed = ada.get("/api/v1/runs?state=waiting").await.and_then(|answer| answer.expect(200));
        let listed = listed.map_err(|error| error.to_string())?;
        let waiting = listed["items"].as_array().into_iter().flatten();
        match waiting.filter(|run| run["waiting_for"] == "concurrency").count() {
            n if n == N_RUNS - PERMITS => Ok(()),
            n => Err(format!("{n} do")),
        }
    })
    .await?;
    let session = database.session().await?;
    let held = "SELECT count(*) FROM node_permits WHERE is_held";
    assert_eq!(session.query_one(held, &[]).await?.get::<_, i64>(0), i64::try_from(PERMITS)?);
    let elsewhere = id_of(&start(&ada, &id, &json!({"customer": "c", "region": "south"})).await?)?;
    peer.asked(PERMITS + 1, LIMIT).await?;
    one.kill()?;
    runs.push(elsewhere);
    peer.release();
    for run in &runs {
        let ended = ada.run_in(run, &ENDS, LIMIT).await?;
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
    let left = "SELECT (SELECT count(*) FROM node_permits), (SELECT sum(held + waiting) FROM concurrency_keys)::bigint";
    let left = session.query_one(left, &[]).await?;
    assert_eq!((left.get::<_, i64>(0), left.get::<_, i64>(1)), (0, 0), "every permit was given back");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_to_be_skipped_at_its_limit_is_shown_so_and_runs_in_a_rerun() -> Result<()> {
    let database = Database::empty().await?;
    let one = Server::start(&database).await?;
    let _other = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let ada = one.client().join("ada@example.org").await?;
    let mut definition = limited(&peer, &json!({}));
    definition["nodes"][1]["concurrency"] = json!({"limit": 1, "on_limit": "skip"});
    let id = ada.create_pipeline(&definition).await?;
    let input = json!({"customer": "c"});
    let first = id_of(&start(&ada, &id, &input).await?)?;
    peer.asked(1, LIMIT).await?;
    let mut skipped = String::new();
    for _ in 0..4 {
        let run = id_of(&start(&ada, &id, &input).await?)?;
        let ended = ada.run_in(&run, &ENDS, LIMIT).await?;
        assert_eq!((&ended["state"], &ended["output"]), (&json!("succeeded"), &json!({})), "{ended}");
        let node = &ended["nodes"][1];
        assert_eq!((&node["state"], &node["attempt"]), (&json!("skipped"), &json!(1)), "{node}");
        assert!(node["error"].is_null() && node["ended_at"].is_string(), "{node}");
        let journal = ada.get(&format!("/api/v1/runs/{run}/journal")).await?.expect(200)?;
        let last = journal["items"].as_array().and_then(|entries| entries.last());
        let last = last.context("the journal is empty")?;
        assert_eq!((&last["kind"], &last["node_id"]), (&json!("node_skipped"), &json!("ask")), "{journal}");
        skipped = run;
    }
    let session = database.session().await?;
    let counted = "SELECT (SELECT count(*) FROM node_permits), (SELECT sum(held + waiting) FROM concurrency_keys)::bigint";
    let held = session.query_one(counted, &[]).await?;
    assert_eq!(
        (held.get::<_, i64>(0), held.get::<_, i64>(1)),
        (1, 1),
        "the first run holds one, and none waits"
    );
    peer.release();
    assert_eq!(ada.run_in(&first, &ENDS, LIMIT).await?["state"], "succeeded");
    let path = format!("/api/v1/runs/{skipped}/rerun");
    let rerun = ada.post(&path, &json!({"from": "failed"})).await?.expect(202)?;
    assert_eq!(rerun["plan"]["not_kept"][0]["reason"], "not_succeeded", "{rerun}");
    let rerun = ada.run_in(&id_of(&rerun)?, &ENDS, LIMIT).await?;
    assert_eq!(
        (&rerun["state"], &rerun["nodes"][1]["state"]),
        (&json!("succeeded"), &json!("succeeded")),
        "{rerun}"
    );
    let left = session.query_one(counted, &[]).await?;
    assert_eq!((left.get::<_, i64>(0), left.get::<_, i64>(1)), (0, 0), "every permit was given back");
    Ok(())
}
