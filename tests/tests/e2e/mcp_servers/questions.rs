//! What a mounted server asks in the middle of a call is answered by people, on any instance.

use std::process::Command;

use anyhow::{Context as _, Result};
use gathering_e2e::{Client, Database, Server, Sse, pipeline, wait_until, workspace_root};
use gathering_test_packages::python;
use serde_json::{Value, json};

use super::LIMIT;

/// Two instances, a project that mounts a server of Python's SDK, and a pipeline whose tool asks, and then an agent's.
struct Asking {
    first: Server,
    second: Server,
    ada: Client,
    there: Client,
    pipeline: String,
}

impl Asking {
    async fn new(database: &Database) -> Result<Self> {
        let python = python(&["mcp==2.3.0"])?.display().to_string();
        let start = || {
            let configure = |command: &mut Command| {
                command.env("GATHERING_MCP_COMMANDS", &python);
            };
            Server::start_with(database, configure)
        };
        let first = start().await?;
        let ada = first.client().join("ada@example.org").await?;
        let own = workspace_root()?.join("crates/mcp/tests/mcp/servers/own.py");
        let transport = json!({"type": "stdio", "command": python, "args": [own, "stdio"]});
        // Over the newer protocol this SDK has no way to ask.
        let mount = json!({"name": "own", "transport": transport, "protocol": "2025-11-25"});
        ada.post("/api/v1/mcp/servers", &mount).await?.expect(201)?;
        let instructions = "scripted: call own__asks {}";
        let agent = json!({"provider": "scripted", "instructions": instructions, "tools": ["own__asks"]});
        let definition = pipeline(
            &[
                json!({"id": "tool", "type": "tool", "config": {"tool": "own__asks"}}),
                json!({"id": "agent", "type": "agent", "config": {"agent": agent, "prompt": "Ask."}}),
            ],
            &[("tool", "agent")],
        );
        let pipeline = ada.create_pipeline(&definition).await?;
        let second = start().await?;
        let there = second.client().with_token(ada.token().context("token")?);
        Ok(Self { first, second, ada, there, pipeline })
    }

    /// The open question of a node, as the other instance shows it.
    async fn open(&self, run: &str, node: &str) -> Result<Value> {
        let look = async || {
            let shown = self.there.get(&format!("/api/v1/runs/{run}")).await.and_then(|run| run.expect(200));
            let shown = shown.map_err(|error| error.to_string())?;
            let nodes = shown["nodes"].as_array().cloned().unwrap_or_default();
            let of_node = nodes.into_iter().find(|shown| shown["node_id"] == node).unwrap_or_default();
            let questions = of_node["questions"].as_array().cloned().unwrap_or_default();
            let open = questions.into_iter().find(|question| question["state"] == "open");
            open.ok_or_else(|| shown.to_string())
        };
        wait_until(LIMIT, "the tool asks", look).await
    }
}

