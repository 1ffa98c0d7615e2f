//! What becomes of calls: one effect for each, whatever dies; limits; the ledger; and no token anywhere.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gathering_e2e::{Client, Database, Reply, Server, Several, begin, pipeline, wait_until};
use serde_json::json;
use tokio::task::JoinSet;

use super::{LIMIT, STANDARD, create, ledger, message, noted, send, sign};

/// The calls of one round, each several times at once over all servers.
async fn flood(clients: &[Client], hook: &str, keys: &[String]) -> Result<Vec<Reply>> {
    let mut calls = JoinSet::new();
    for key in keys {
        for client in clients.iter().chain(clients) {
            let (client, hook, key) = (client.as_nobody(), hook.to_owned(), key.clone());
            calls.spawn(async move {
                let headers = BTreeMap::from([("Idempotency-Key".to_owned(), key)]);
                send(&client, &hook, &headers, "{}").await
            });
        }
    }
    let mut replies = Vec::new();
    while let Some(reply) = calls.join_next().await {
        // A server that is killed answers nothing.
        if let Ok(reply) = reply? {
            replies.push(reply);
        }
    }
    Ok(replies)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_comes_to_two_instances_at_once_starts_one_run_whoever_is_killed() -> Result<()> {
    let database = Database::empty().await?;
    let mut several = Several::start(&database, 2, |command| {
        command.env("GATHERING_RATE_LIMITS", "off");
    })
    .await?;
    let ada = several.client(0);
    let definition = pipeline(&[begin()], &[]);
    let pipeline = ada.create_pipeline(&definition).await?;
    let hook = json!({"name": "h", "target": {"pipeline_id": pipeline}, "max_per_minute": 60_000});
    let hook = create(&ada, &hook).await?;
    let keys: Vec<String> = (0..20).map(|number| format!("d{number}")).collect();
    let replies = flood(&several.clients(), &hook.path, &keys).await?;
    assert_eq!(replies.iter().filter(|reply| reply.status == 202).count(), keys.len());
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 3 * keys.len());
    let runs: HashSet<&str> = replies.iter().filter_map(|reply| reply.body["run_id"].as_str()).collect();
    assert_eq!(runs.len(), keys.len());

    // Killed in the middle of it: what it answered is there, and each call that is repeated counts once.
    let keys: Vec<String> = (20..120).map(|number| format!("d{number}")).collect();
    let clients = several.clients();
    let flooding = {
        let (hook, keys) = (hook.path.clone(), keys.clone());
        tokio::spawn(async move { flood(&clients, &hook, &keys).await })
    };
    let session = database.session().await?;
    let count = async |table: &str| -> Result<i64> {
        Ok(session.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await?.get(0))
    };
    wait_until(LIMIT, "some of the calls are taken", async || {
        let n_calls = count("hook_deliveries").await.map_err(|error| format!("{error:#}"))?;
        if n_calls > 30 { Ok(()) } else { Err(format!("{n_calls} calls")) }
    })
    .await?;
    several.kill(1)?;
    let answered = flooding.await??;
    let replies = flood(&[several.client(0)], &hook.path, &keys).await?;
    assert!(replies.iter().all(|reply| [200, 202].contains(&reply.status)), "{replies:?}");
    let runs: HashSet<&str> = replies.iter().filter_map(|reply| reply.body["run_id"].as_str()).collect();
    assert_eq!(runs.len(), keys.len());
    let before = answered.iter().filter_map(|reply| reply.body["run_id"].as_str());
    assert!(before.clone().all(|run| runs.contains(run)), "what was answered stands");
    for table in ["runs", "hook_deliveries"] {
        assert_eq!(count(table).await?, 120, "{table}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_becomes_an_event_and_is_sent_again_by_hand() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let hook = json!({
        "name": "orders", "target": {"event_type": "order.paid"}, "when": "body.total > 10",
        "map": {"total": "${{ body.total }}", "from": "${{ headers['user-agent'] }}"},
    });
    let hook = create(&ada, &hook).await?;
    let agent = BTreeMap::from([("User-Agent".to_owned(), "shop/1".to_owned())]);
    let filtered = send(&ada.as_nobody(), &hook.path, &agent, r#"{"total": 10}"#).await?.expect(200)?;
    assert_eq!((&filtered["outcome"], &filtered["reason"]), (&json!("filtered"), &json!("when")));
    let accepted = send(&ada.as_nobody(), &hook.path, &agent, r#"{"total": 11}"#).await?.expect(202)?;
    let seq = accepted["event_seq"].as_i64().context("no event")?;
    let event = wait_until(LIMIT, "the event is readable", async || {
        let path = format!("/api/v1/events?format=json&type=order.paid&after={}", seq - 1);
        let page = ada.get(&path).await.map_err(|error| format!("{error:#}"))?;
        page.body["items"].get(0).cloned().ok_or(page.text)
    })
    .await?;
    assert_eq!((&event["seq"], &event["data"]), (&json!(seq), &json!({"total": 11, "from": "shop/1"})));
    let wrong = send(&ada.as_nobody(), &hook.path, &agent, r#"{"sum": 11}"#).await?;
    wrong.expect_problem(422, "invalid")?;
    ensure!(wrong.text.contains("/when"), "{}", wrong.text);

    let path = format!("/api/v1/hooks/{}", hook.id);
    ada.patch(&path, &json!({"when": null, "map": null, "enabled": false})).await?.expect(200)?;
    send(&ada.as_nobody(), &hook.path, &agent, r#"{"total": 12}"#).await?.expect_problem(409, "conflict")?;
    let entries = ledger(&ada, &hook).await?;
    assert_eq!(entries[0]["reason"], "disabled");
    for (entry, status) in [(&entries[0], 202), (&entries[1], 202), (&entries[3], 202)] {
        let again = format!("{path}/deliveries/{}/redeliver", entry["id"].as_str().context("no id")?);
        let answered = ada.post(&again, &json!(null)).await?.expect(status)?;
        ensure!(answered["event_seq"].as_i64() > Some(seq), "{answered}");
    }
    let entries = ledger(&ada, &hook).await?;
    assert_eq!(entries.len(), 7);
    assert_eq!(entries[2]["redelivery_of"], entries[3]["id"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_is_called_no_more_often_and_with_no_more_than_it_allows() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let hook = json!({
        "name": "h", "target": {"event_type": "call.received"}, "max_per_minute": 5, "max_body_bytes": 100,
    });
    let hook = create(&ada, &hook).await?;
    let nobody = ada.as_nobody();
    let none = BTreeMap::new();
    send(&nobody, &hook.path, &none, &json!("x".repeat(99)).to_string())
        .await?
        .expect_problem(413, "too-large")?;
    send(&nobody, &hook.path, &none, &json!("x".repeat(1024 * 1024)).to_string())
        .await?
        .expect_problem(413, "too-large")?;
    send(&nobody, &hook.path, &none, "{").await?.expect_problem(400, "malformed")?;
    send(&nobody, &hook.path, &none, &json!("x".repeat(98)).to_string()).await?.expect(202)?;
    send(&nobody, &hook.path, &none, "").await?.expect(202)?;
    for _ in 0..20 {
        let refused = send(&nobody, &hook.path, &none, "{}").await?;
        refused.expect_problem(429, "rate-limited")?;
        ensure!(refused.retry_after()? <= Duration::from_secs(12), "{:?}", refused.headers);
    }
    noted(&ada, &hook, "rate_limited", 20).await?;
    noted(&ada, &hook, "too_large", 2).await?;
    noted(&ada, &hook, "not_json", 1).await?;
    ensure!(ledger(&ada, &hook).await?.len() < 20, "what comes in a flood is counted together");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_in_no_log_and_no_table() -> Result<()> {
    let database = Database::empty().await?;
    let mut server = Server::start_with(&database, |command| {
        command.env(
            "GATHERING_LOG",
            "info,gathering_server=trace,gathering_edge=trace,gathering_control=trace,\
             gathering_persistence=trace,actix_web=debug,tokio_postgres=debug",
        );
    })
    .await?;
    let ada = server.client().join("ada@example.org").await?;
    let hook = json!({"name": "h", "target": {"event_type": "call.received"}, "secret": STANDARD});
    let hook = create(&ada, &hook).await?;
    let body = json!({"n": 1});
    let signed = sign(&database, &[message("standard", STANDARD, &body, "msg_1", 0)])?;
    send(&ada.as_nobody(), &hook.path, &signed[0], &body.to_string()).await?.expect(202)?;
    send(&ada.as_nobody(), &hook.path, &BTreeMap::new(), "{}")
        .await?
        .expect_problem(401, "not-authenticated")?;
    send(&ada.as_nobody(), &format!("{}x", hook.path), &BTreeMap::new(), "{").await?;
    noted(&ada, &hook, "bad_signature", 1).await?;
    let token = hook.path.rsplit('/').next().context("no token")?;
    let random = token.trim_start_matches("hook_");
    for (table, rows) in database.rows().await? {
        assert!(rows.iter().all(|row| !row.contains(random)), "in table {table}");
        let signature = &signed[0]["webhook-signature"];
        assert!(rows.iter().all(|row| !row.contains(signature)), "a signature in table {table}");
    }
    server.stop(LIMIT).await?;
    let log = server.log();
    ensure!(log.contains("/api/v1/hooks/in/{token}"), "the log has the pattern of the path");
    assert!(!log.contains(random), "in the log");
    assert!(!log.contains(&STANDARD[6..]), "the secret is in the log");
    Ok(())
}
