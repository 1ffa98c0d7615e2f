//! What mounted servers tell during a call is in the stream of the run, for those who follow it.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use gathering_e2e::{Client, Database, Sse, SseEvent, pipeline, wait_until};
use serde_json::{Value, json};

use super::world::{Scripted, World, start};
use super::{LIMIT, VALUE};

/// A run whose calls tell something once this file is there.
struct Signal {
    _directory: tempfile::TempDir,
    file: PathBuf,
}

impl Signal {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("go");
        Ok(Self { _directory: directory, file })
    }

    fn give(&self) -> Result<()> {
        Ok(std::fs::write(&self.file, "")?)
    }
}

async fn follow(client: &Client, run: &str) -> Result<Sse> {
    Sse::open(client, &format!("/api/v1/runs/{run}/stream"), None).await
}

/// Reads until `n_calls` calls were begun.
async fn begun(stream: &mut Sse, n_calls: usize) -> Result<()> {
    let mut n_begun = 0;
    while n_begun < n_calls {
        let event = stream.next().await?.context("the stream ends")?;
        let is_tool = event.data["payload"]["class"] == "unsafe";
        n_begun += usize::from(event.kind == "effect_started" && is_tool);
    }
    Ok(())
}

fn notices(events: &[SseEvent]) -> Vec<&SseEvent> {
    events.iter().filter(|event| event.kind == "tool_notice").collect()
}

/// The only run of the project that goes on.
async fn running(client: &Client, project: &str) -> Result<String> {
    let look = async || {
        let path = format!("/api/v1/runs?project_id={project}&state=running");
        let runs = client.get(&path).await.and_then(|reply| reply.expect(200));
        let runs = runs.map_err(|error| error.to_string())?;
        runs["items"][0]["id"].as_str().map(str::to_owned).ok_or_else(|| runs.to_string())
    };
    wait_until(LIMIT, "a run goes on", look).await
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_of_a_run_hear_what_its_tools_tell_and_its_journal_does_not_have_it() -> Result<()> {
    let database = Database::empty().await?;
    let server = start(&database).await?;
    let (world, scripted, signal) = (World::new(&server).await?, Scripted::new()?, Signal::new()?);
    let ada = &world.ada;
    world.mount("scripted", &scripted.stdio()).await?.expect(201)?;
    let params = json!({"after": signal.file});
    let node = json!({"id": "node", "type": "tool", "config": {"tool": "scripted__tell", "params": params}});
    let instructions = format!("scripted: call scripted__tell {params}");
    let agent = json!({"provider": "scripted", "instructions": instructions, "tools": ["scripted__tell"]});
    let agent =
        json!({"id": "agent", "type": "agent", "config": {"agent": agent, "prompt": "One sentence."}});
    let body = json!({"name": "p", "project_id": world.project, "definition": pipeline(&[node, agent], &[])});
    let made = ada.post("/api/v1/pipelines", &body).await?.expect(201)?;
    let run = ada.start_run(made["id"].as_str().context("id")?).await?;
    let mut stream = follow(ada, &run).await?;
    begun(&mut stream, 2).await?;
    // The connection hides what the server was given. Another instance reads the journal, and does not hear of it.
    let second = start(&database).await?;
    let there = second.client().with_token(ada.token().context("token")?);
    let mut elsewhere = follow(&there, &run).await?;
    begun(&mut elsewhere, 2).await?;
    signal.give()?;

    let events = stream.rest().await?;
    let told = notices(&events);
    for node in ["node", "agent"] {
        let of_node =
            |event: &&&SseEvent| event.data["node_id"] == node && event.data["progress"].is_object();
        let event = told.iter().find(of_node).with_context(|| format!("{node} in {told:?}"))?;
        let expected = json!({
            "node_id": node, "attempt": 1, "tool": "scripted__tell", "left_out": 0, "log": null, "question": null,
            "progress": {"progress": 1.0, "total": 2.0, "message": "with [hidden]"},
        });
        assert_eq!((event.id, &event.data), (None, &expected));
    }
    let last = events.last().context("no event")?;
    assert_eq!((last.kind.as_str(), &last.data["state"]), ("run_ended", &json!("succeeded")));
    let place = |matches: &dyn Fn(&SseEvent) -> bool| events.iter().position(matches);
    let told_at = place(&|event| event.kind == "tool_notice" && event.data["node_id"] == "node");
    let done_at = place(&|event| event.kind == "node_succeeded" && event.data["node_id"] == "node");
    assert!(told_at < done_at, "it is told before the node ends: {told_at:?} {done_at:?}");
    assert!(notices(&elsewhere.rest().await?).is_empty());
    assert!(notices(&follow(ada, &run).await?.rest().await?).is_empty(), "nobody hears of it later");
    let journal = ada.get(&format!("/api/v1/runs/{run}/journal?limit=200")).await?;
    assert!(!journal.text.contains("tool_notice") && !journal.text.contains(VALUE));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_is_called_by_itself_and_floods_is_thinned_out() -> Result<()> {
    let database = Database::empty().await?;
    let server = start(&database).await?;
    let (world, scripted, signal) = (World::new(&server).await?, Scripted::new()?, Signal::new()?);
    world.mount("scripted", &scripted.stdio()).await?.expect(201)?;
    let params = json!({"after": signal.file, "entries": 5_000});
    let followed = async {
        let run = running(&world.ada, &world.project).await?;
        let mut stream = follow(&world.ada, &run).await?;
        begun(&mut stream, 1).await?;
        signal.give()?;
        stream.rest().await
    };
    let (said, events) = tokio::join!(world.text("scripted__tell", params), followed);
    assert_eq!(said?, "told");
    let events = events?;
    let told = notices(&events);
    assert!((10..200).contains(&told.len()), "{}", told.len());
    let entry = |event: &SseEvent| -> Option<Value> {
        serde_json::from_str(event.data["log"]["text"].as_str()?).ok()
    };
    let first = entry(told[1]).context("a log entry")?;
    assert_eq!((first, &told[1].data["log"]["level"]), (json!({"entry": 0}), &json!("info")));
    let (mut expected, mut n_left_out) = (0, 0);
    for event in &told[1..] {
        let left_out = event.data["left_out"].as_u64().context("left_out")?;
        expected += left_out;
        n_left_out += left_out;
        assert_eq!(entry(event), Some(json!({"entry": expected})), "it says how many are missing");
        expected += 1;
    }
    println!("{} came, {n_left_out} were left out", told.len());
    Ok(())
}