fn decision(run: &str, node: &str) -> String {
    format!("/api/v1/runs/{run}/nodes/{node}/decision")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_answers_what_a_tool_asks_and_the_call_goes_on() -> Result<()> {
    let database = Database::empty().await?;
    let asking = Asking::new(&database).await?;
    let Asking { ada, there, pipeline, .. } = &asking;
    let run = ada.start_run(pipeline).await?;
    let question = asking.open(&run, "tool").await?;
    for (field, expected) in [
        ("tool", json!("own__asks")),
        ("asked_by", json!("own")),
        ("message", json!("Which?")),
        ("attempt", json!(1)),
        ("url", Value::Null),
        ("decided_by", Value::Null),
    ] {
        assert_eq!(question[field], expected, "{question}");
    }
    assert_eq!(question["form"]["required"], json!(["colour"]), "{question}");

    let answer = |content: Value| json!({"approve": true, "question": question["id"], "content": content});
    for (content, pointer) in [(json!({}), "/content/colour"), (json!({"colour": 1}), "/content/colour")] {
        let refused = there.post(&decision(&run, "tool"), &answer(content)).await?;
        refused.expect_problem(422, "invalid")?;
        assert_eq!(refused.pointers(), [pointer], "{}", refused.text);
    }
    let blue = answer(json!({"colour": "blue"}));
    let bob = asking.second.client().join("bob@example.org").await?;
    bob.post(&decision(&run, "tool"), &blue).await?.expect_problem(404, "not-found")?;
    there.post(&decision(&run, "agent"), &blue).await?.expect_problem(404, "not-found")?;
    let comment = json!({"approve": false, "question": question["id"], "comment": "c"});
    assert_eq!(there.post(&decision(&run, "tool"), &comment).await?.pointers(), ["/comment"]);
    // Without the question it would be about an approval, for which the node does not wait.
    there.post(&decision(&run, "tool"), &json!({"approve": true})).await?.expect_problem(409, "conflict")?;
    there.post(&decision(&run, "tool"), &blue).await?.expect(202)?;
    there.post(&decision(&run, "tool"), &blue).await?.expect_problem(409, "conflict")?;

    let question = asking.open(&run, "agent").await?;
    let no = json!({"approve": false, "question": question["id"]});
    there.post(&decision(&run, "agent"), &no).await?.expect(202)?;
    let ended = ada.run_in(&run, &["succeeded", "failed"], LIMIT).await?;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    let (tool, agent) = (&ended["nodes"][0], &ended["nodes"][1]);
    assert_eq!(tool["output"]["content"][0]["text"], "accept blue", "{tool}");
    let of =
        |node: &Value| (node["questions"][0]["state"].clone(), node["questions"][0]["decided_by"].clone());
    assert_eq!(of(tool), (json!("accepted"), json!("ada@example.org")));
    assert_eq!(of(agent), (json!("declined"), json!("ada@example.org")));
    let journal = ada.get(&format!("/api/v1/runs/{run}/journal?limit=200")).await?;
    assert!(journal.text.contains("decline"), "the agent was told: {}", journal.text);
    // The call has the content; it is kept nowhere.
    let session = database.session().await?;
    let kept = session.query_one("SELECT count(content) FROM node_questions", &[]).await?;
    assert_eq!(kept.get::<_, i64>(0), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_closed_when_its_call_ends_and_its_followers_heard_of_it() -> Result<()> {
    let database = Database::empty().await?;
    let mut asking = Asking::new(&database).await?;
    let run = asking.ada.start_run(&asking.pipeline).await?;
    let mut streams = Vec::new();
    for client in [&asking.ada, &asking.there] {
        streams.push(Sse::open(client, &format!("/api/v1/runs/{run}/stream"), None).await?);
    }
    let question = asking.open(&run, "tool").await?;
    asking.ada.post(&format!("/api/v1/runs/{run}/cancel"), &json!({})).await?.expect(202)?;
    let ended = asking.ada.run_in(&run, &["cancelled", "succeeded", "failed"], LIMIT).await?;
    assert_eq!(
        (&ended["state"], &ended["nodes"][0]["questions"][0]["state"]),
        (&json!("cancelled"), &json!("cancelled"))
    );
    let late = json!({"approve": false, "question": question["id"]});
    asking.ada.post(&decision(&run, "tool"), &late).await?.expect_problem(409, "conflict")?;
    let mut heard = Vec::new();
    for stream in &mut streams {
        let told = stream.rest().await?;
        heard.extend(told.into_iter().filter(|event| event.kind == "tool_notice"));
    }
    // On the instance that drove the run, unless the question was faster than the followers.
    assert!(heard.len() <= 1, "{heard:?}");
    if let Some(event) = heard.first() {
        assert_eq!(event.data["question"], json!({"id": question["id"], "message": "Which?"}));
    }

    // An instance that dies asks no more; the other one finds the call of unknown end, as it may have had an effect.
    let run = asking.ada.start_run(&asking.pipeline).await?;
    let question = asking.open(&run, "tool").await?;
    let session = database.session().await?;
    let pids = "SELECT i.pid FROM instances AS i JOIN active_runs AS a ON a.owner = i.id";
    let driver = u32::try_from(session.query_one(pids, &[]).await?.get::<_, i32>(0))?;
    let is_first = asking.first.id() == driver;
    if is_first {
        asking.first.kill()?
    } else {
        asking.second.kill()?
    }
    let alive = if is_first { &asking.there } else { &asking.ada };
    let ended = alive.run_in(&run, &["failed", "succeeded"], LIMIT).await?;
    assert_eq!(ended["nodes"][0]["error"]["kind"], "effect_unknown", "{ended}");
    assert_eq!(ended["nodes"][0]["questions"][0]["state"], "cancelled", "{ended}");
    let late = json!({"approve": false, "question": question["id"]});
    alive.post(&decision(&run, "tool"), &late).await?.expect_problem(409, "conflict")?;
    Ok(())
}
