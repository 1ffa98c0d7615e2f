//! A run that was killed is finished, and nothing of it that succeeded is done again (I1, I4).

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gathering_e2e::{Answer, Database, Peer, Process, Random, Server, begin, call, pipeline, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// How often a run is killed.
const N_KILLS: usize = 20;

/// How many of them at the same time.
const N_AT_ONCE: usize = 4;

/// The nodes that call the peer; three of them at the same time.
const CALLS: [&str; 6] = ["first", "left", "middle", "right", "second", "last"];

/// What is killed: calls in a row and side by side, and a timer.
fn definition(peer: &Peer, place: &str) -> Value {
    let mut nodes = vec![begin(), json!({"id": "pause", "type": "delay", "config": {"seconds": 0.2}})];
    nodes.extend(CALLS.map(|id| call(id, &peer.url(&format!("/{place}/{id}")))));
    let edges = [
        ("begin", "first"),
        ("first", "left"),
        ("first", "middle"),
        ("first", "right"),
        ("left", "second"),
        ("middle", "second"),
        ("right", "second"),
        ("second", "pause"),
        ("pause", "last"),
    ];
    let mut definition = pipeline(&nodes, &edges);
    if let Some(second) = nodes.iter().position(|node| node["id"] == "second") {
        definition["nodes"][second]["join"] = json!("all");
    }
    definition["output"] = json!("nodes.last.output.body.path");
    definition
}

/// The requests of one definition, by node.
fn asked(peer: &Peer, place: &str) -> HashMap<&'static str, Vec<String>> {
    let mut asked: HashMap<&'static str, Vec<String>> = HashMap::new();
    for id in CALLS {
        let requests = peer.requests_to(&format!("/{place}/{id}"));
        let keys = requests.iter().map(|request| request.idempotency_key().unwrap_or_default().to_owned());
        asked.insert(id, keys.collect());
    }
    asked
}

async fn peer() -> Result<Peer> {
    Peer::start(|request| Answer::slow(Duration::from_millis(60), json!({"path": request.path}))).await
}

fn write(database: &Database, peer: &Peer, place: &str) -> Result<PathBuf> {
    let file = database.directory().join(format!("{place}.json"));
    fs::write(&file, definition(peer, place).to_string())?;
    Ok(file)
}

/// Starts a run, and kills it a moment after the peer was asked `n_requests` times.
async fn start_and_kill(
    database: &Database,
    peer: &Peer,
    place: &str,
    n_requests: usize,
    moment: Duration,
) -> Result<PathBuf> {
    let file = write(database, peer, place)?;
    let mut process = Process::start(&mut database.command(&["run", &file.display().to_string()])?)?;
    wait_until(LIMIT, "the run gets on", async || {
        let n_seen: usize = asked(peer, place).values().map(Vec::len).sum();
        if n_seen >= n_requests {
            Ok(())
        } else {
            Err(format!("{n_seen} requests: {}", process.last_words()))
        }
    })
    .await?;
    // The moment is drawn, not waited for: nothing depends on what happens in it.
    tokio::time::sleep(moment).await;
    process.kill()?;
    Ok(file)
}

