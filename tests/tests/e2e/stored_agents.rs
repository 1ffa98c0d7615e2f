//! Stored agents: pipelines name them, people write to them, and a run keeps the version that it began with.

use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Answer, Client, Database, Peer, Request, Server, begin, pipeline};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

async fn create(client: &Client, definition: &Value) -> Result<String> {
    let created = client.post("/api/v1/agents", definition).await?.expect(201)?;
    Ok(created["id"].as_str().context("no id")?.to_owned())
}

fn agent_node(id: &str, agent: &str) -> Value {
    json!({"id": id, "type": "agent", "config": {"agent_id": agent, "prompt": "Write."}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_answered_by_the_latest_version_of_the_agent() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let owner = server.client().join("owner@example.org").await?;
    let definition = json!({"name": "Clerk", "provider": "scripted", "instructions": "scripted: keywords"});
    let agent = create(&owner, &definition).await?;
    let path = format!("/api/v1/agents/{agent}");
    let message = json!({"message": "Hello ${{ input }}"});
    let reply = owner.post(&format!("{path}/chat"), &message).await?.expect(200)?;
    assert_eq!((&reply["agent_version"], &reply["provider"]), (&json!(1), &json!("scripted")), "{reply}");
    let run = owner
        .get(&format!("/api/v1/runs/{}", reply["run_id"].as_str().context("no run")?))
        .await?
        .expect(200)?;
    assert_eq!((&run["kind"], &run["state"]), (&json!("agent"), &json!("succeeded")), "{run}");
    assert_eq!(run["output"]["agent_id"], json!(agent), "{run}");

    let shown = owner.get(&path).await?;
    let tag = shown.header("etag").to_owned();
    let changed = owner.patch(&path, &json!({"role": "A clerk.", "tools": ["now"]})).await?.expect(200)?;
    assert_eq!((&changed["version"], &changed["tools"]), (&json!(2), &json!(["now"])), "{changed}");
    owner
        .with_header("if-match", &tag)
        .patch(&path, &json!({"role": "x"}))
        .await?
        .expect_problem(412, "precondition-failed")?;
    let reply = owner.post(&format!("{path}/chat"), &message).await?.expect(200)?;
    assert_eq!(reply["agent_version"], json!(2), "{reply}");

    for (change, place) in [(json!({"colour": "red"}), "/colour"), (json!({"tools": ["fly"]}), "/tools/0")] {
        let refused = owner.patch(&path, &change).await?;
        assert_eq!((refused.status, refused.pointers()), (422, vec![place]), "{}", refused.text);
    }
    let stranger = server.client().join("stranger@example.org").await?;
    stranger.post(&format!("{path}/chat"), &message).await?.expect_problem(404, "not-found")?;

    owner.delete(&path).await?.expect(204)?;
    owner.post(&format!("{path}/chat"), &message).await?.expect_problem(404, "not-found")?;
    Ok(())
}

/// Between its two nodes the run waits for a person, and the agent is changed meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_of_a_run_have_one_version_of_their_agent() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let owner = server.client().join("owner@example.org").await?;
    let agent = create(&owner, &json!({"name": "Writer", "provider": "scripted"})).await?;
    let wait = json!({"id": "wait", "type": "approval", "config": {"message": "Go on?"}});
    let nodes = [begin(), agent_node("first", &agent), wait, agent_node("second", &agent)];
    let mut definition = pipeline(&nodes, &[("begin", "first"), ("first", "wait"), ("wait", "second")]);
    definition["output"] = json!("[nodes.first.output.agent_version, nodes.second.output.agent_version]");
    let pipeline = owner.create_pipeline(&definition).await?;
    let run = owner.start_run(&pipeline).await?;
    owner.run_in(&run, &["waiting"], LIMIT).await?;
    owner.patch(&format!("/api/v1/agents/{agent}"), &json!({"role": "other"})).await?.expect(200)?;
    owner
        .post(&format!("/api/v1/runs/{run}/nodes/wait/decision"), &json!({"approve": true}))
        .await?
        .expect(202)?;
    let ended = owner.run_in(&run, &["succeeded"], LIMIT).await?;
    assert_eq!(ended["output"], json!([1, 1]), "{ended}");
    let later = owner.start_run(&pipeline).await?;
    owner.run_in(&later, &["waiting"], LIMIT).await?;
    owner.delete(&format!("/api/v1/agents/{agent}")).await?.expect(204)?;
    owner
        .post(&format!("/api/v1/runs/{later}/nodes/wait/decision"), &json!({"approve": true}))
        .await?
        .expect(202)?;
    let ended = owner.run_in(&later, &["failed"], LIMIT).await?;
    assert_eq!(ended["nodes"][3]["error"]["kind"], json!("no_agent"), "{ended}");
    Ok(())
}

fn completion(message: &Value, finish_reason: &str) -> Value {
    json!({
        "id": "x", "object": "chat.completion", "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    })
}

fn has_result(request: &Request) -> bool {
    request.json()["messages"]
        .as_array()
        .is_some_and(|messages| messages.iter().any(|message| message["role"] == "tool"))
}

/// The server is killed while the model writes its second reply, and the agent is changed and deleted before the run goes
/// on.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_changed_and_deleted_goes_on_as_it_was_after_a_kill() -> Result<()> {
    let database = Database::empty().await?;
    let peer = Peer::start(|request| match (has_result(request), request.nth) {
        (false, _) => {
            let call = json!({"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}"}});
            let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
            Answer::now(200, completion(&message, "tool_calls"))
        }
        (true, 1) => Answer::held(completion(&json!({"role": "assistant", "content": "late"}), "stop")),
        (true, _) => Answer::now(200, completion(&json!({"role": "assistant", "content": "done"}), "stop")),
    })
    .await?;
    let url = peer.url("/v1");
    let mut first = Server::start_with(&database, |command| {
        command.env("OPENAI_BASE_URL", &url);
    })
    .await?;
    let owner = first.client().join("owner@example.org").await?;
    let definition = json!({
        "name": "Clerk", "role": "Before.", "provider": "openai", "model": "m", "tools": ["now"]
    });
    let agent = create(&owner, &definition).await?;
    let chat = format!("/api/v1/agents/{agent}/chat");
    let asked = owner
        .with_header("prefer", "respond-async")
        .post(&chat, &json!({"message": "Go."}))
        .await?
        .expect(202)?;
    let run = asked["id"].as_str().context("no run")?.to_owned();
    peer.asked(2, LIMIT).await?;
    owner.patch(&format!("/api/v1/agents/{agent}"), &json!({"role": "After."})).await?.expect(200)?;
    owner.delete(&format!("/api/v1/agents/{agent}")).await?.expect(204)?;
    first.kill()?;
    let second = Server::start_with(&database, |command| {
        command.env("OPENAI_BASE_URL", &url);
    })
    .await?;
    let owner = second.client().with_token(owner.token().context("no token")?);
    let ended = owner.run_in(&run, &["succeeded"], LIMIT).await?;
    assert_eq!(
        (&ended["output"]["content"], &ended["output"]["agent_version"]),
        (&json!("done"), &json!(1)),
        "{ended}"
    );
    let asked = peer.requests();
    let with_result: Vec<bool> = asked.iter().map(has_result).collect();
    assert_eq!(with_result, [false, true, true], "only the call that was cut off is repeated");
    assert!(asked.iter().all(|request| request.json()["messages"][0]["content"] == "Before."), "{asked:?}");
    Ok(())
}

/// The model puts its first answer into words, and hears what is wrong with it.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_a_schema_is_a_value_that_fits_it() -> Result<()> {
    let database = Database::empty().await?;
    let peer = Peer::start(|request| {
        let content = if request.nth == 0 { "It is urgent." } else { "{\"urgency\": \"high\"}" };
        Answer::now(200, completion(&json!({"role": "assistant", "content": content}), "stop"))
    })
    .await?;
    let url = peer.url("/v1");
    let server = Server::start_with(&database, |command| {
        command.env("OPENAI_BASE_URL", &url);
    })
    .await?;
    let owner = server.client().join("owner@example.org").await?;
    let schema = json!({
        "type": "object", "required": ["urgency"], "properties": {"urgency": {"enum": ["low", "high"]}}
    });
    let definition = json!({"name": "Sorter", "provider": "openai", "model": "m", "output_schema": schema});
    let agent = create(&owner, &definition).await?;
    let message = json!({"message": "How urgent is this?"});
    let reply = owner.post(&format!("/api/v1/agents/{agent}/chat"), &message).await?.expect(200)?;
    assert_eq!(
        (&reply["output"], &reply["usage"]["input_tokens"]),
        (&json!({"urgency": "high"}), &json!(20)),
        "{reply}"
    );
    let asked = peer.requests();
    assert_eq!(asked[0].json()["response_format"]["json_schema"]["schema"]["required"], json!(["urgency"]));
    assert!(asked[1].body.contains("it is not JSON"), "{}", asked[1].body);
    Ok(())
}

