//! Signed webhooks, as their receivers verify them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gathering_e2e::{Answer, Database, Peer, Request, Server, begin, node_modules, pipeline, python};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// Of the name `shop`, while the second replaces the first.
const OLD_KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW_KEY: &str = "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const OTHER_KEY: &str = "whsec_CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJ";

/// Verifies what it is asked about with the reference library, and prints whether it is right.
const PYTHON: &str = "
import json, sys
from standardwebhooks import Webhook, WebhookVerificationError
for one in json.load(sys.stdin):
    try:
        Webhook(one['key']).verify(one['body'], one['headers'])
        print('right')
    except WebhookVerificationError:
        print('wrong')
";
const NODE: &str = "
const { Webhook } = require('standardwebhooks');
for (const one of JSON.parse(require('fs').readFileSync(0))) {
  try {
    new Webhook(one.key).verify(one.body, one.headers);
    console.log('right');
  } catch (error) {
    console.log('wrong');
  }
}
";

/// What a program answers about each of the questions.
fn verdicts(command: &mut Command, questions: &Value, directory: &Path) -> Result<Vec<String>> {
    let file = directory.join("questions.json");
    fs::write(&file, questions.to_string())?;
    let ended = command.stdin(fs::File::open(&file)?).output()?;
    ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    Ok(String::from_utf8(ended.stdout)?.lines().map(str::to_owned).collect())
}

fn question(key: &str, request: &Request, body: &str) -> Value {
    json!({"key": key, "headers": request.headers, "body": body})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_libraries_verify_a_webhook_and_each_of_its_retries() -> Result<()> {
    let python = python(&["standardwebhooks==1.1.0"])?;
    let modules = node_modules("standardwebhooks@1.1.1")?;
    let database = Database::empty().await?;
    let keys = database.directory().join("webhook-keys");
    fs::write(
        &keys,
        format!("# two for a while\nshop = {OLD_KEY}\nshop = {NEW_KEY}\nother = {OTHER_KEY}\n"),
    )?;
    for key in [OLD_KEY, NEW_KEY, OTHER_KEY] {
        gathering_e2e::note_secret(key);
    }
    let server = Server::start_with(&database, |command| {
        command.env("GATHERING_WEBHOOK_KEYS_FILE", &keys);
    })
    .await?;
    let peer = Peer::start(|request| match request.nth {
        0 | 1 => Answer::now(503, json!({})),
        _ => Answer::now(200, json!({})),
    })
    .await?;
    let ada = server.client().join("ada@example.org").await?;
    let config = json!({
        "action": "send_notification", "channel": "webhook", "url": peer.url("/hook"), "sign_with": "shop",
        "message": "Grüße ✓ \"quoted\"", "payload": {"amount": 1.50, "nested": {"list": [1, null, true]}, "b": "</a>"}
    });
    let retry = json!({"max_attempts": 5, "initial_backoff_ms": 1200, "multiplier": 1, "jitter": 0});
    let tell = json!({"id": "tell", "type": "action", "config": config, "retry": retry});
    let run = ada.create_pipeline(&pipeline(&[begin(), tell], &[("begin", "tell")])).await?;
    let run = ada.start_run(&run).await?;
    ada.run_in(&run, &["succeeded"], LIMIT).await?;

    let sent = peer.requests();
    ensure!(sent.len() == 3, "{sent:?}");
    let header = |request: &Request, name: &str| request.headers.get(name).cloned().context("no header");
    let mut times = Vec::new();
    for request in &sent {
        assert_eq!(header(request, "webhook-id")?, format!("{run}/tell"));
        assert_eq!(header(request, "webhook-signature")?.split(' ').count(), 2);
        times.push(header(request, "webhook-timestamp")?.parse::<i64>()?);
    }
    ensure!(times.is_sorted_by(|a, b| a < b), "each attempt has its own time: {times:?}");

    let mut questions = Vec::new();
    for request in &sent {
        questions.push(question(OLD_KEY, request, &request.body));
        questions.push(question(NEW_KEY, request, &request.body));
        questions.push(question(OTHER_KEY, request, &request.body));
        questions.push(question(OLD_KEY, request, &request.body.replace("1.5", "9.5")));
    }
    let questions = Value::from(questions);
    let expected = ["right", "right", "wrong", "wrong"].repeat(sent.len());
    let directory = database.directory();
    assert_eq!(verdicts(Command::new(python).args(["-c", PYTHON]), &questions, directory)?, expected);
    if let Some(modules) = modules {
        let mut node = Command::new("node");
        node.args(["-e", NODE]).env("NODE_PATH", modules);
        assert_eq!(verdicts(&mut node, &questions, directory)?, expected);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_cannot_be_signed_is_not_sent() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::now(200, json!({}))).await?;
    let ada = server.client().join("ada@example.org").await?;
    let config = json!({
        "action": "send_notification", "channel": "webhook", "url": peer.url("/"), "message": "x", "sign_with": "shop"
    });
    let retry = json!({"max_attempts": 3, "initial_backoff_ms": 1});
    let tell = json!({"id": "tell", "type": "action", "config": config, "retry": retry});
    let pipeline = ada.create_pipeline(&pipeline(&[begin(), tell], &[("begin", "tell")])).await?;
    let run = ada.start_run(&pipeline).await?;
    let run = ada.run_in(&run, &["failed"], LIMIT).await?;
    let message = run["error"]["message"].as_str().context("no message")?;
    ensure!(message.contains("`shop`") && message.contains("GATHERING_WEBHOOK_KEYS_FILE"), "{message}");
    assert_eq!(peer.n_requests(), 0);
    Ok(())
}
