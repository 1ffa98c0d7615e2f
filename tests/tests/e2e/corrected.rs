//! What is kept when a mistake is corrected: in the definition, in the input, or in the file of a local run.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Answer, Client, Database, Ended, Peer, Process, Server, call, pipeline};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const ENDS: [&str; 4] = ["succeeded", "failed", "cancelled", "timed_out"];

/// A peer that refuses everything below `/wrong`.
async fn peer() -> Result<Peer> {
    Peer::start(|request| {
        let status = if request.path.starts_with("/wrong") { 400 } else { 200 };
        Answer::now(status, json!({"path": request.path}))
    })
    .await
}

/// `a`, `b` and `c` in a row; `b` calls this path.
fn chain(peer: &Peer, path_of_b: &str) -> Value {
    let nodes = [call("a", &peer.url("/a")), call("b", &peer.url(path_of_b)), call("c", &peer.url("/c"))];
    let mut definition = pipeline(&nodes, &[("a", "b"), ("b", "c")]);
    definition["name"] = json!("chain");
    definition["output"] = json!("nodes.c.output.body.path");
    definition
}

fn n_asked(peer: &Peer) -> [usize; 4] {
    ["/a", "/wrong", "/b", "/c"].map(|path| peer.requests_to(path).len())
}

fn id(run: &Value) -> Result<&str> {
    run["id"].as_str().context("no id")
}

