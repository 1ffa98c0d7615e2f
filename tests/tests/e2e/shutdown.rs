//! SIGTERM: runs in progress are finished or released, and the exit code is 0.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use gathering_e2e::{Answer, Client, Database, Peer, Server, begin, call, pipeline, wait_until};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(30);

/// Long enough to look at a server that drains, short enough to wait for.
fn brief(command: &mut Command) {
    command.env("GATHERING_SHUTDOWN_DRAIN_SECONDS", "2").env("GATHERING_SHUTDOWN_GRACE_SECONDS", "1");
}

/// Waits until the server says that it takes no more, on a new connection each time.
async fn not_ready(server: &Server) -> Result<()> {
    wait_until(LIMIT, "the server drains", async || {
        let client =
            Client::new(format!("http://{}", server.address())).map_err(|error| error.to_string())?;
        match client.get("/health/ready").await {
            Ok(reply) if reply.status == 503 => Ok(()),
            Ok(reply) => Err(reply.text),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_gets_its_proper_answer() -> Result<()> {
    let database = Database::empty().await?;
    let mut server = Server::start_with(&database, brief).await?;
    let body = json!({"email": "ada@example.org", "name": "Ada", "password": "correct horse battery staple"});
    let body = body.to_string();
    let (first, second) = body.split_at(body.len() / 2);
    let mut stream = TcpStream::connect(server.address()).await?;
    let head = format!(
        "POST /api/v1/auth/register HTTP/1.1\r\nhost: gathering\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{first}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    server.signal(Signal::SIGTERM)?;
    not_ready(&server).await?;
    let live = Client::new(format!("http://{}", server.address()))?.get("/health/live").await?;
    assert_eq!(live.status, 200, "the listener still answers");
    stream.write_all(second.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert!(answer.contains("ada@example.org"), "{answer}");
    let ended = server.end(LIMIT).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_a_long_run_is_handed_back_and_nothing_new_is_claimed() -> Result<()> {
    let database = Database::empty().await?;
    let peer = Peer::start(|_| Answer::held(json!({"ok": true}))).await?;
    let mut server = Server::start_with(&database, brief).await?;
    let ada = server.client().join("ada@example.org").await?;
    let id = ada
        .create_pipeline(&pipeline(&[begin(), call("long", &peer.url("/long"))], &[("begin", "long")]))
        .await?;
    let long = ada.start_run(&id).await?;
    peer.asked(1, LIMIT).await?;
    server.signal(Signal::SIGTERM)?;
    not_ready(&server).await?;
    // The listener still takes requests: what it accepts is for another instance to execute.
    let late = ada.start_run(&id).await?;
    let ended = server.end(LIMIT).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let requests = peer.requests();
    assert_eq!(requests.len(), 1, "the late run was not begun");
    assert!(requests[0].is_given_up, "nothing of the run executes any more (I5)");

    let session = database.session().await?;
    let rows = session
        .query("SELECT id::text, state, owner IS NULL, recoveries FROM all_runs ORDER BY id", &[])
        .await?;
    let left: Vec<(String, String, bool, i32)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
    let queued = |id: &str| (id.to_owned(), "queued".to_owned(), true, 0);
    assert_eq!(left, [queued(&long), queued(&late)]);
    let n_instances: i64 = session.query_one("SELECT count(*) FROM instances", &[]).await?.get(0);
    assert_eq!(n_instances, 0, "it has signed off");

    peer.release();
    let second = Server::start(&database).await?;
    let ada = second.client().login("ada@example.org").await?;
    for run in [&long, &late] {
        ada.run_in(run, &["succeeded"], LIMIT).await?;
    }
    let mut keys: Vec<_> =
        peer.requests().iter().filter_map(|request| request.idempotency_key().map(str::to_owned)).collect();
    keys.sort_unstable();
    let mut expected = [format!("{long}/long"), format!("{long}/long"), format!("{late}/long")];
    expected.sort_unstable();
    assert_eq!(keys, expected, "the call that was cut off is repeated with its key");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_within_the_grace_period_is_finished_by_its_own_server() -> Result<()> {
    let database = Database::empty().await?;
    let peer = Peer::start(|_| Answer::held(json!({"ok": true}))).await?;
    let mut server = Server::start_with(&database, |command| {
        command.env("GATHERING_SHUTDOWN_DRAIN_SECONDS", "0").env("GATHERING_SHUTDOWN_GRACE_SECONDS", "30");
    })
    .await?;
    let ada = server.client().join("ada@example.org").await?;
    let id = ada
        .create_pipeline(&pipeline(&[begin(), call("short", &peer.url("/"))], &[("begin", "short")]))
        .await?;
    ada.start_run(&id).await?;
    peer.asked(1, LIMIT).await?;
    server.signal(Signal::SIGTERM)?;
    wait_until(LIMIT, "the server stops", async || {
        if server.log().contains("SIGTERM") { Ok(()) } else { Err("its log does not say so") }
    })
    .await?;
    peer.release();
    let ended = server.end(LIMIT).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let session = database.session().await?;
    let row = session.query_one("SELECT state FROM all_runs", &[]).await?;
    assert_eq!(row.get::<_, &str>(0), "succeeded");
    assert_eq!(peer.requests().len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_does_not_wait_for_the_grace_period() -> Result<()> {
    let database = Database::empty().await?;
    let peer = Peer::start(|_| Answer::held(json!({"ok": true}))).await?;
    let mut server = Server::start_with(&database, |command| {
        // Longer than this test may take.
        command.env("GATHERING_SHUTDOWN_DRAIN_SECONDS", "600").env("GATHERING_SHUTDOWN_GRACE_SECONDS", "600");
    })
    .await?;
    let ada = server.client().join("ada@example.org").await?;
    let id = ada.create_pipeline(&pipeline(&[call("hang", &peer.url("/"))], &[])).await?;
    let run = ada.start_run(&id).await?;
    peer.asked(1, LIMIT).await?;
    server.signal(Signal::SIGTERM)?;
    not_ready(&server).await?;
    server.signal(Signal::SIGTERM)?;
    let ended = server.end(LIMIT).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    peer.release();
    let second = Server::start(&database).await?;
    second.client().login("ada@example.org").await?.run_in(&run, &["succeeded"], LIMIT).await?;
    Ok(())
}
