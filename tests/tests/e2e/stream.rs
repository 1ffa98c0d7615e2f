//! A run as it happens: the events of its journal, over connections that come and go.

use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{
    Answer, Client, Database, Peer, Scene, Server, Sse, SseEvent, begin, call, pipeline, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// The most streams of one account.
const MAX_STREAMS: usize = 64;

/// Opens a stream of a run behind the event `after`.
async fn open(client: &Client, run: &str, after: Option<i64>) -> Result<Sse> {
    Sse::open(client, &format!("/api/v1/runs/{run}/stream"), after).await
}

/// Reads up to the first event of this kind and node, which is the last of those answered.
async fn up_to(stream: &mut Sse, kind: &str, node: &str) -> Result<Vec<SseEvent>> {
    let mut events = Vec::new();
    while let Some(event) = stream.next().await? {
        let is_it = event.kind == kind && event.data["node_id"] == node;
        events.push(event);
        if is_it {
            return Ok(events);
        }
    }
    anyhow::bail!("no {kind} of {node} in {events:?}")
}

/// What a stream of this run is to be, by its journal and the run itself.
async fn expected(client: &Client, run: &str) -> Result<Vec<SseEvent>> {
    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        let path = format!("/api/v1/runs/{run}/journal?limit=200&after={after}");
        let page = client.get(&path).await?.expect(200)?;
        for entry in page["items"].as_array().context("no items")? {
            after = entry["seq"].as_i64().context("no seq")?;
            let kind = entry["kind"].as_str().context("no kind")?.to_owned();
            events.push(SseEvent { id: Some(after), kind, data: entry.clone() });
        }
        if page["next_cursor"].is_null() {
            break;
        }
    }
    let mut run = client.get(&format!("/api/v1/runs/{run}")).await?.expect(200)?;
    run.as_object_mut().context("no run")?.remove("nodes");
    events.push(SseEvent { id: None, kind: "run_ended".to_owned(), data: run });
    Ok(events)
}

