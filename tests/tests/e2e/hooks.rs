//! Hooks on real processes: what other programs sign is taken once, and nothing else is.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gathering_e2e::{
    Client, Database, Reply, Server, Several, begin, pipeline, python, wait_until, workspace_root,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(60);

/// A key of Standard Webhooks.
const STANDARD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The headers of messages as their senders make them: with the reference library of Standard Webhooks, and with HMAC as
/// the others describe it. `after` is in seconds from now.
const SIGN: &str = "
import datetime, hashlib, hmac, json, sys, time
from standardwebhooks import Webhook

def code(key, text):
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()

def headers(scheme, secret, body, key, after):
    at = int(time.time()) + after
    if scheme == 'standard':
        moment = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
        return {'webhook-id': key, 'webhook-timestamp': str(at), 'webhook-signature': Webhook(secret).sign(key, moment, body)}
    if scheme == 'github':
        return {'X-GitHub-Delivery': key, 'X-GitHub-Event': 'push', 'X-Hub-Signature-256': 'sha256=' + code(secret, body)}
    if scheme == 'gitlab':
        return {'Idempotency-Key': key, 'X-Gitlab-Token': secret}
    if scheme == 'stripe':
        return {'Stripe-Signature': f't={at},v1={code(secret, str(at) + chr(46) + body)}'}
    if scheme == 'slack':
        return {'X-Slack-Request-Timestamp': str(at), 'X-Slack-Signature': 'v0=' + code(secret, f'v0:{at}:{body}')}
    return {'Idempotency-Key': key, 'X-Hook-Token': secret}

print(json.dumps([headers(**one) for one in json.load(sys.stdin)]))
";

/// A message that somebody signs.
fn message(scheme: &str, secret: &str, body: &Value, key: &str, after: i64) -> Value {
    json!({"scheme": scheme, "secret": secret, "body": body.to_string(), "key": key, "after": after})
}

/// The headers of each message.
fn sign(database: &Database, messages: &[Value]) -> Result<Vec<BTreeMap<String, String>>> {
    let file = database.directory().join("messages.json");
    fs::write(&file, Value::from(messages.to_vec()).to_string())?;
    let python = python(&["standardwebhooks==1.1.0"])?;
    let ended = Command::new(python).args(["-c", SIGN]).stdin(fs::File::open(&file)?).output()?;
    ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    Ok(serde_json::from_slice(&ended.stdout)?)
}

/// A hook and its address.
struct Hook {
    id: String,
    path: String,
}

