//! An agent node against a server that speaks OpenAI's protocol.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Answer, Database, Peer, Process, Request, begin, pipeline, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const KEY: &str = "sk-test-4f1c0ffee";
const CHAT: &str = "/v1/chat/completions";

/// A model that lists the files first, and then answers.
fn tool_call() -> Value {
    let call =
        json!({"id": "call_1", "type": "function", "function": {"name": "list_files", "arguments": "{}"}});
    completion(&json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls")
}

fn final_answer() -> Value {
    completion(&json!({"role": "assistant", "content": "There is a letter."}), "stop")
}

fn completion(message: &Value, finish_reason: &str) -> Value {
    json!({
        "id": "x", "object": "chat.completion", "model": "test-model-1",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    })
}

/// Whether a request shows the model what its tool found.
fn has_result(request: &Request) -> bool {
    request.json()["messages"].as_array().is_some_and(|messages| {
        messages.iter().any(|message| message["role"] == "tool" && message["tool_call_id"] == "call_1")
    })
}

fn definition() -> Value {
    let agent = json!({
        "name": "Clerk", "instructions": "Say what there is.", "provider": "openai", "model": "test-model",
        "tools": ["list_files"], "limits": {"max_steps": 4}
    });
    let node = json!({"id": "clerk", "type": "agent", "config": {"agent": agent, "prompt": "What is in the files?"}});
    let mut definition = pipeline(&[begin(), node], &[("begin", "clerk")]);
    definition["output"] = json!("nodes.clerk.output");
    definition
}

fn command(database: &Database, peer: &Peer, more: &[&str]) -> Result<Command> {
    let workspace = database.directory().join("office");
    fs::create_dir_all(&workspace)?;
    fs::write(workspace.join("letter.txt"), "Dear reader,")?;
    let file = database.directory().join("agent.json");
    fs::write(&file, definition().to_string())?;
    let (file, workspace) = (file.display().to_string(), workspace.display().to_string());
    let mut arguments = vec!["run", &file, "--workspace", &workspace, "--json"];
    arguments.extend(more);
    let mut command = database.command(&arguments)?;
    command.env("OPENAI_BASE_URL", peer.url("/v1")).env("OPENAI_API_KEY", KEY).env("GATHERING_LOG", "debug");
    Ok(command)
}

fn result(stdout: &str) -> Result<Value> {
    Ok(serde_json::from_str(stdout.lines().last().context("no line")?)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_uses_its_tools_and_its_key_is_shown_to_the_provider_only() -> Result<()> {
    let database = Database::empty().await?;
    let peer = Peer::start(|request| {
        Answer::now(200, if has_result(request) { final_answer() } else { tool_call() })
    })
    .await?;
    let ended = Process::start(&mut command(&database, &peer, &[])?)?.end(LIMIT).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let output = result(&ended.stdout)?["output"].clone();
    assert_eq!(
        (&output["content"], &output["provider"]),
        (&json!("There is a letter."), &json!("openai")),
        "{output}"
    );
    assert_eq!(output["usage"]["input_tokens"], 20, "both calls are counted: {output}");

    let asked = peer.requests();
    assert_eq!(asked.len(), 2);
    for request in &asked {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", CHAT));
        assert_eq!(request.headers.get("authorization"), Some(&format!("Bearer {KEY}")));
        assert_eq!(request.json()["model"], "test-model");
        assert_eq!(request.json()["tools"][0]["function"]["name"], "list_files");
    }
    assert!(!has_result(&asked[0]) && has_result(&asked[1]));
    assert!(asked[1].body.contains("letter.txt"), "the model sees the files: {}", asked[1].body);

    assert!(
        !ended.stderr.contains(KEY) && !ended.stdout.contains(KEY),
        "the key is in the log or the journal"
    );
    let session = database.session().await?;
    let leaks: i64 = session
        .query_one("SELECT count(*) FROM run_journal WHERE strpos(payload::text, $1) > 0", &[&KEY])
        .await?
        .get(0);
    assert_eq!(leaks, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_call_that_is_done_is_not_paid_again_after_a_kill() -> Result<()> {
    let database = Database::empty().await?;
    let peer = Peer::start(|request| match (has_result(request), request.nth) {
        (false, _) => Answer::now(200, tool_call()),
        (true, 1) => Answer::held(final_answer()),
        (true, _) => Answer::now(200, final_answer()),
    })
    .await?;
    let mut process = Process::start(&mut command(&database, &peer, &[])?)?;
    peer.asked(2, LIMIT).await.with_context(|| process.last_words())?;
    let session = database.session().await?;
    wait_until(LIMIT, "the first call is recorded", async || {
        let done = "SELECT count(*) FROM run_journal WHERE kind = 'effect_done'";
        let row = session.query_one(done, &[]).await.map_err(|error| error.to_string())?;
        if row.get::<_, i64>(0) == 2 {
            Ok(())
        } else {
            Err(format!("{} effects are done", row.get::<_, i64>(0)))
        }
    })
    .await?;
    process.kill()?;
    let ended = Process::start(&mut command(&database, &peer, &["--resume"])?)?.end(LIMIT).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let output = result(&ended.stdout)?["output"].clone();
    assert_eq!(output["content"], "There is a letter.");
    assert_eq!(output["usage"]["input_tokens"], 20, "each call is counted once: {output}");
    let with_result: Vec<bool> = peer.requests().iter().map(has_result).collect();
    assert_eq!(with_result, [false, true, true], "only the call that was cut off is repeated");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_not_configured_fails_with_what_to_configure() -> Result<()> {
    let database = Database::empty().await?;
    let file = database.directory().join("agent.json");
    fs::write(&file, definition().to_string())?;
    let mut command = database.command(&["run", &file.display().to_string()])?;
    let ended = Process::start(&mut command)?.end(LIMIT).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("OPENAI_BASE_URL") && ended.stderr.contains("clerk"), "{}", ended.stderr);
    Ok(())
}
