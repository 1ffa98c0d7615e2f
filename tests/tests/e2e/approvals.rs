//! Nodes that wait for a person: they hold nothing, survive everything, and are decided once.

use std::time::Duration;

use anyhow::Result;
use gathering_e2e::{Client, Database, Server, begin, pipeline, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

fn definition(config: &Value) -> Value {
    let gate = json!({"id": "gate", "type": "approval", "config": config});
    let mut definition = pipeline(&[begin(), gate], &[("begin", "gate")]);
    definition["output"] = json!("nodes.gate.output.comment");
    definition
}

async fn waiting(client: &Client, config: &Value) -> Result<String> {
    let run = client.start_run(&client.create_pipeline(&definition(config)).await?).await?;
    wait_until(LIMIT, "the node waits", async || {
        let reply = client.get(&format!("/api/v1/runs/{run}")).await.map_err(|error| error.to_string())?;
        let states = &reply.body["nodes"];
        if states[1]["state"] == "waiting" { Ok(()) } else { Err(states.to_string()) }
    })
    .await?;
    Ok(run)
}

fn decision(run: &str) -> String {
    format!("/api/v1/runs/{run}/nodes/gate/decision")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_node_goes_on_at_once_and_a_denied_one_fails() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let run = waiting(&ada, &json!({"message": "Really?"})).await?;
    ada.post(&decision(&run), &json!({"approve": true, "comment": "fine"})).await?.expect(202)?;
    let ended = ada.run_in(&run, &["succeeded", "failed"], LIMIT).await?;
    assert_eq!((&ended["state"], &ended["output"]), (&json!("succeeded"), &json!("fine")), "{ended}");
    let again = ada.post(&decision(&run), &json!({"approve": false})).await?;
    again.expect_problem(409, "conflict")?;

    let run = waiting(&ada, &json!({"message": "Really?"})).await?;
    ada.post(&decision(&run), &json!({"approve": false, "comment": "no way"})).await?.expect(202)?;
    let ended = ada.run_in(&run, &["succeeded", "failed"], LIMIT).await?;
    assert_eq!((&ended["state"], &ended["nodes"][1]["error"]["kind"]), (&json!("failed"), &json!("denied")));
    assert!(ended["nodes"][1]["error"]["message"].as_str().is_some_and(|why| why.contains("no way")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_reaches_a_parked_run() -> Result<()> {
    let database = Database::empty().await?;
    let mut first = Server::start(&database).await?;
    let ada = first.client().join("ada@example.org").await?;
    let run = waiting(&ada, &json!({"message": "Really?"})).await?;
    let parked = ada.run_in(&run, &["waiting"], LIMIT).await?;
    assert_eq!(parked["waiting_for"], "approval", "{parked}");
    first.kill()?;
    let second = Server::start(&database).await?;
    let ada = second.client().login("ada@example.org").await?;
    ada.post(&decision(&run), &json!({"approve": true})).await?.expect(202)?;
    let ended = ada.run_in(&run, &["succeeded", "failed"], LIMIT).await?;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_without_a_decision_in_time_times_out() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let run = waiting(&ada, &json!({"message": "Really?", "timeout_seconds": 1})).await?;
    let ended = ada.run_in(&run, &["succeeded", "failed", "timed_out"], LIMIT).await?;
    assert_eq!((&ended["state"], &ended["nodes"][1]["state"]), (&json!("failed"), &json!("timed_out")));
    ada.post(&decision(&run), &json!({"approve": true})).await?.expect_problem(409, "conflict")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_approvers_decide_where_some_are_named() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let run = waiting(&ada, &json!({"message": "Really?", "approvers": ["bob@example.org"]})).await?;
    ada.post(&decision(&run), &json!({"approve": true})).await?.expect_problem(403, "forbidden")?;
    Ok(())
}
