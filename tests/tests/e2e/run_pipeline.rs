//! `run_pipeline`: agents, nodes and callers run a pipeline as a tool, and find its run again after a kill.

use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Answer, Client, Database, Peer, Server, begin, call, pipeline, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const ENDS: [&str; 4] = ["succeeded", "failed", "cancelled", "timed_out"];

/// A pipeline that asks the peer for `input.n`, which must be a number.
fn asking(peer: &Peer) -> Value {
    let mut ask = call("ask", &peer.url("/ask"));
    ask["config"]["body"] = json!({"n": "${{ input.n }}"});
    let mut definition = pipeline(&[begin(), ask], &[("begin", "ask")]);
    definition["output"] = json!("nodes.ask.output.body");
    let n = json!({"type": "number"});
    definition["input"] = json!({"schema": {
        "type": "object", "required": ["n"], "additionalProperties": false, "properties": {"n": n}
    }});
    definition
}

/// A pipeline whose scripted agent makes these calls of `run_pipeline`, one after the other, and may run these pipelines.
fn agent(calls: &[Value], allowed: &[&str]) -> Value {
    let lines: Vec<String> =
        calls.iter().map(|params| format!("scripted: call run_pipeline {params}")).collect();
    let agent = json!({
        "provider": "scripted", "instructions": lines.join("\n"), "tools": ["run_pipeline"], "pipelines": allowed
    });
    let config = json!({"agent": agent, "prompt": "Ask for the number."});
    let mut definition = pipeline(&[json!({"id": "clerk", "type": "agent", "config": config})], &[]);
    definition["output"] = json!("nodes.clerk.output.steps");
    definition
}

/// What the calls of the agent returned, in their order.
fn results(run: &Value) -> Result<Vec<&Value>> {
    let steps = run["output"].as_array().with_context(|| format!("no steps: {run}"))?;
    Ok(steps.iter().filter(|step| step["type"] == "tool").map(|step| &step["output"]).collect())
}