async fn create(ada: &Client, hook: &Value) -> Result<Hook> {
    let created = ada.post("/api/v1/hooks", hook).await?.expect(201)?;
    let text = |name: &str| created[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
    Ok(Hook { id: text("id")?, path: text("path")? })
}

/// A hook that starts the pipeline.
async fn to_pipeline(ada: &Client, pipeline: &str, scheme: &str, secret: Option<&str>) -> Result<Hook> {
    let target = json!({"pipeline_id": pipeline});
    let hook =
        json!({"name": scheme, "target": target, "verification": {"scheme": scheme}, "secret": secret});
    create(ada, &hook).await
}

async fn send(nobody: &Client, path: &str, headers: &BTreeMap<String, String>, body: &str) -> Result<Reply> {
    let mut request = nobody.request(Method::POST, path).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    nobody.send(request.body(body.to_owned())).await
}

async fn ledger(ada: &Client, hook: &Hook) -> Result<Vec<Value>> {
    let listed = ada.get(&format!("/api/v1/hooks/{}/deliveries?limit=200", hook.id)).await?.expect(200)?;
    listed["items"].as_array().cloned().context("no items")
}

/// Waits until the ledger has entries with these reasons.
async fn noted(ada: &Client, hook: &Hook, reason: &str, n_calls: i64) -> Result<()> {
    wait_until(LIMIT, &format!("{n_calls} calls are noted as {reason}"), async || {
        let entries = ledger(ada, hook).await.map_err(|error| format!("{error:#}"))?;
        let alike = entries.iter().filter(|entry| entry["reason"] == reason);
        let n_noted: i64 = alike.filter_map(|entry| entry["calls"].as_i64()).sum();
        if n_noted == n_calls { Ok(()) } else { Err(format!("{entries:?}")) }
    })
    .await
}

/// Without what differs from request to request.
fn shown(mut reply: Reply) -> (u16, Value) {
    reply.body["instance"].take();
    (reply.status, reply.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_scheme_takes_what_its_sender_signs_once_and_nothing_else() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let nobody = ada.as_nobody();
    let pipeline = ada.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let unknown = format!("/api/v1/hooks/in/hook_{}", "A".repeat(43));
    let untrusted = shown(nobody.post(&unknown, &json!({})).await?);
    assert_eq!(untrusted.0, 401);
    for (scheme, secret, other, is_timed) in [
        ("standard", STANDARD, "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=", true),
        ("github", "a secret of GitHub", "another secret", false),
        ("gitlab", "a token of GitLab", "another token", false),
        ("stripe", "whsec_of_stripe", "whsec_of_somebody", true),
        ("slack", "8f742231b10e8888abcd99yyyzzz85a5", "another secret", true),
        ("token", "a token of somebody", "another token", false),
    ] {
        let hook = to_pipeline(&ada, &pipeline, scheme, Some(secret)).await?;
        let body = json!({"id": "evt_1", "event_id": "Ev1", "text": "Grüße ✓", "n": 1.50});
        let signed = sign(
            &database,
            &[
                message(scheme, secret, &body, "d1", 0),
                message(scheme, other, &body, "d1", 0),
                message(scheme, secret, &body, "d1", -310),
                message(scheme, secret, &body, "d1", 310),
            ],
        )?;
        let text = body.to_string();
        let refused = send(&nobody, &hook.path, &signed[1], &text).await?;
        assert_eq!(shown(refused), untrusted, "{scheme}: of another secret");
        let refused = send(&nobody, &hook.path, &BTreeMap::new(), &text).await?;
        assert_eq!(shown(refused), untrusted, "{scheme}: without a proof");
        for late in signed[2..].iter().filter(|_| is_timed) {
            assert_eq!(shown(send(&nobody, &hook.path, late, &text).await?), untrusted, "{scheme}: not now");
        }
        if !["gitlab", "token"].contains(&scheme) {
            let changed = send(&nobody, &hook.path, &signed[0], &text.replace("evt_1", "evt_2")).await?;
            assert_eq!(shown(changed), untrusted, "{scheme}: of another body");
        }
        let accepted = send(&nobody, &hook.path, &signed[0], &text).await?.expect(202)?;
        assert_eq!((&accepted["outcome"], &accepted["repeated"]), (&json!("accepted"), &json!(false)));
        let run = accepted["run_id"].as_str().context("no run")?;
        let run = ada.run_in(run, &["succeeded"], LIMIT).await?;
        assert_eq!((&run["input"], &run["trigger"]["type"]), (&body, &json!("hook")));
        assert_eq!(run["trigger"]["delivery_id"], accepted["delivery_id"]);
        let again = send(&nobody, &hook.path, &signed[0], &text).await?.expect(200)?;
        assert_eq!((&again["run_id"], &again["repeated"]), (&accepted["run_id"], &json!(true)), "{scheme}");
        noted(&ada, &hook, "bad_signature", if ["gitlab", "token"].contains(&scheme) { 2 } else { 3 })
            .await?;
        noted(&ada, &hook, "too_old", if is_timed { 2 } else { 0 }).await?;
        let entries = ledger(&ada, &hook).await?;
        let accepted: Vec<_> = entries.iter().filter(|entry| entry["outcome"] == "accepted").collect();
        assert_eq!((accepted.len(), &accepted[0]["repeats"]), (1, &json!(1)), "{scheme}");
        let shown = ada.get(&format!("/api/v1/hooks/{}", hook.id)).await?;
        assert!(!shown.text.contains(secret), "{scheme}: {}", shown.text);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_that_try_an_address_are_answered_as_they_expect() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let pipeline = ada.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let slack = to_pipeline(&ada, &pipeline, "slack", Some("a secret of Slack")).await?;
    let github = to_pipeline(&ada, &pipeline, "github", Some("a secret of GitHub")).await?;
    let asked = json!({"type": "url_verification", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmd"});
    let ping = json!({"zen": "Keep it logically awesome."});
    let mut signed = sign(
        &database,
        &[
            message("slack", "a secret of Slack", &asked, "", 0),
            message("github", "a secret of GitHub", &ping, "d0", 0),
        ],
    )?;
    let answered = send(&ada.as_nobody(), &slack.path, &signed[0], &asked.to_string()).await?.expect(200)?;
    assert_eq!(answered, json!({"challenge": asked["challenge"]}));
    signed[1].insert("X-GitHub-Event".to_owned(), "ping".to_owned());
    let answered = send(&ada.as_nobody(), &github.path, &signed[1], &ping.to_string()).await?.expect(200)?;
    assert_eq!((&answered["outcome"], &answered["reason"]), (&json!("filtered"), &json!("ping")));
    assert_eq!(ledger(&ada, &slack).await?[0]["reason"], "challenge");
    assert_eq!(ada.get("/api/v1/runs").await?.expect(200)?["items"], json!([]));
    Ok(())
}

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

/// As its comment says.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_runs_for_a_push_to_github() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let example = fs::read_to_string(workspace_root()?.join("examples/github-webhook.yaml"))?;
    let of_file = |line: &&str| !line.starts_with("name:") && !line.starts_with("description:");
    let definition: Vec<String> = example.lines().filter(of_file).map(|line| format!("  {line}")).collect();
    let body = format!("name: pushes\ndefinition:\n{}\n", definition.join("\n"));
    let request = ada.request(Method::POST, "/api/v1/pipelines").header("content-type", "application/yaml");
    let pipeline = ada.send(request.body(body)).await?.expect(201)?;
    let hook = json!({
        "name": "pushes to main", "target": {"pipeline_id": pipeline["id"]},
        "verification": {"scheme": "github"}, "secret": "a secret of GitHub",
        "when": "headers[\"x-github-event\"] == \"push\" && body.ref == \"refs/heads/main\"",
        "map": {"repository": "${{ body.repository.full_name }}", "branch": "${{ body.ref }}",
                "commits": "${{ body.commits }}", "pusher": "${{ body.pusher.name }}"},
    });
    let hook = create(&ada, &hook).await?;
    let push = json!({
        "ref": "refs/heads/main", "repository": {"full_name": "ada/tides"}, "pusher": {"name": "ada"},
        "commits": [{"id": "8f3c0d1", "message": "Fix the moon"}, {"id": "1d0c3f8", "message": "Say so"}],
    });
    let mut other = push.clone();
    other["ref"] = json!("refs/heads/try");
    let secret = "a secret of GitHub";
    let signed = sign(
        &database,
        &[message("github", secret, &push, "d1", 0), message("github", secret, &other, "d2", 0)],
    )?;
    send(&ada.as_nobody(), &hook.path, &signed[1], &other.to_string()).await?.expect(200)?;
    let taken = send(&ada.as_nobody(), &hook.path, &signed[0], &push.to_string()).await?.expect(202)?;
    let run = ada.run_in(taken["run_id"].as_str().context("no run")?, &["succeeded"], LIMIT).await?;
    assert_eq!(run["output"], json!({"report": "reports/last-push.md", "has_commits": true, "commits": 2}));
    let project = run["project_id"].as_str().context("no project")?;
    let report = ada.get(&format!("/api/v1/projects/{project}/files/reports/last-push.md")).await?;
    assert!(
        report.text.contains("# ada/tides") && report.text.contains("- Fix the moon\n- Say so"),
        "{report:?}"
    );
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