/// Begins a run that asks `peer` at `/`, and waits until it has.
async fn start_asking(client: &Client, peer: &Peer) -> Result<String> {
    let nodes = [begin(), call("ask", &peer.url("/")), json!({"id": "end", "type": "parallel"})];
    let definition = pipeline(&nodes, &[("begin", "ask"), ("ask", "end")]);
    let run = client.start_run(&client.create_pipeline(&definition).await?).await?;
    peer.asked(1, LIMIT).await?;
    Ok(run)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_the_journal_as_it_is_written_and_ends_with_the_run_on_every_instance() -> Result<()> {
    let database = Database::empty().await?;
    let servers = [Server::start(&database).await?, Server::start(&database).await?];
    let peer = Peer::start(|_| Answer::held(json!({"text": "two\nlines"}))).await?;
    let ada = servers[0].client().join("ada@example.org").await?;
    let other = servers[1].client().with_token(ada.token().context("no token")?);
    let run = start_asking(&ada, &peer).await?;
    let mut streams = [open(&ada, &run, None).await?, open(&other, &run, None).await?];
    let mut seen = Vec::new();
    for stream in &mut streams {
        // It comes while the node still waits for its answer.
        seen.push(up_to(stream, "effect_started", "ask").await?);
    }
    peer.release();
    for (stream, seen) in streams.iter_mut().zip(&mut seen) {
        seen.extend(stream.rest().await?);
    }
    let expected = expected(&ada, &run).await?;
    assert_eq!(expected.last().map(|last| &last.data["state"]), Some(&json!("succeeded")));
    for seen in seen {
        assert_eq!(seen, expected);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_misses_nothing_and_sees_nothing_twice() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::now(200, json!({}))).await?;
    let ada = server.client().join("ada@example.org").await?;
    let run = start_asking(&ada, &peer).await?;
    ada.run_in(&run, &["succeeded"], LIMIT).await?;
    let expected = expected(&ada, &run).await?;
    assert!(expected.len() > 6, "{expected:?}");
    for n_seen in 0..expected.len() {
        let after = expected[..n_seen].last().and_then(|event| event.id).unwrap_or(0);
        assert_eq!(open(&ada, &run, Some(after)).await?.rest().await?, expected[n_seen..], "{after}");
    }
    let beyond = open(&ada, &run, Some(i64::MAX)).await?.rest().await?;
    assert_eq!(beyond, expected[expected.len() - 1..]);
    let stream = ada.with_header("last-event-id", "seven").get(&format!("/api/v1/runs/{run}/stream")).await?;
    stream.expect_problem(422, "invalid")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_without_a_word_in_its_journal_ends_its_streams() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let id = ada.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let later = json!({"available_at": "2100-01-01T00:00:00Z"});
    let run = ada.post(&format!("/api/v1/pipelines/{id}/runs"), &later).await?.expect(202)?;
    let run = run["id"].as_str().context("no id")?;
    let mut stream = open(&ada, run, None).await?;
    ada.post(&format!("/api/v1/runs/{run}/cancel"), &json!({})).await?.expect(202)?;
    let events = stream.rest().await?;
    assert_eq!(events, expected(&ada, run).await?);
    assert_eq!((events.len(), &events[0].data["state"]), (1, &json!("cancelled")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_its_time_gets_everything_in_order() -> Result<()> {
    const N_CALLS: usize = 80;
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    // More than the buffers of a connection hold.
    let peer = Peer::start(|request| {
        Answer::now(200, json!({"number": request.number, "filling": "x".repeat(120_000)}))
    })
    .await?;
    let ada = server.client().join("ada@example.org").await?;
    let names: Vec<String> = (0..N_CALLS).map(|number| format!("ask{number}")).collect();
    let nodes: Vec<Value> = names.iter().map(|name| call(name, &peer.url("/"))).collect();
    let mut definition = pipeline(&nodes, &[]);
    definition["output"] = json!("1");
    let run = ada.start_run(&ada.create_pipeline(&definition).await?).await?;
    let mut stream = open(&ada, &run, None).await?;
    ada.run_in(&run, &["succeeded"], LIMIT).await?;
    // Meanwhile nothing was taken, and what is sent now is what was written long ago.
    let events = stream.rest().await?;
    let ids: Vec<_> = events.iter().filter_map(|event| event.id).collect();
    assert!(ids.len() >= N_CALLS * 4, "{} entries", ids.len());
    assert!(ids.iter().copied().eq(1..=i64::try_from(ids.len())?), "{ids:?}");
    assert_eq!(events.last().map(|last| last.kind.as_str()), Some("run_ended"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_their_instance_stops_and_go_on_at_another() -> Result<()> {
    let database = Database::empty().await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let mut first = Server::start_with(&database, |command| {
        command.env("GATHERING_SHUTDOWN_DRAIN_SECONDS", "5").env("GATHERING_SHUTDOWN_GRACE_SECONDS", "1");
    })
    .await?;
    let ada = first.client().join("ada@example.org").await?;
    let run = start_asking(&ada, &peer).await?;
    let mut stream = open(&ada, &run, None).await?;
    let mut seen = up_to(&mut stream, "effect_started", "ask").await?;
    first.signal(Signal::SIGTERM)?;
    seen.extend(stream.rest().await?);
    assert!(seen.iter().all(|event| event.kind != "run_ended"), "{seen:?}");
    // The listener is still open, but a client that reconnects is sent elsewhere.
    let refused = ada.get(&format!("/api/v1/runs/{run}/stream")).await?;
    refused.expect_problem(503, "draining")?;
    assert!(refused.retry_after()? > Duration::ZERO);
    let ended = first.end(LIMIT).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");

    let second = Server::start(&database).await?;
    let ada = second.client().login("ada@example.org").await?;
    let last = seen.last().and_then(|event| event.id);
    let mut stream = open(&ada, &run, last).await?;
    peer.release();
    seen.extend(stream.rest().await?);
    assert_eq!(seen, expected(&ada, &run).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_streams_of_an_account_are_refused_and_one_that_is_left_makes_room() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|request| match request.path.as_str() {
        "/first" => Answer::held(json!({})),
        "/last" => Answer::slow(Duration::from_secs(5), json!({})),
        _ => Answer::slow(Duration::from_millis(200), json!({})),
    })
    .await?;
    let ada = server.client().join("ada@example.org").await?;
    let names = ["first", "second", "third", "last"];
    let nodes = names.map(|name| call(name, &peer.url(&format!("/{name}"))));
    let definition = pipeline(&nodes, &[("first", "second"), ("second", "third"), ("third", "last")]);
    let run = ada.start_run(&ada.create_pipeline(&definition).await?).await?;
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS {
        streams.push(open(&ada, &run, None).await?);
    }
    let refused = ada.get(&format!("/api/v1/runs/{run}/stream")).await?;
    refused.expect_problem(429, "rate-limited")?;
    assert!(refused.retry_after()? > Duration::ZERO);
    assert_eq!(ada.get(&format!("/api/v1/runs/{run}")).await?.status, 200, "everything else is answered");
    let bob = server.client().join("bob@example.org").await?;
    let short = bob.start_run(&bob.create_pipeline(&pipeline(&[begin()], &[])).await?).await?;
    let others = open(&bob, &short, None).await?.rest().await?;
    assert_eq!(others, expected(&bob, &short).await?, "and so are others");

    // That a client is gone shows when something is sent to it.
    streams.pop();
    peer.release();
    let mut again = wait_until(LIMIT, "there is room for a stream", async || {
        open(&ada, &run, None).await.map_err(|error| format!("{error:#}"))
    })
    .await?;
    let events = again.rest().await?;
    assert_eq!(events, expected(&ada, &run).await?);
    assert_eq!(streams.last_mut().context("no stream")?.rest().await?, events);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_shows_that_it_lives_to_those_who_may_still_see_the_run() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let scene = Scene::set(server.client()).await?;
    let definition = pipeline(&[begin(), call("ask", &peer.url("/"))], &[("begin", "ask")]);
    let body = json!({"project_id": scene.project, "name": "asking", "definition": definition});
    let asking = scene.owner.post("/api/v1/pipelines", &body).await?.expect(201)?;
    let run = scene.owner.start_run(asking["id"].as_str().context("no id")?).await?;
    peer.asked(1, LIMIT).await?;

    let session = server.client().login("editor@example.org").await?;
    let mut stays = open(&scene.owner, &run, None).await?;
    let mut leaves = open(&scene.viewer, &run, None).await?;
    let mut logs_out = open(&session, &run, None).await?;
    for stream in [&mut stays, &mut leaves, &mut logs_out] {
        up_to(stream, "effect_started", "ask").await?;
    }
    let member = format!("/api/v1/projects/{}/members/{}", scene.project, scene.viewer.user_id().await?);
    assert_eq!(scene.owner.delete(&member).await?.status, 204);
    assert_eq!(session.post("/api/v1/auth/logout", &json!({})).await?.status, 204);
    assert_eq!(leaves.rest().await?, [], "a former member sees nothing more");
    assert_eq!(logs_out.rest().await?, [], "nor does a session that has ended");
    peer.release();
    let events = stays.rest().await?;
    assert_eq!(events.last().map(|last| last.kind.as_str()), Some("run_ended"));
    assert!(stays.n_comments >= 1, "nothing came for 15 seconds");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_stream_ends_at_once_for_those_who_may_not_see_the_run_any_more() -> Result<()> {
    const N_CALLS: usize = 40;
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::slow(Duration::from_millis(200), json!({}))).await?;
    let scene = Scene::set(server.client()).await?;
    let names: Vec<String> = (0..N_CALLS).map(|number| format!("ask{number}")).collect();
    let nodes: Vec<Value> = names.iter().map(|name| call(name, &peer.url("/"))).collect();
    let edges: Vec<_> = names.windows(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let body = json!({"project_id": scene.project, "name": "busy", "definition": pipeline(&nodes, &edges)});
    let busy = scene.owner.post("/api/v1/pipelines", &body).await?.expect(201)?;
    let run = scene.owner.start_run(busy["id"].as_str().context("no id")?).await?;
    let session = server.client().login("editor@example.org").await?;
    let mut stays = open(&scene.owner, &run, None).await?;
    let mut leaves = open(&scene.viewer, &run, None).await?;
    let mut logs_out = open(&session, &run, None).await?;
    for stream in [&mut stays, &mut leaves, &mut logs_out] {
        up_to(stream, "effect_started", "ask1").await?;
    }
    let member = format!("/api/v1/projects/{}/members/{}", scene.project, scene.viewer.user_id().await?);
    assert_eq!(scene.owner.delete(&member).await?.status, 204);
    assert_eq!(session.post("/api/v1/auth/logout", &json!({})).await?.status, 204);
    for stream in [&mut leaves, &mut logs_out] {
        let rest = stream.rest().await?;
        let is_whole = rest.iter().any(|event| event.kind == "run_ended");
        assert!(!is_whole && stream.n_comments == 0, "{} events, {}", rest.len(), stream.n_comments);
    }
    let events = stays.rest().await?;
    assert_eq!(events.last().map(|last| last.kind.as_str()), Some("run_ended"), "others see it all");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_sees_the_instances_and_what_they_drive() -> Result<()> {
    let database = Database::empty().await?;
    let first = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let ada = first.client().join("ada@example.org").await?;
    let run = start_asking(&ada, &peer).await?;
    let mut second = Server::start(&database).await?;
    let listed = ada.get("/api/v1/system/instances").await?.expect(200)?;
    assert_eq!(listed["next_cursor"], Value::Null);
    let shown: Vec<_> = listed["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| (one["pid"].as_u64(), one["n_runs"].as_i64(), one["state"].as_str()))
        .collect();
    let pid = |server: &Server| Some(u64::from(server.id()));
    assert_eq!(shown, [(pid(&first), Some(1), Some("active")), (pid(&second), Some(0), Some("active"))]);
    let driven: Vec<_> =
        listed["items"].as_array().into_iter().flatten().map(|one| &one["run_ids"]).collect();
    assert_eq!(driven, [&json!([run]), &json!([])], "the owner of each run");
    for field in ["id", "hostname", "version", "started_at", "heartbeat_at"] {
        assert!(listed["items"][0][field].is_string(), "{field} in {listed}");
    }
    assert_eq!(second.stop(LIMIT).await?.code, Some(0));
    let left = ada.get("/api/v1/system/instances").await?.expect(200)?;
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1), "an unregistered instance is gone: {left}");
    peer.release();
    Ok(())
}