async fn runs_of(client: &Client, pipeline: &str) -> Result<Vec<Value>> {
    let page = client.get(&format!("/api/v1/runs?limit=200&pipeline_id={pipeline}")).await?.expect(200)?;
    Ok(page["items"].as_array().context("no items")?.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_finds_the_run_that_it_started_after_a_kill() -> Result<()> {
    let database = Database::empty().await?;
    let mut first = Server::start(&database).await?;
    let peer = Peer::start(|request| match request.json()["n"].as_i64() {
        Some(1) => Answer::now(200, json!({"answer": 1})),
        _ => Answer::held(json!({"answer": 42})),
    })
    .await?;
    let ada = first.client().join("ada@example.org").await?;
    let inner = ada.create_pipeline(&asking(&peer)).await?;
    let calls = [1, 2].map(|n| json!({"pipeline_id": inner, "input": {"n": n}}));
    let outer = ada.create_pipeline(&agent(&calls, &[&inner])).await?;
    let run = ada.start_run(&outer).await?;
    peer.asked(2, LIMIT).await?;
    ada.run_in(&run, &["waiting"], LIMIT).await?;
    let started = runs_of(&ada, &inner).await?;
    first.kill()?;
    let second = Server::start(&database).await?;
    let ada = second.client().login("ada@example.org").await?;
    // The child's request was cut off, so the child asks again.
    peer.asked(3, LIMIT).await?;
    peer.release();
    let ended = ada.run_in(&run, &ENDS, LIMIT).await?;
    let results = results(&ended)?;
    assert_eq!((&results[0]["output"]["answer"], &results[1]["output"]["answer"]), (&json!(1), &json!(42)));
    let ids = |runs: &[Value]| -> Vec<Value> { runs.iter().map(|run| run["id"].clone()).collect() };
    let now = runs_of(&ada, &inner).await?;
    assert_eq!(ids(&now), ids(&started), "another run was started");
    assert!(now.iter().any(|child| child["id"] == results[1]["run_id"] && child["state"] == "succeeded"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_cannot_be_made_starts_nothing_and_is_told_to_the_agent() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::now(400, json!({"no": "thanks"}))).await?;
    let ada = server.client().join("ada@example.org").await?;
    let (inner, other) =
        (ada.create_pipeline(&asking(&peer)).await?, ada.create_pipeline(&asking(&peer)).await?);
    let calls = [
        json!({"pipeline_id": inner, "input": {"n": "one", "m": 2}}),
        json!({"pipeline_id": other, "input": {"n": 1}}),
        json!({"pipeline_id": inner, "input": {"n": 1}}),
    ];
    let run = ada.start_run(&ada.create_pipeline(&agent(&calls, &[&inner])).await?).await?;
    let ended = ada.run_in(&run, &ENDS, LIMIT).await?;
    let errors: Vec<(&str, &str)> = results(&ended)?
        .into_iter()
        .map(|result| {
            let error = &result["error"];
            (error["kind"].as_str().unwrap_or_default(), error["message"].as_str().unwrap_or_default())
        })
        .collect();
    assert!(errors[0].0 == "invalid_input", "{errors:?}");
    assert!(errors[0].1.contains("/input/n") && errors[0].1.contains("/input/m"), "{errors:?}");
    assert!(errors[1].0 == "invalid_parameters" && errors[1].1.contains("/pipeline_id"), "{errors:?}");
    assert!(errors[2].0 == "child_failed" && errors[2].1.contains("400"), "{errors:?}");
    assert_eq!((runs_of(&ada, &inner).await?.len(), runs_of(&ada, &other).await?.len()), (1, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_agents_run_ends_the_pipelines_that_it_runs() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let ada = server.client().join("ada@example.org").await?;
    let inner = ada.create_pipeline(&asking(&peer)).await?;
    let calls = [json!({"pipeline_id": inner, "input": {"n": 1}})];
    for (nth, (timeout, state)) in [(None, "cancelled"), (Some(2), "timed_out")].into_iter().enumerate() {
        let mut outer = agent(&calls, &[&inner]);
        if let Some(seconds) = timeout {
            outer["timeout_seconds"] = json!(seconds);
        }
        let run = ada.start_run(&ada.create_pipeline(&outer).await?).await?;
        peer.asked(nth + 1, LIMIT).await?;
        if timeout.is_none() {
            ada.post(&format!("/api/v1/runs/{run}/cancel"), &json!({})).await?.expect(202)?;
        }
        assert_eq!(ada.run_in(&run, &ENDS, LIMIT).await?["state"], state);
        wait_until(LIMIT, "the child run has ended", async || match runs_of(&ada, &inner).await {
            Ok(runs) if runs.iter().all(|run| run["state"] == "cancelled" || run["state"] == "timed_out") => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        })
        .await?;
    }
    peer.release();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_runs_a_pipeline_as_a_tool_in_its_own_project_only() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|request| Answer::now(200, request.json())).await?;
    let ada = server.client().join("ada@example.org").await?;
    let inner = ada.create_pipeline(&asking(&peer)).await?;
    let invoke = |params: Value| json!({ "params": params });
    let path = "/api/v1/tools/run_pipeline/invoke";
    let fine = invoke(json!({"pipeline_id": inner, "input": {"n": 7}}));
    let answer = ada.post(path, &fine).await?.expect(200)?;
    assert_eq!(answer["output"]["output"], json!({"n": 7}), "{answer}");
    let child = answer["output"]["run_id"].as_str().context("no child")?;
    let child = ada.get(&format!("/api/v1/runs/{child}")).await?.expect(200)?;
    assert_eq!(
        (&child["state"], &child["parent_run_id"]),
        (&json!("succeeded"), &answer["run_id"]),
        "{child}"
    );

    let bad = ada.post(path, &invoke(json!({"pipeline_id": "reports", "more": 1}))).await?;
    assert_eq!(bad.pointers(), ["/params/more", "/params/pipeline_id"]);
    let bad = ada.post(path, &invoke(json!({"pipeline_id": inner, "input": {}}))).await?;
    bad.expect_problem(424, "tool-failed")?;
    assert!(bad.body["detail"].as_str().is_some_and(|why| why.contains("/input/n")), "{}", bad.body);
    let bob = server.client().join("bob@example.org").await?;
    let stranger = bob.post(path, &fine).await?;
    stranger.expect_problem(424, "tool-failed")?;
    assert_eq!(stranger.body["error"]["kind"], "no_pipeline", "{}", stranger.body);
    assert_eq!(peer.n_requests(), 1);
    Ok(())
}