async fn rerun(client: &Client, run: &Value, body: &Value) -> Result<Value> {
    client.post(&format!("/api/v1/runs/{}/rerun", id(run)?), body).await?.expect(202)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_version_continues_a_run_and_a_dry_run_only_shows_how() -> Result<()> {
    let (database, peer) = (Database::empty().await?, peer().await?);
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let pipeline = ada.create_pipeline(&chain(&peer, "/wrong")).await?;
    let failed = ada.run_in(&ada.start_run(&pipeline).await?, &ENDS, LIMIT).await?;
    assert_eq!((failed["state"].as_str(), n_asked(&peer)), (Some("failed"), [1, 1, 0, 0]));
    let change = json!({"definition": chain(&peer, "/b")});
    ada.put(&format!("/api/v1/pipelines/{pipeline}"), &change).await?.expect(200)?;

    let path = format!("/api/v1/runs/{}/rerun", id(&failed)?);
    let body = json!({"from": "failed", "version": 2, "dry_run": true});
    let shown = ada.post(&path, &body).await?.expect(200)?;
    let reasons = json!([
        {"node_id": "b", "reason": "not_succeeded", "message": "it has not succeeded: failed", "reused_effects": 0},
        {"node_id": "c", "reason": "upstream", "message": "it comes after `b`, which runs", "reused_effects": 0},
    ]);
    let plan = json!({"kept": ["a"], "not_kept": reasons});
    assert_eq!(shown, plan);
    let runs = ada.get("/api/v1/runs").await?.expect(200)?;
    assert_eq!((runs["items"].as_array().map(Vec::len), n_asked(&peer)), (Some(1), [1, 1, 0, 0]));

    let accepted = rerun(&ada, &failed, &json!({"from": "failed", "version": 2})).await?;
    assert_eq!((&accepted["plan"], &accepted["version"]), (&plan, &json!(2)));
    let ended = ada.run_in(id(&accepted)?, &ENDS, LIMIT).await?;
    assert_eq!((&ended["state"], &ended["output"]), (&json!("succeeded"), &json!("/c")), "{ended}");
    assert_eq!(n_asked(&peer), [1, 1, 1, 1]);
    let unknown = ada.post(&path, &json!({"from": "failed", "version": 3})).await?;
    unknown.expect_problem(422, "invalid")?;
    assert_eq!(unknown.pointers(), ["/version"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_stands_only_for_the_message_and_the_input_that_were_seen() -> Result<()> {
    let (database, peer) = (Database::empty().await?, peer().await?);
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let gate = json!({"id": "gate", "type": "approval", "config": {"message": "Pay?"}});
    let mut pay = call("pay", &peer.url("/${{ has(input.wrong) ? 'wrong' : 'pay' }}"));
    pay["config"]["body"] = json!({"n": "${{ input.n }}"});
    let pipeline = ada.create_pipeline(&pipeline(&[gate, pay], &[("gate", "pay")])).await?;
    let input = json!({"n": 1, "wrong": true});
    let path = format!("/api/v1/pipelines/{pipeline}/runs");
    let run = ada.post(&path, &json!({"input": input})).await?.expect(202)?;
    ada.run_in(id(&run)?, &["waiting"], LIMIT).await?;
    let decision = format!("/api/v1/runs/{}/nodes/gate/decision", id(&run)?);
    ada.post(&decision, &json!({"approve": true})).await?.expect(202)?;
    assert_eq!(ada.run_in(id(&run)?, &ENDS, LIMIT).await?["state"], "failed");

    let (key, _) = ada.create_key(&["run"]).await?;
    let other = json!({"from": "failed", "input": {"n": 1000}});
    let other = rerun(&key, &run, &other).await?;
    assert_eq!(other["plan"]["kept"], json!([]), "the approver never saw it: {other}");
    assert_eq!(other["plan"]["not_kept"][0]["reason"], "input_changed");
    let waiting = ada.run_in(id(&other)?, &["waiting", "succeeded", "failed"], LIMIT).await?;
    assert_eq!((&waiting["state"], &waiting["waiting_for"]), (&json!("waiting"), &json!("approval")));
    assert!(peer.requests_to("/pay").is_empty());

    let same = rerun(&key, &run, &json!({"from": "failed"})).await?;
    assert_eq!(same["plan"]["kept"], json!(["gate"]), "{same}");
    let journal = ada.get(&format!("/api/v1/runs/{}/journal", id(&same)?)).await?.expect(200)?;
    let first = &journal["items"][0];
    assert_eq!((&first["kind"], &first["node_id"]), (&json!("work_reused"), &json!("gate")));
    assert_eq!(first["payload"]["from_runs"], json!([id(&run)?]), "the journal says whose approval it is");
    Ok(())
}

struct Local {
    database: Database,
    peer: Peer,
    file: PathBuf,
}

impl Local {
    async fn new(peer: Peer) -> Result<Self> {
        let database = Database::empty().await?;
        let file = database.directory().join("chain.json");
        Ok(Self { database, peer, file })
    }

    fn write(&self, definition: &Value) -> Result<()> {
        Ok(fs::write(&self.file, definition.to_string())?)
    }

    async fn run(&self, arguments: &[&str]) -> Result<Ended> {
        let file = self.file.display().to_string();
        let arguments: Vec<&str> = ["run", &file].into_iter().chain(arguments.iter().copied()).collect();
        Process::start(&mut self.database.command(&arguments)?)?.end(LIMIT).await
    }

    async fn n_runs(&self) -> Result<i64> {
        let session = self.database.session().await?;
        Ok(session.query_one("SELECT count(*) FROM all_runs", &[]).await?.get(0))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resuming_a_file_without_a_run_starts_nothing() -> Result<()> {
    let local = Local::new(peer().await?).await?;
    local.write(&chain(&local.peer, "/b"))?;
    let ended = local.run(&["--resume"]).await?;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("there is no run of this file"), "{}", ended.stderr);
    assert_eq!((local.n_runs().await?, n_asked(&local.peer)), (0, [0; 4]));
    // The same content in another file, or under another name, is another pipeline.
    assert_eq!(local.run(&[]).await?.code, Some(0));
    let mut renamed = chain(&local.peer, "/b");
    renamed["name"] = json!("other");
    local.write(&renamed)?;
    assert_eq!(local.run(&["--resume"]).await?.code, Some(2));
    local.write(&chain(&local.peer, "/b"))?;
    let copy = Local { file: local.database.directory().join("copy.json"), ..local };
    copy.write(&chain(&copy.peer, "/b"))?;
    assert_eq!(copy.run(&["--resume"]).await?.code, Some(2));
    assert_eq!(copy.n_runs().await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn resuming_a_corrected_file_keeps_what_is_the_same_and_says_so() -> Result<()> {
    let local = Local::new(peer().await?).await?;
    local.write(&chain(&local.peer, "/wrong"))?;
    assert_eq!(local.run(&[]).await?.code, Some(1));
    local.write(&chain(&local.peer, "/b"))?;
    let ended = local.run(&["--resume"]).await?;
    assert_eq!((ended.code, ended.stdout.trim()), (Some(0), "/c"), "{ended:?}");
    for line in
        ["kept: a", "runs: b (it has not succeeded: failed)", "runs: c (it comes after `b`, which runs)"]
    {
        assert!(ended.stderr.contains(line), "{line}: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("a  running"), "only what runs is shown to run: {}", ended.stderr);
    assert_eq!(n_asked(&local.peer), [1, 1, 1, 1]);
    // What succeeded is corrected likewise: here its output alone.
    let mut corrected = chain(&local.peer, "/b");
    corrected["output"] = json!("nodes.b.output.body.path");
    local.write(&corrected)?;
    let ended = local.run(&["--resume", "--json"]).await?;
    let lines: Result<Vec<Value>, _> = ended.stdout.lines().map(serde_json::from_str).collect();
    let lines = lines?;
    assert_eq!(
        (&lines[0]["kind"], &lines[0]["kept"]),
        (&json!("plan"), &json!(["a", "b", "c"])),
        "{ended:?}"
    );
    assert_eq!(lines.last().context("no result")?["output"], "/b");
    assert_eq!((n_asked(&local.peer), local.n_runs().await?), ([1, 1, 1, 1], 3));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_is_resumed_from_what_failed() -> Result<()> {
    let is_well = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&is_well);
    let peer = Peer::start(move |request| {
        let is_refused = request.path == "/b" && !switch.load(Ordering::SeqCst);
        Answer::now(if is_refused { 400 } else { 200 }, json!({"path": request.path}))
    });
    let local = Local::new(peer.await?).await?;
    local.write(&chain(&local.peer, "/b"))?;
    assert_eq!(local.run(&[]).await?.code, Some(1));
    assert_eq!(local.run(&["--resume"]).await?.code, Some(1), "it fails again");
    is_well.store(true, Ordering::SeqCst);
    let ended = local.run(&["--resume"]).await?;
    assert_eq!((ended.code, ended.stdout.trim()), (Some(0), "/c"), "{ended:?}");
    assert_eq!(n_asked(&local.peer), [1, 0, 3, 1]);
    let keys: Vec<_> = local
        .peer
        .requests_to("/b")
        .iter()
        .map(|request| request.idempotency_key().map(str::to_owned))
        .collect();
    assert!(keys.iter().all(|key| *key == keys[0]), "one key for one request: {keys:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_whose_file_is_corrected_is_ended_and_continued() -> Result<()> {
    let peer = Peer::start(|request| {
        let answer = json!({"path": request.path});
        if request.path == "/wrong" { Answer::held(answer) } else { Answer::now(200, answer) }
    });
    let local = Local::new(peer.await?).await?;
    // A read: whether the call that is cut off took place does not matter.
    let reading = |path| {
        let mut definition = chain(&local.peer, path);
        definition["nodes"][1]["config"]["method"] = json!("GET");
        definition
    };
    local.write(&reading("/wrong"))?;
    let file = local.file.display().to_string();
    let mut process = Process::start(&mut local.database.command(&["run", &file])?)?;
    local.peer.asked(2, LIMIT).await.with_context(|| process.last_words())?;
    process.kill()?;
    local.write(&reading("/b"))?;
    let ended = local.run(&["--resume"]).await?;
    assert_eq!((ended.code, ended.stdout.trim()), (Some(0), "/c"), "{ended:?}");
    assert_eq!(n_asked(&local.peer), [1, 1, 1, 1]);
    let session = local.database.session().await?;
    let states = session.query("SELECT state FROM all_runs ORDER BY id", &[]).await?;
    let states: Vec<&str> = states.iter().map(|row| row.get(0)).collect();
    assert_eq!(states, ["cancelled", "succeeded"]);
    Ok(())
}