/// The nodes of a file's run whose success, or whose call's, is durable.
async fn durable(database: &Database, place: &str) -> Result<Vec<String>> {
    let session = database.session().await?;
    let rows = session
        .query(
            "SELECT DISTINCT j.node_id FROM run_journal j JOIN all_runs r ON r.id = j.run_id \
             JOIN graphs g ON g.digest = r.graph_digest \
             WHERE j.kind IN ('node_succeeded', 'effect_done') AND strpos(g.definition::text, $1) > 0",
            &[&format!("/{place}/")],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Checks what a finished run leaves: its journal, and what the peer saw of it.
fn check(journal: &[Value], asked: &HashMap<&'static str, Vec<String>>, run: &str) -> Result<()> {
    let mut attempts: HashMap<&str, usize> = HashMap::new();
    let mut succeeded: Vec<&str> = Vec::new();
    for (place, entry) in (1..).zip(journal) {
        ensure!(entry["seq"] == place, "a gap before {entry}");
        let node = entry["node_id"].as_str().unwrap_or_default();
        match entry["kind"].as_str() {
            Some("node_started") => {
                ensure!(!succeeded.contains(&node), "{node} began again after it had succeeded");
                *attempts.entry(node).or_default() += 1;
            }
            Some("node_succeeded") => {
                ensure!(!succeeded.contains(&node), "{node} succeeded twice");
                succeeded.push(node);
            }
            _ => {}
        }
    }
    for (node, keys) in asked {
        ensure!(succeeded.contains(node), "{node} did not succeed");
        let n_attempts = attempts.get(node).copied().unwrap_or(0);
        ensure!(
            (1..=n_attempts).contains(&keys.len()),
            "{node}: {} requests in {n_attempts} attempts",
            keys.len()
        );
        let expected = format!("{run}/{node}");
        ensure!(keys.iter().all(|key| *key == expected), "{node}: {keys:?}, not {expected}");
    }
    Ok(())
}

/// Answers whether the run was cut off in the middle.
async fn kill_and_resume(
    database: &Database,
    peer: &Peer,
    place: &str,
    n_requests: usize,
    moment: Duration,
) -> Result<bool> {
    let file = start_and_kill(database, peer, place, n_requests, moment).await?;
    let (done, before) = (durable(database, place).await?, asked(peer, place));
    let resume = ["run", &file.display().to_string(), "--resume", "--json"];
    let ended = Process::start(&mut database.command(&resume)?)?.end(LIMIT).await?;
    if ended.code == Some(2) {
        // It was killed before it was accepted: nothing had happened, and nothing is started.
        ensure!(ended.stderr.contains("there is no run of this file"), "{ended:?}");
        ensure!(asked(peer, place).values().all(Vec::is_empty) && done.is_empty(), "{done:?}");
        return Ok(false);
    }
    ensure!(ended.code == Some(0), "{ended:?}");
    let lines: Result<Vec<Value>, _> = ended.stdout.lines().map(serde_json::from_str).collect();
    let (mut journal, after) = (lines?, asked(peer, place));
    let result = journal.pop().context("no result")?;
    ensure!(result["state"] == "succeeded" && result["output"] == format!("/{place}/last"), "{result}");
    for node in &done {
        let (before, after) = (before.get(node.as_str()), after.get(node.as_str()));
        ensure!(
            before == after,
            "{node} was done, and yet the peer was asked again: {before:?}, then {after:?}"
        );
    }
    let run = result["run_id"].as_str().context("no run_id")?;
    if journal.is_empty() {
        // It had ended before it was killed: nothing is shown again, and nothing was executed again.
        ensure!(after.values().all(|keys| keys.len() == 1), "{after:?}");
        return Ok(false);
    }
    check(&journal, &after, run)?;
    Ok(journal.iter().any(|entry| entry["kind"] == "taken_over"))
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_run_killed_at_any_moment_is_resumed_without_repeating_what_succeeded() -> Result<()> {
    let mut random = Random::printed()?;
    let (database, peer) = (Database::empty().await?, peer().await?);
    let migrated = Process::start(&mut database.command(&["migrate"])?)?.end(LIMIT).await?;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    // Spread over the whole run: from before its first request to after its last.
    let kills: Vec<(usize, Duration)> = (0..N_KILLS)
        .map(|n_kill| {
            let n_requests = n_kill % (CALLS.len() + 1);
            (n_requests, random.below(Duration::from_millis(if n_requests == 0 { 400 } else { 120 })))
        })
        .collect();
    let lane = async |first: usize| -> Result<usize> {
        let mut n_cut_off = 0;
        for (n_kill, (n_requests, moment)) in kills.iter().enumerate().skip(first).step_by(N_AT_ONCE) {
            let place = format!("kill-{n_kill}");
            let killed = kill_and_resume(&database, &peer, &place, *n_requests, *moment).await;
            let killed = killed.with_context(|| format!("killed {moment:?} after request {n_requests}"));
            n_cut_off += usize::from(killed?);
        }
        Ok(n_cut_off)
    };
    let (one, two, three, four) = tokio::try_join!(lane(0), lane(1), lane(2), lane(3))?;
    let n_cut_off = one + two + three + four;
    assert!(
        n_cut_off >= N_KILLS / 2,
        "only {n_cut_off} kills met a run in the middle: the test proves little"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_a_run_killed_on_the_command_line_is_finished_by_a_server() -> Result<()> {
    let (database, peer) = (Database::empty().await?, peer().await?);
    start_and_kill(&database, &peer, "killed", 3, Duration::ZERO).await?;
    let _server = Server::start(&database).await?;
    let session = database.session().await?;
    let output = wait_until(LIMIT, "the run ends", async || {
        let row = session.query_one("SELECT state, output::text, recoveries FROM all_runs", &[]).await;
        let row = row.map_err(|error| error.to_string())?;
        match row.get::<_, &str>(0) {
            "succeeded" => Ok((row.get::<_, Option<String>>(1), row.get::<_, i32>(2))),
            other => Err(other.to_owned()),
        }
    })
    .await?;
    assert_eq!(output, (Some(r#""/killed/last""#.to_owned()), 1));
    let run: String = session.query_one("SELECT id::text FROM all_runs", &[]).await?.get(0);
    for (node, keys) in asked(&peer, "killed") {
        assert!(keys.iter().all(|key| *key == format!("{run}/{node}")), "{node}: {keys:?}");
        assert!((1..=2).contains(&keys.len()), "{node}: {keys:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn resuming_what_has_ended_does_nothing_again() -> Result<()> {
    let (database, peer) = (Database::empty().await?, peer().await?);
    let file = write(&database, &peer, "ended")?.display().to_string();
    for arguments in [vec!["run", &file], vec!["run", &file, "--resume"]] {
        let ended = Process::start(&mut database.command(&arguments)?)?.end(LIMIT).await?;
        assert_eq!((ended.code, ended.stdout.trim()), (Some(0), "/ended/last"), "{ended:?}");
    }
    assert!(asked(&peer, "ended").values().all(|keys| keys.len() == 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_asked_to_stop_is_handed_back_and_can_be_resumed() -> Result<()> {
    let (database, peer) = (Database::empty().await?, peer().await?);
    let file = write(&database, &peer, "stopped")?.display().to_string();
    let mut process = Process::start(&mut database.command(&["run", &file])?)?;
    peer.asked(2, LIMIT).await.with_context(|| process.last_words())?;
    process.signal(Signal::SIGTERM)?;
    let ended = process.end(LIMIT).await?;
    assert_eq!(ended.code, Some(128 + 15), "{ended:?}");
    assert!(ended.stderr.contains("--resume"), "{}", ended.stderr);
    let session = database.session().await?;
    let state: String = session.query_one("SELECT state FROM all_runs", &[]).await?.get(0);
    assert_eq!(state, "queued");
    let ended = Process::start(&mut database.command(&["run", &file, "--resume"])?)?.end(LIMIT).await?;
    assert_eq!((ended.code, ended.stdout.trim()), (Some(0), "/stopped/last"), "{ended:?}");
    assert!(asked(&peer, "stopped").values().all(|keys| keys.len() == 1), "what executed was let finish");
    Ok(())
}
