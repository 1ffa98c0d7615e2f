//! E-mail, by a real mail server: what arrives, what is tried again, and what a crash leaves.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gathering_e2e::{
    Client, Database, MailServer, Process, Random, Server, begin, find_secret, pipeline, soak, wait_until,
    workspace_root,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const ENDS: [&str; 4] = ["succeeded", "failed", "cancelled", "timed_out"];

const PASSWORD: &str = "of-the-mail-server-0123456789";

/// A node that sends a message to the recipients that the input names.
fn tell(more: &Value) -> Value {
    let mut config = json!({
        "action": "send_notification", "channel": "email", "to": "${{ input.to }}", "subject": "Order 7",
        "message": "It is done."
    });
    if let (Some(config), Some(more)) = (config.as_object_mut(), more.as_object()) {
        config.extend(more.clone());
    }
    let retry = json!({"max_attempts": 4, "initial_backoff_ms": 10, "max_backoff_ms": 50});
    json!({"id": "tell", "type": "action", "config": config, "retry": retry})
}

async fn create(client: &Client, more: &Value) -> Result<String> {
    client.create_pipeline(&pipeline(&[begin(), tell(more)], &[("begin", "tell")])).await
}

async fn start(client: &Client, pipeline: &str, to: &str) -> Result<String> {
    let path = format!("/api/v1/pipelines/{pipeline}/runs");
    let run = client.post(&path, &json!({"input": {"to": to}})).await?.expect(202)?;
    Ok(run["id"].as_str().context("no id")?.to_owned())
}

async fn run_to(client: &Client, pipeline: &str, to: &str) -> Result<Value> {
    client.run_in(&start(client, pipeline, to).await?, &ENDS, LIMIT).await
}

async fn rerun(client: &Client, run: &str) -> Result<Value> {
    let again =
        client.post(&format!("/api/v1/runs/{run}/rerun"), &json!({"from": "failed"})).await?.expect(202)?;
    client.run_in(again["id"].as_str().context("no id")?, &ENDS, LIMIT).await
}

