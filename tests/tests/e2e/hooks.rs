//! Hooks on real processes: what other programs sign is taken once, and nothing else is.

mod deliveries;
mod secrets;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gathering_e2e::{Client, Database, Reply, Server, begin, pipeline, python, wait_until, workspace_root};
use reqwest::Method;
use serde_json::{Value, json};

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
