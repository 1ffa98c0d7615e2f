//! The log of events as it grows: over streams and WebSockets, on every instance, without a gap or a repetition.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gathering_e2e::{
    Client, Database, Scene, Server, Several, Socket, SocketFrame, Sse, SseEvent, begin, pipeline, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const EVENTS: &str = "/api/v1/events";
const LIMIT: Duration = Duration::from_secs(30);

/// Posts `n_events` events in one batch; answers with their places.
async fn post(client: &Client, event_type: &str, n_events: usize, data: &Value) -> Result<Vec<i64>> {
    let batch = vec![json!({"type": event_type, "data": data}); n_events];
    let posted = client.post(EVENTS, &json!({"events": batch})).await?.expect(201)?;
    let items = posted["items"].as_array().context("no items")?;
    items.iter().map(|item| item["seq"].as_i64().context("no seq")).collect()
}

async fn ids(stream: &mut Sse, n_events: usize) -> Result<Vec<i64>> {
    stream.take(n_events).await?.iter().map(|event| event.id.context("no id")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_posted_at_one_instance_is_read_at_every_other() -> Result<()> {
    let database = Database::empty().await?;
    let several = Several::start(&database, 2, |_| {}).await?;
    let (here, there) = (several.client(0), several.client(1));
    let mut streams = [
        Sse::open(&here, EVENTS, None).await?,
        Sse::open(&there, &format!("{EVENTS}?type=order.*"), None).await?,
    ];
    for _ in 0..3 {
        let posted = post(&here, "order.paid", 3, &json!({"text": "two\nlines"})).await?;
        for stream in &mut streams {
            assert_eq!(ids(stream, 3).await?, posted);
        }
    }
    let run = there.start_run(&there.create_pipeline(&pipeline(&[begin()], &[])).await?).await?;
    let of_run = streams[0].take(2).await?;
    let kinds: Vec<_> = of_run.iter().map(|event| (event.kind.as_str(), &event.data["subject"])).collect();
    assert_eq!(kinds, [("run.started", &json!(run)), ("run.succeeded", &json!(run))]);
    let cloud = format!("{EVENTS}?after=0&format=cloudevents&when=event.type%20%3D%3D%20'run.succeeded'");
    let event = Sse::open(&there, &cloud, None).await?.take(1).await?.remove(0);
    assert_eq!((&event.data["specversion"], &event.data["subject"]), (&json!("1.0"), &json!(run)));
    let again = Sse::open(&there, EVENTS, of_run[0].id).await?.take(1).await?.remove(0);
    assert_eq!(again, of_run[1]);
    Ok(())
}

/// Reads until it has seen `n_events`, at the first of these clients that answers, and goes on at another when the stream
/// ends.
async fn read_on(clients: Vec<Client>, n_events: usize) -> Result<Vec<(i64, i64)>> {
    let mut seen: Vec<(i64, i64)> = Vec::new();
    let mut number = 0;
    while seen.len() < n_events {
        let last = seen.last().map_or(0, |(id, _)| *id);
        let opened = Sse::open(&clients[number % clients.len()], EVENTS, Some(last)).await;
        number += 1;
        let Ok(mut stream) = opened else { continue };
        while seen.len() < n_events {
            let Ok(Some(event)) = stream.next().await else { break };
            seen.push((event.id.context("no id")?, event.data["data"]["n"].as_i64().context("no number")?));
        }
    }
    Ok(seen)
}

/// Posts the events `numbers` one by one, each until an instance has taken it.
async fn post_all(clients: Vec<Client>, numbers: std::ops::Range<usize>) -> Result<()> {
    for number in numbers {
        let event = json!({"type": "order.paid", "key": format!("{number}"), "data": {"n": number}});
        let mut is_posted = false;
        let end = Instant::now() + LIMIT;
        let mut attempt = number;
        while !is_posted {
            ensure!(Instant::now() < end, "no instance takes event {number}");
            let reply = clients[attempt % clients.len()].post(EVENTS, &event).await;
            is_posted = reply.is_ok_and(|reply| matches!(reply.status, 200 | 201));
            attempt += 1;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reader_misses_an_event_or_sees_one_twice_while_an_instance_is_killed() -> Result<()> {
    const N_EACH: usize = 150;
    const N_POSTERS: usize = 4;
    let database = Database::empty().await?;
    let mut several = Several::start(&database, 2, |_| {}).await?;
    let clients = several.clients();
    let n_events = N_EACH * N_POSTERS;
    let readers: Vec<_> =
        [clients.clone(), clients.iter().rev().cloned().collect(), vec![clients[1].clone()]]
            .into_iter()
            .map(|clients| tokio::spawn(read_on(clients, n_events)))
            .collect();
    let posters: Vec<_> = (0..N_POSTERS)
        .map(|poster| tokio::spawn(post_all(clients.clone(), poster * N_EACH..(poster + 1) * N_EACH)))
        .collect();
    let n_posted = async || {
        let counted = database.session().await?.query_one("SELECT count(*) FROM events", &[]).await?;
        Ok::<i64, anyhow::Error>(counted.get(0))
    };
    wait_until(LIMIT, "a third is posted", async || match n_posted().await {
        Ok(n) if n >= 200 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    several.kill(0)?;
    for poster in posters {
        poster.await??;
    }
    let mut first: Option<Vec<(i64, i64)>> = None;
    for reader in readers {
        let seen = reader.await??;
        assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "in the order of the log");
        let mut numbers: Vec<i64> = seen.iter().map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..i64::try_from(n_events)?), "each once");
        assert_eq!(*first.get_or_insert_with(|| seen.clone()), seen, "all readers see the same");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_costs_nobody_anything_and_misses_nothing() -> Result<()> {
    const N_BATCHES: usize = 40;
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let mut stalled = Sse::open(&ada, EVENTS, None).await?;
    let mut quick = Sse::open(&ada, EVENTS, None).await?;
    // More than the buffers of a connection and of the feed hold.
    let filling = json!({"filling": "x".repeat(16_000)});
    let mut posted = Vec::new();
    for _ in 0..N_BATCHES {
        let batch = post(&ada, "order.paid", 50, &filling).await?;
        assert_eq!(ids(&mut quick, batch.len()).await?, batch);
        posted.extend(batch);
    }
    let peak = server.peak_memory_bytes()?;
    assert!(peak < 400 * 1024 * 1024, "{peak} bytes");
    assert_eq!(ids(&mut stalled, posted.len()).await?, posted);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_lose_access_see_nothing_more() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let scene = Scene::set(server.client()).await?;
    let session = server.client().login("editor@example.org").await?;
    let of_project = format!("{EVENTS}?project_id={}", scene.project);
    let mut stays = Sse::open(&scene.owner, EVENTS, None).await?;
    let mut leaves = Sse::open(&scene.viewer, &of_project, None).await?;
    let mut logs_out = Sse::open(&session, EVENTS, None).await?;
    let say = async |event_type: &str| {
        let body = json!({"project_id": scene.project, "type": event_type});
        scene.owner.post(EVENTS, &body).await?.expect(201)
    };
    say("step.first").await?;
    for stream in [&mut stays, &mut leaves, &mut logs_out] {
        assert_eq!(stream.take(1).await?[0].kind, "step.first");
    }
    let member = format!("/api/v1/projects/{}/members/{}", scene.project, scene.viewer.user_id().await?);
    assert_eq!(scene.owner.delete(&member).await?.status, 204);
    assert_eq!(session.post("/api/v1/auth/logout", &json!({})).await?.status, 204);
    // What was confirmed a moment ago holds for a second.
    let deadline = Instant::now() + Duration::from_millis(1100);
    let mut said = Vec::new();
    while said.len() < 2 || Instant::now() < deadline {
        say("step.later").await?;
        said.extend(stays.take(1).await?);
    }
    let is_last =
        |seen: &[SseEvent]| seen.iter().any(|event| event.id == said.last().and_then(|last| last.id));
    assert!(!is_last(&leaves.rest().await?), "a former member sees nothing more");
    assert!(!is_last(&logs_out.rest().await?), "nor does a session that has ended");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_whose_next_events_were_deleted_is_told() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let posted = post(&ada, "order.paid", 10, &json!({})).await?;
    let sql = format!(
        "DELETE FROM events WHERE seq <= {last}; UPDATE event_retention SET pruned_until = {last}",
        last = posted[5]
    );
    database.session().await?.batch_execute(&sql).await?;
    let events = Sse::open(&ada, EVENTS, Some(posted[1])).await?.take(5).await?;
    assert_eq!((events[0].kind.as_str(), events[0].id), ("gap", None));
    assert_eq!(events[0].data, json!({"after": posted[1], "until": posted[5]}));
    assert!(events[1..].iter().map(|event| event.id).eq(posted[6..].iter().copied().map(Some)));
    let seen = Sse::open(&ada, EVENTS, Some(posted[5])).await?.take(4).await?;
    assert_eq!(seen, events[1..], "nothing is missing after the last one that was deleted");
    let all = Sse::open(&ada, &format!("{EVENTS}?after=0"), None).await?.take(4).await?;
    assert_eq!(all, events[1..], "from the beginning of what is kept");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_has_the_same_events_and_ends_in_order() -> Result<()> {
    let database = Database::empty().await?;
    let mut server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let token = ada.token().context("no token")?.to_owned();
    let posted = post(&ada, "order.paid", 3, &json!({"n": 1})).await?;
    let mut stream = Sse::open(&ada, &format!("{EVENTS}?after=0"), None).await?;
    let target = format!("{EVENTS}/ws?after={}", posted[0]);
    let mut socket = Socket::open(server.address(), &token, &target).await?;
    let streamed = stream.take(3).await?;
    for expected in &streamed[1..] {
        let frame = json!({"id": expected.id, "event": expected.kind, "data": expected.data});
        assert_eq!(socket.json().await?, frame);
    }
    socket.send(9, b"here?").await?;
    assert_eq!(socket.next().await?, Some(SocketFrame::Pong(b"here?".to_vec())));
    socket.send(1, b"ignored").await?;
    let later = post(&ada, "order.sent", 1, &json!({})).await?;
    assert_eq!(socket.json().await?["id"], later[0]);

    let mut closed = Socket::open(server.address(), &token, &format!("{EVENTS}/ws")).await?;
    closed.send(8, &1000_u16.to_be_bytes()).await?;
    assert_eq!(closed.next().await?, Some(SocketFrame::Close(1000)));
    let refused = Socket::open(server.address(), "wrong", &format!("{EVENTS}/ws")).await;
    ensure!(refused.is_err_and(|error| error.to_string().starts_with("HTTP/1.1 401")), "no refusal");
    let no_socket = ada.get(&format!("{EVENTS}/ws")).await?;
    no_socket.expect_problem(400, "malformed")?;

    server.signal(Signal::SIGTERM)?;
    assert_eq!(socket.next().await?, Some(SocketFrame::Close(1001)));
    assert_eq!(stream.rest().await?.len(), 1);
    let refused = ada.get(EVENTS).await?;
    refused.expect_problem(503, "draining")?;
    assert_eq!(server.end(LIMIT).await?.code, Some(0));
    Ok(())
}