/// The model calls a tool, and its second call is refused until the agent has another role.
#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_has_the_agent_as_it_is_now_and_keeps_steps_that_are_the_same() -> Result<()> {
    let database = Database::empty().await?;
    let peer = Peer::start(|request| match (has_result(request), request.body.contains("After.")) {
        (false, _) => {
            let call = json!({"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}"}});
            let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
            Answer::now(200, completion(&message, "tool_calls"))
        }
        (true, false) => Answer::now(400, json!({"error": {"message": "no"}})),
        (true, true) => {
            Answer::now(200, completion(&json!({"role": "assistant", "content": "done"}), "stop"))
        }
    })
    .await?;
    let url = peer.url("/v1");
    let server = Server::start_with(&database, |command| {
        command.env("OPENAI_BASE_URL", &url);
    })
    .await?;
    let owner = server.client().join("owner@example.org").await?;
    let definition = json!({
        "name": "Clerk", "role": "Before.", "provider": "openai", "model": "m", "tools": ["now"]
    });
    let agent = create(&owner, &definition).await?;
    let mut graph = pipeline(&[begin(), agent_node("clerk", &agent)], &[("begin", "clerk")]);
    graph["output"] = json!("nodes.clerk.output.agent_version");
    let pipeline = owner.create_pipeline(&graph).await?;
    let run = owner.start_run(&pipeline).await?;
    owner.run_in(&run, &["failed"], LIMIT).await?;
    let rerun = async |run: &str| {
        let again = owner
            .post(&format!("/api/v1/runs/{run}/rerun"), &json!({"from": "failed"}))
            .await?
            .expect(202)?;
        Ok::<_, anyhow::Error>(again["id"].as_str().context("no id")?.to_owned())
    };
    let same = rerun(&run).await?;
    owner.run_in(&same, &["failed"], LIMIT).await?;
    let with_result: Vec<bool> = peer.requests().iter().map(has_result).collect();
    assert_eq!(with_result, [false, true, true], "the first call is kept");
    owner.patch(&format!("/api/v1/agents/{agent}"), &json!({"role": "After."})).await?.expect(200)?;
    let changed = rerun(&same).await?;
    let ended = owner.run_in(&changed, &["succeeded"], LIMIT).await?;
    assert_eq!(ended["output"], json!(2), "{ended}");
    let with_result: Vec<bool> = peer.requests().iter().map(has_result).collect();
    assert_eq!(with_result, [false, true, true, false, true], "another role asks anew");
    Ok(())
}