/// The node of a run as it is shown.
fn node(run: &Value) -> &Value {
    let nodes = run["nodes"].as_array();
    nodes.and_then(|nodes| nodes.iter().find(|node| node["node_id"] == "tell")).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_arrives_whole_and_encrypted() -> Result<()> {
    let mail = MailServer::start("starttls", Some(("gathering", PASSWORD))).await?;
    let database = Database::empty().await?;
    let server = Server::start_with(&database, |command| mail.configure(command)).await?;
    let ada = server.client().join("ada@example.org").await?;
    let more = json!({
        "to": ["Ada Lovelace <ada@example.org>", "info@bücher.example"], "cc": "cy@example.org",
        "bcc": ["dan@example.org"], "reply_to": "help@example.org", "subject": "Größe: 5 € für ${{ input.name }}",
        "message": "Grüße\n.\nEnde", "html": "<p>Grüße</p>", "attachments": ["out/größe.csv"]
    });
    let pipeline = create(&ada, &more).await?;
    let listed = ada.get(&format!("/api/v1/pipelines/{pipeline}")).await?.expect(200)?;
    let project = listed["project_id"].as_str().context("no project")?;
    let file = format!("/api/v1/projects/{project}/files/out/gr%C3%B6%C3%9Fe.csv");
    ada.put_bytes(&file, "a;ä\n").await?.expect(201)?;
    let path = format!("/api/v1/pipelines/{pipeline}/runs");
    let run = ada.post(&path, &json!({"input": {"name": "Ada"}})).await?.expect(202)?;
    let id = run["id"].as_str().context("no id")?;
    let run = ada.run_in(id, &ENDS, LIMIT).await?;
    assert_eq!(run["state"], "succeeded", "{run}");

    let messages = mail.messages()?;
    ensure!(messages.len() == 1, "{messages:?}");
    let message = &messages[0];
    let all = json!(["ada@example.org", "info@xn--bcher-kva.example", "cy@example.org", "dan@example.org"]);
    assert_eq!((&message["encrypted"], &message["user"]), (&json!(true), &json!("gathering")));
    assert_eq!((&message["sender"], &message["to"]), (&json!("gathering@example.org"), &all));
    let message_id = format!("<{id}.tell@example.org>");
    let headers = &message["headers"];
    assert_eq!(headers["message-id"], message_id);
    assert_eq!(headers["subject"], "Größe: 5 € für Ada");
    assert_eq!(headers["to"], "Ada Lovelace <ada@example.org>, info@xn--bcher-kva.example");
    assert_eq!((&headers["cc"], &headers["bcc"]), (&json!("cy@example.org"), &Value::Null));
    assert_eq!(headers["reply-to"], "help@example.org");
    assert_eq!(
        message["parts"],
        json!([
            {"type": "text/plain", "name": null, "content": "Grüße\r\n.\r\nEnde"},
            {"type": "text/html", "name": null, "content": "<p>Grüße</p>"},
            {"type": "text/csv", "name": "größe.csv", "content": "a;ä\n"},
        ])
    );
    let output = json!({
        "delivered": true, "message_id": message_id, "recipients": all, "response": "250 2.0.0 queued"
    });
    assert_eq!(run["output"]["tell"], output);
    let rows: Vec<String> = database.rows().await?.into_values().flatten().collect();
    assert_eq!(find_secret(&rows.join("\n"), &[PASSWORD.to_owned()]), None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_sends_its_report() -> Result<()> {
    let mail = MailServer::start("none", None).await?;
    let database = Database::empty().await?;
    let file = workspace_root()?.join("examples/mail-report.yaml").display().to_string();
    let input = r#"{"to": ["ada@example.org", "bob@example.org"], "text": "Tides are late"}"#;
    let mut command = database.command(&["run", &file, "--input", input])?;
    mail.configure(&mut command);
    let ended = Process::start(&mut command)?.end(LIMIT).await?;
    ensure!(ended.code == Some(0), "{}", ended.stderr);
    let messages = mail.messages()?;
    ensure!(messages.len() == 1, "{messages:?}");
    assert_eq!(messages[0]["to"], json!(["ada@example.org", "bob@example.org"]));
    assert_eq!(messages[0]["headers"]["subject"], "Report: Tides are late");
    let report =
        json!({"type": "text/markdown", "name": "mail-report.md", "content": "# Report\n\nTides are late\n"});
    assert_eq!(messages[0]["parts"][1], report);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_prove_its_name_gets_nothing() -> Result<()> {
    let mail = MailServer::start("implicit", Some(("gathering", PASSWORD))).await?;
    let database = Database::empty().await?;
    let mut server = Server::start_with(&database, |command| mail.configure(command)).await?;
    let ada = server.client().join("ada@example.org").await?;
    let pipeline = create(&ada, &json!({})).await?;
    assert_eq!(run_to(&ada, &pipeline, "ada@example.org").await?["state"], "succeeded");
    server.stop(LIMIT).await?;
    drop(server);

    let other = MailServer::start("implicit", None).await?;
    let server = Server::start_with(&database, |command| {
        mail.configure(command);
        command.env("GATHERING_SMTP_CA_FILE", other.ca_file());
    })
    .await?;
    let ada = server.client().login("ada@example.org").await?;
    let run = run_to(&ada, &pipeline, "ada@example.org").await?;
    let error = &node(&run)["error"];
    assert_eq!((&run["state"], &error["kind"]), (&json!("failed"), &json!("connection")), "{run}");
    ensure!(error["message"].as_str().is_some_and(|text| text.contains("certificate")), "{error}");
    assert_eq!((mail.messages()?.len(), other.messages()?.len()), (1, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_now_is_tried_again_and_nothing_else_is() -> Result<()> {
    let mail = MailServer::start("none", None).await?;
    let database = Database::empty().await?;
    let server = Server::start_with(&database, |command| {
        mail.configure(command);
        command.env("GATHERING_SMTP_TIMEOUT_SECONDS", "5");
    })
    .await?;
    let ada = server.client().join("ada@example.org").await?;
    let pipeline = create(&ada, &json!({"cc": "cy@example.org"})).await?;
    for (to, n_attempts) in [("later-2@example.org", 3), ("busy-2@example.org", 3), ("plain@example.org", 1)]
    {
        let run = run_to(&ada, &pipeline, to).await?;
        assert_eq!(
            (&run["state"], &node(&run)["attempt"]),
            (&json!("succeeded"), &json!(n_attempts)),
            "{run}"
        );
        let id = json!(format!("<{}.tell@example.org>", run["id"].as_str().context("no id")?));
        assert_eq!(mail.messages()?.iter().filter(|message| message["id"] == id).count(), 1);
    }
    let n_messages = mail.messages()?.len();
    for (to, named) in
        [("never@example.org", "`never@example.org` (550 5.1.1"), ("bad@example.org", "554 5.6.0")]
    {
        let run = run_to(&ada, &pipeline, to).await?;
        let error = &node(&run)["error"];
        assert_eq!((&run["state"], &node(&run)["attempt"]), (&json!("failed"), &json!(1)), "{run}");
        assert_eq!(error["kind"], "smtp", "{error}");
        ensure!(error["message"].as_str().is_some_and(|text| text.contains(named)), "{error}");
    }
    assert_eq!(mail.messages()?.len(), n_messages, "nobody gets what one recipient may not");
    let silent = run_to(&ada, &pipeline, "mute@example.org").await?;
    let error = &node(&silent)["error"];
    assert_eq!(
        (&error["kind"], &node(&silent)["attempt"]),
        (&json!("effect_unknown"), &json!(1)),
        "{silent}"
    );
    let id = format!("<{}.tell@example.org>", silent["id"].as_str().context("no id")?);
    ensure!(error["message"].as_str().is_some_and(|text| text.contains(&id)), "{error}");
    assert_eq!(mail.messages()?.len(), n_messages + 1, "it was sent once");
    let mut impatient = tell(&json!({}));
    impatient["timeout_seconds"] = json!(2);
    let impatient =
        ada.create_pipeline(&gathering_e2e::pipeline(&[begin(), impatient], &[("begin", "tell")])).await?;
    let cut_off = run_to(&ada, &impatient, "mute@example.org").await?;
    let error = &node(&cut_off)["error"];
    assert_eq!(
        (&error["kind"], &node(&cut_off)["attempt"]),
        (&json!("effect_unknown"), &json!(2)),
        "{cut_off}"
    );
    assert_eq!(mail.messages()?.len(), n_messages + 2, "it was sent once");
    let injected = run_to(&ada, &pipeline, "ada@example.org\r\nBcc: eve@example.org").await?;
    let error = &node(&injected)["error"];
    assert_eq!(error["kind"], "invalid_parameters", "{injected}");
    ensure!(
        error["message"].as_str().is_some_and(|text| text.contains("/to: must not contain line")),
        "{error}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_does_not_send_again_what_may_have_arrived() -> Result<()> {
    let mail = MailServer::start("none", None).await?;
    let database = Database::empty().await?;
    let server = Server::start_with(&database, |command| {
        mail.configure(command);
        command.env("GATHERING_SMTP_TIMEOUT_SECONDS", "2");
    })
    .await?;
    let ada = server.client().join("ada@example.org").await?;
    let call = |to: &str| {
        let params = json!({"channel": "email", "to": to, "subject": "Hello", "message": "Hello"});
        format!("scripted: call send_notification {params}\n")
    };
    for (to, state, n_messages) in [("never@example.org", "succeeded", 0), ("mute@example.org", "failed", 1)]
    {
        let script = [call(to), call(to), "scripted: outline".to_owned()].concat();
        let config = json!({
            "agent": {"provider": "scripted", "instructions": script, "tools": ["send_notification"]}, "prompt": "Tell them."
        });
        let agent = json!({"id": "tell", "type": "agent", "config": config, "retry": {"max_attempts": 3}});
        let pipeline = ada.create_pipeline(&pipeline(&[begin(), agent], &[("begin", "tell")])).await?;
        let run = run_to(&ada, &pipeline, to).await?;
        assert_eq!((&run["state"], mail.messages()?.len()), (&json!(state), n_messages), "{run}");
        if state == "failed" {
            assert_eq!(node(&run)["error"]["kind"], "effect_unknown", "{run}");
        }
    }
    Ok(())
}

/// Where a server dies: after the mail server has noted this, and before it goes on; after `answered` it goes on at once.
const PLACES: [&str; 5] = ["stored", "data", "answered", "rcpt", "begun"];

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_sent_twice_however_often_the_server_is_killed() -> Result<()> {
    let mail = MailServer::start("none", None).await?;
    let database = Database::empty().await?;
    let mut random = Random::printed()?;
    let mut server = Server::start_with(&database, |command| mail.configure(command)).await?;
    let ada = server.client().join("ada@example.org").await?;
    let pipeline = create(&ada, &json!({})).await?;
    let mut ends: BTreeMap<String, (String, &str)> = BTreeMap::new();
    for round in 0..soak(5, 20) {
        let place = PLACES[round % PLACES.len()];
        let (event, to) = match place {
            "answered" => ("stored", "plain@example.org".to_owned()),
            place => (place, format!("hold-{place}-{round}@example.org")),
        };
        let seen = mail.events()?.len();
        let client = server.client().login("ada@example.org").await?;
        let run = start(&client, &pipeline, &to).await?;
        wait_until(LIMIT, &format!("the mail server notes {event}"), async || {
            let events = mail.events().map_err(|error| format!("{error:#}"))?;
            let is_here = events.iter().skip(seen).any(|one| one["event"] == event);
            if is_here { Ok(()) } else { Err(format!("{events:?}")) }
        })
        .await?;
        if place == "answered" {
            tokio::time::sleep(random.below(Duration::from_millis(20))).await;
        }
        server.kill()?;
        server = Server::start_with(&database, |command| mail.configure(command)).await?;
        let client = server.client().login("ada@example.org").await?;
        let ended = client.run_in(&run, &ENDS, LIMIT).await?;
        let state = ended["state"].as_str().context("no state")?.to_owned();
        if state != "succeeded" {
            assert_eq!(node(&ended)["error"]["kind"], "effect_unknown", "killed at {place}: {ended}");
            let again = rerun(&client, &run).await?;
            assert_eq!(node(&again)["error"]["kind"], "effect_unknown", "nobody has decided: {again}");
        }
        ensure!(place == "answered" || state == "failed", "killed at {place}, the run is {state}");
        ends.insert(run, (state, place));
    }
    decide(&server.client().login("ada@example.org").await?, &mail, &ends).await?;
    check_counts(&mail, &ends)
}

/// Decides about every run whose end is unknown: what the mail server has is not sent again, the rest is.
async fn decide(client: &Client, mail: &MailServer, ends: &BTreeMap<String, (String, &str)>) -> Result<()> {
    for (run, (state, place)) in ends {
        if state == "succeeded" {
            continue;
        }
        let id = json!(format!("<{run}.tell@example.org>"));
        let has_it = mail.messages()?.iter().any(|message| message["id"] == id);
        ensure!(has_it || !matches!(*place, "stored" | "answered"), "killed at {place}, the message is lost");
        let outcome = if has_it { "succeeded" } else { "repeat" };
        let decision = json!({"outcome": outcome, "reason": "The log of the mail server says so."});
        client.post(&format!("/api/v1/runs/{run}/nodes/tell/decision"), &decision).await?.expect(202)?;
        let again = rerun(client, run).await?;
        assert_eq!(again["state"], "succeeded", "decided as {outcome}: {again}");
    }
    Ok(())
}

fn check_counts(mail: &MailServer, ends: &BTreeMap<String, (String, &str)>) -> Result<()> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for message in mail.messages()? {
        *counts.entry(message["id"].as_str().context("no id")?.to_owned()).or_default() += 1;
    }
    let expected: BTreeMap<String, usize> =
        ends.keys().map(|run| (format!("<{run}.tell@example.org>"), 1)).collect();
    assert_eq!(counts, expected, "{ends:?}");
    Ok(())
}
