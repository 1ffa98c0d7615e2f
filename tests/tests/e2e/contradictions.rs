//! The checks after the kill tests detect the contradictions that they are for.

use std::time::Duration;

use anyhow::Result;
use gathering_e2e::{
    Answer, Client, Database, Peer, Server, begin, call, check_journals, check_requests, check_stored,
    pipeline,
};
use reqwest::Method;
use serde_json::json;
use tokio_postgres::Client as Session;

const LIMIT: Duration = Duration::from_secs(60);

/// What to do to the journal of a run that has ended, and what must be found then.
const TAMPERINGS: [(&str, &str); 8] = [
    ("a node succeeded twice", "SELECT run_id, n + 1, 'a', 'node_succeeded', owner, 1, now() FROM last"),
    (
        "a node began after it had succeeded",
        "SELECT run_id, n + 1, 'a', 'node_started', owner, 1, now() FROM last",
    ),
    (
        "a node began again although nothing had interrupted it",
        "SELECT run_id, n + more, 'b', 'node_started', owner, 1, now() FROM last, generate_series(1, 2) more",
    ),
    ("an epoch went back", "SELECT run_id, n + 1, 'b', 'node_skipped', owner, 0, now() FROM last"),
    (
        "two instances wrote under one epoch",
        "SELECT run_id, n + 1, 'b', 'node_skipped', gen_random_uuid(), 1, now() FROM last",
    ),
    ("a number is missing", "SELECT run_id, n + 2, 'b', 'node_skipped', owner, 1, now() FROM last"),
    (
        "an entry came after the end of its run",
        "SELECT run_id, n + 1, 'b', 'node_skipped', owner, 1, now() FROM last",
    ),
    (
        "an entry belongs to no run",
        "SELECT uuid_v7_floor(now()), 1, 'b', 'node_skipped', owner, 1, now() FROM last",
    ),
];

/// Does this, looks what is found, and undoes it.
async fn found_after(session: &Session, tampering: &str) -> Result<String> {
    session.batch_execute("BEGIN").await?;
    session.batch_execute(tampering).await?;
    let found = check_journals(session).await;
    session.batch_execute("ROLLBACK").await?;
    Ok(found.err().map(|error| error.to_string()).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contradiction_is_found_wherever_it_is() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::now(200, json!({}))).await?;
    let ada = server.client().join("ada@example.org").await?;
    let definition = pipeline(&[begin(), call("a", &peer.url("/a"))], &[("begin", "a")]);
    let run = ada.start_run(&ada.create_pipeline(&definition).await?).await?;
    ada.run_in(&run, &["succeeded"], LIMIT).await?;
    let session = database.session().await?;
    check_journals(&session).await?;
    check_requests(&peer, &session).await?;
    check_stored(&session, std::slice::from_ref(&run)).await?;

    for (what, entries) in TAMPERINGS {
        let tampering = format!(
            "INSERT INTO run_journal (run_id, seq, node_id, kind, owner, epoch, at) \
             WITH last AS (SELECT run_id, max(seq) AS n, max(owner::text)::uuid AS owner FROM run_journal GROUP BY 1) \
             {entries}"
        );
        let found = found_after(&session, &tampering).await?;
        assert!(found.contains(what), "{what}: {found:?}");
    }

    let lost = check_stored(&session, &[run.clone(), "a run that is not there".to_owned()]).await;
    assert!(lost.is_err_and(|error| error.to_string().contains("lost")));
    let unknown = check_stored(&session, &[]).await;
    assert!(unknown.is_err_and(|error| error.to_string().contains("no client knows")));
    let outside = Client::new(peer.url(""))?;
    let again = outside.request(Method::POST, "/a").header("idempotency-key", format!("{run}/a"));
    outside.send(again).await?.expect(200)?;
    let twice = check_requests(&peer, &session).await;
    assert!(twice.is_err_and(|error| error.to_string().contains("asked 2 times, begun 1 times")));
    Ok(())
}
