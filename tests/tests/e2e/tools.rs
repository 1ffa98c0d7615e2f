//! Tools called by themselves: each call is a run, and none is made with bad parameters.

use std::time::Duration;

use anyhow::{Context as _, Result};
use gathering_e2e::{Client, Database, Server, begin, wait_until};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(60);
const ENDS: [&str; 4] = ["succeeded", "failed", "cancelled", "timed_out"];

/// Waits until so many runs execute at the same time.
async fn until_running(client: &Client, n: usize) -> Result<()> {
    let look = async || match n_runs(client, "&state=running").await {
        Ok(found) if found == n => Ok(()),
        other => Err(format!("{other:?}")),
    };
    wait_until(LIMIT, "all calls execute at once", look).await
}

async fn n_runs(client: &Client, query: &str) -> Result<usize> {
    let page = client.get(&format!("/api/v1/runs?limit=200{query}")).await?.expect(200)?;
    Ok(page["items"].as_array().context("no items")?.len())
}

fn asynchronous(client: &Client) -> Client {
    client.with_header("prefer", "respond-async")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tools_are_listed_in_pages_and_shown_with_their_schemas() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let all = ada.get("/api/v1/tools").await?.expect(200)?;
    let names: Vec<&str> =
        all["items"].as_array().context("items")?.iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert!(names.contains(&"read_file") && names.contains(&"http_request"), "{names:?}");
    assert!(names.is_sorted(), "{names:?}");
    let first = ada.get("/api/v1/tools?limit=2").await?.expect(200)?;
    let cursor = first["next_cursor"].as_str().context("a cursor")?;
    let rest = ada.get(&format!("/api/v1/tools?limit=200&cursor={cursor}")).await?.expect(200)?;
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(names.len() - 2));
    assert_eq!(rest["next_cursor"], Value::Null);

    let tool = ada.get("/api/v1/tools/write_file").await?.expect(200)?;
    assert_eq!((&tool["source"], &tool["class"]), (&json!("builtin"), &json!("idempotent")));
    assert_eq!(tool["parameters"]["properties"]["path"]["type"], "string");
    assert!(tool["description"].as_str().is_some_and(|text| text.len() > 20), "{tool}");
    ada.get("/api/v1/tools/fly").await?.expect_problem(404, "not-found")?;
    ada.post("/api/v1/tools/fly/invoke", &json!({})).await?.expect_problem(404, "not-found")?;
    server.client().get("/api/v1/tools").await?.expect_problem(401, "not-authenticated")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_a_recorded_run_and_a_repeated_request_makes_no_second() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let project = ada.create_project("notes").await?;
    let params = json!({"path": "notes/${{ 1 + 1 }}.md", "content": "# ${{ run.id }}"});
    let body = json!({"params": params, "project_id": project});
    let once = ada.with_header("idempotency-key", "write-1");
    let path = "/api/v1/tools/write_file/invoke";
    let answer = once.post(path, &body).await?.expect(200)?;
    assert_eq!(answer["output"]["created"], true, "{answer}");
    assert!(answer["duration_ms"].as_i64().is_some_and(|ms| (0..60_000).contains(&ms)), "{answer}");
    let run = ada
        .get(&format!("/api/v1/runs/{}", answer["run_id"].as_str().context("run_id")?))
        .await?
        .expect(200)?;
    assert_eq!((&run["kind"], &run["state"]), (&json!("tool"), &json!("succeeded")));
    assert_eq!((&run["input"], &run["output"]), (&params, &answer["output"]));
    let trigger = json!({"type": "tool", "user_id": ada.user_id().await?, "tool": "write_file"});
    assert_eq!((&run["trigger"], &run["project_id"]), (&trigger, &json!(project)));
    let written =
        ada.get(&format!("/api/v1/projects/{project}/files/notes/$%7B%7B%201%20+%201%20%7D%7D.md")).await?;
    assert_eq!((written.status, written.text.as_str()), (200, "# ${{ run.id }}"), "parameters are data");

    assert_eq!(once.post(path, &body).await?.expect(200)?, answer);
    assert_eq!(n_runs(&ada, "").await?, 1);
    let other = json!({"params": {"path": "b.md", "content": ""}, "project_id": project});
    once.post(path, &other).await?.expect_problem(409, "conflict")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_bad_parameters_names_each_of_them_and_executes_nothing() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let path = "/api/v1/tools/write_file/invoke";
    let refused = ada.post(path, &json!({"params": {"content": 1, "mode": "w"}})).await?;
    refused.expect_problem(422, "invalid")?;
    assert_eq!(refused.pointers(), ["/params/content", "/params/mode", "/params/path"]);
    for (body, pointer) in [
        (json!({"params": []}), "/params"),
        (json!({"param": {}}), "/param"),
        (json!({"params": {"path": "a", "content": ""}, "timeout_seconds": 0}), "/timeout_seconds"),
        (json!({"params": {"path": "a", "content": ""}, "project_id": "x"}), "/project_id"),
    ] {
        let refused = ada.post(path, &body).await?;
        refused.expect_problem(422, "invalid").with_context(|| body.to_string())?;
        assert!(refused.pointers().contains(&pointer), "{body}: {:?}", refused.pointers());
    }
    assert_eq!(n_runs(&ada, "").await?, 0);
    let bob = server.client().join("bob@example.org").await?;
    let project = ada.create_project("hers").await?;
    let body = json!({"params": {"path": "a", "content": ""}, "project_id": project});
    bob.post(path, &body).await?.expect_problem(404, "not-found")?;
    let (reader, _) = ada.create_key(&["read"]).await?;
    reader.post(path, &body).await?.expect_problem(403, "forbidden")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_fails_is_answered_with_its_failure_and_the_run() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let call = json!({"params": {"path": "absent.md"}});
    let failed = ada.post("/api/v1/tools/read_file/invoke", &call).await?;
    failed.expect_problem(424, "tool-failed")?;
    let error = &failed.body["error"];
    assert_eq!((&error["kind"], &error["retryable"]), (&json!("not_found"), &json!(false)), "{error}");
    assert!(failed.text_of("detail")?.contains("absent.md"), "{}", failed.body);
    let run = failed.text_of("run_id")?;
    assert_eq!(failed.header("location"), format!("/api/v1/runs/{run}"));
    let escape = json!({"params": {"path": "../secret"}});
    let escaped = ada.post("/api/v1/tools/read_file/invoke", &escape).await?;
    escaped.expect_problem(424, "tool-failed")?;
    assert_eq!(escaped.body["error"]["kind"], "forbidden");
    let late = json!({"params": {"seconds": 600}, "timeout_seconds": 0.2});
    let late = ada.post("/api/v1/tools/wait/invoke", &late).await?;
    late.expect_problem(424, "tool-failed")?;
    let run = ada.get(late.header("location")).await?.expect(200)?;
    assert_eq!(run["state"], "timed_out");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_answered_at_once_or_after_a_while_and_can_be_cancelled() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let call = json!({"params": {"seconds": 600}});
    let accepted = asynchronous(&ada).post("/api/v1/tools/wait/invoke", &call).await?;
    assert_eq!(accepted.header("preference-applied"), "respond-async");
    let run = accepted.header("location").to_owned();
    accepted.expect(202)?;
    let waited = ada.with_header("prefer", "wait=1").post("/api/v1/tools/wait/invoke", &call).await?;
    let other = waited.header("location").to_owned();
    assert!(matches!(waited.expect(202)?["state"].as_str(), Some("queued" | "running")));
    // A request that waits hears of the cancellation.
    let waiting = tokio::spawn({
        let ada = ada.with_header("idempotency-key", "long");
        let call = call.clone();
        async move { ada.post("/api/v1/tools/wait/invoke", &call).await }
    });
    until_running(&ada, 3).await?;
    for run in ada.get("/api/v1/runs").await?.expect(200)?["items"].as_array().context("items")? {
        ada.post(&format!("/api/v1/runs/{}/cancel", run["id"].as_str().context("id")?), &json!({}))
            .await?
            .expect(202)?;
    }
    waiting.await??.expect_problem(424, "tool-failed")?;
    for run in [run, other] {
        assert_eq!(
            ada.run_in(run.rsplit('/').next().context("id")?, &ENDS, LIMIT).await?["state"],
            "cancelled"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_execute_side_by_side() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let mut calls = JoinSet::new();
    for _ in 0..25 {
        let ada = asynchronous(&ada);
        calls.spawn(async move {
            ada.post("/api/v1/tools/wait/invoke", &json!({"params": {"seconds": 600}})).await?.expect(202)
        });
    }
    calls.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    until_running(&ada, 25).await?;
    Ok(())
}

/// The request waits at one instance while the run is driven by another, which dies.
#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_request_outlives_the_instance_that_drives_its_run() -> Result<()> {
    let database = Database::empty().await?;
    let mut first = Server::start(&database).await?;
    let ada = first.client().join("ada@example.org").await?;
    let call = json!({"params": {"seconds": 2}});
    let once = |client: &Client| client.with_header("idempotency-key", "one");
    asynchronous(&once(&ada)).post("/api/v1/tools/wait/invoke", &call).await?.expect(202)?;
    until_running(&ada, 1).await?;
    let second = Server::start(&database).await?;
    let there = second.client().login("ada@example.org").await?;
    let waiting = tokio::spawn({
        let client = once(&there);
        async move { client.post("/api/v1/tools/wait/invoke", &call).await }
    });
    first.kill()?;
    let answer = waiting.await??.expect(200)?;
    let run = there
        .get(&format!("/api/v1/runs/{}", answer["run_id"].as_str().context("run_id")?))
        .await?
        .expect(200)?;
    assert_eq!((&run["state"], n_runs(&there, "").await?), (&json!("succeeded"), 1));
    Ok(())
}

fn with_topic() -> Value {
    json!({
        "nodes": [begin(), {"id": "words", "type": "condition", "config": {"expression": "input.words > 100"}}],
        "edges": [{"from": "begin", "to": "words"}],
        "output": "input",
        "input": {"schema": {
            "type": "object",
            "properties": {"topic": {"type": "string"}, "words": {"type": "integer", "default": 200}},
            "required": ["topic"],
            "additionalProperties": false,
        }},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_input_of_a_run_is_checked_at_the_door_and_completed() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let pipeline = ada.create_pipeline(&with_topic()).await?;
    let path = format!("/api/v1/pipelines/{pipeline}/runs");
    let refused = ada.post(&path, &json!({"input": {"words": "many", "tpoic": 1}})).await?;
    refused.expect_problem(422, "invalid")?;
    assert_eq!(refused.pointers(), ["/input/topic", "/input/tpoic", "/input/words"]);
    assert_eq!(n_runs(&ada, "").await?, 0);
    let run = ada.post(&path, &json!({"input": {"topic": "rivers"}})).await?.expect(202)?;
    let ended = ada.run_in(run["id"].as_str().context("id")?, &ENDS, LIMIT).await?;
    assert_eq!(ended["output"], json!({"topic": "rivers", "words": 200}), "{ended}");

    let action =
        json!({"action": "execute_pipeline", "pipeline_id": pipeline, "input": {"topic": "${{ input.n }}"}});
    let parent = json!({"nodes": [{"id": "child", "type": "action", "config": action}]});
    let parent = ada.create_pipeline(&parent).await?;
    let run = ada
        .post(&format!("/api/v1/pipelines/{parent}/runs"), &json!({"input": {"n": 1}}))
        .await?
        .expect(202)?;
    let failed = ada.run_in(run["id"].as_str().context("id")?, &ENDS, LIMIT).await?;
    let error = &failed["nodes"][0]["error"];
    assert_eq!((&error["kind"], &error["retryable"]), (&json!("invalid_input"), &json!(false)), "{failed}");
    assert!(
        error["message"].as_str().is_some_and(|text| text.contains("/input/topic: must be of type string")),
        "{error}"
    );

    let misspelled = json!({"nodes": [{"id": "a", "type": "condition", "config": {"expression": "input.wrods > 1"}}],
        "input": with_topic()["input"]});
    let checked = ada.post("/api/v1/pipelines/validate", &misspelled).await?.expect(200)?;
    assert_eq!(checked["errors"][0]["pointer"], "/nodes/0/config/expression", "{checked}");
    Ok(())
}
