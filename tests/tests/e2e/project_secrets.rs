//! Secrets of projects, from the API to the outside and back: only what is sent has a value.

use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use gathering_e2e::{Client, Database, Server, find_secret, note_secret, pipeline, wait_until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A value with everything that is written in another way in JSON and in URLs.
const VALUE: &str = "s3cr3t/value+\"of\" the=project";

const LOG: &str = "info,gathering_server=trace,gathering_control=trace,gathering_nodes=trace,gathering_tools=trace,\
                   gathering_dag_engine=trace,gathering_persistence=trace";

fn keys(first: u8) -> String {
    STANDARD.encode([first; 32])
}

/// The forms in which an echo sends the value back.
fn forms() -> Vec<String> {
    let quoted = Value::from(VALUE).to_string();
    let url = "s3cr3t%2Fvalue%2B%22of%22%20the%3Dproject";
    vec![
        VALUE.to_owned(),
        quoted.trim_matches('"').to_owned(),
        STANDARD.encode(VALUE),
        URL_SAFE_NO_PAD.encode(VALUE),
        url.to_owned(),
        url.to_lowercase(),
        url.replace("%20", "+"),
        VALUE.bytes().map(|byte| format!("{byte:02x}")).collect(),
    ]
}

/// Parts of the value that no form may leave, too.
fn traces() -> Vec<String> {
    let basic = STANDARD.encode(format!("user:{VALUE}"));
    let parts = [VALUE[..12].to_owned(), basic[8..24].to_owned()];
    forms().into_iter().chain(parts).collect()
}

/// Answers each request with all forms of the value that it has, in the body and in headers; the requests come out of
/// the channel.
async fn echo(status: u16) -> Result<(String, UnboundedReceiver<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (requests, received) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 65_536];
            let n_bytes = stream.read(&mut request).await.unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..n_bytes]).into_owned();
            let basic = STANDARD.encode(format!("user:{VALUE}"));
            let body =
                json!({"forms": forms(), VALUE: "a name", "basic": format!("Basic {basic}")}).to_string();
            let head = format!(
                "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\nx-plain: {VALUE}\r\nx-basic: {basic}\r\n\
                 content-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            let _ = requests.send(request);
        }
    });
    Ok((url, received))
}

async fn start(database: &Database, keys: &str) -> Result<Server> {
    Server::start_with(database, |command| {
        command
            .env("GATHERING_LOG", LOG)
            .env("GATHERING_OUTBOUND_ALLOW", "127.0.0.0/8")
            .env("GATHERING_SECRETS_KEY", keys);
    })
    .await
}

async fn set(client: &Client, project: &str, name: &str, value: &str, status: u16) -> Result<()> {
    let path = format!("/api/v1/projects/{project}/secrets/{name}");
    client.put(&path, &json!({ "value": value })).await?.expect(status)?;
    Ok(())
}

/// A pipeline of the project that sends the secret in a header and in a body.
async fn define(client: &Client, project: &str, url: &str) -> Result<String> {
    let config = json!({
        "action": "call_api", "method": "POST", "url": url,
        "headers": {"authorization": "Bearer ${{ secrets.TOKEN }}"},
        "body": {"deep": ["${{ secrets.TOKEN }}", "${{ input.text }}"]},
    });
    let log = json!({"tool": "write_file", "params": {"path": "out.json", "content": "got ${{ nodes.call.output }}"}});
    let nodes = [
        json!({"id": "call", "type": "action", "config": config}),
        json!({"id": "log", "type": "tool", "config": log}),
    ];
    let mut definition = pipeline(&nodes, &[("call", "log")]);
    definition["output"] = json!("nodes.call.output");
    let body = json!({"project_id": project, "name": "calls", "definition": definition});
    let created = client.post("/api/v1/pipelines", &body).await?.expect(201)?;
    Ok(created["id"].as_str().context("no id")?.to_owned())
}

async fn run(client: &Client, pipeline: &str, input: Value) -> Result<Value> {
    let path = format!("/api/v1/pipelines/{pipeline}/runs");
    let started = client.post(&path, &json!({ "input": input })).await?.expect(202)?;
    let id = started["id"].as_str().context("no id")?;
    client.run_in(id, &["succeeded", "failed"], Duration::from_secs(30)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_sent_and_is_in_nothing_that_is_kept_or_shown() -> Result<()> {
    let database = Database::empty().await?;
    let mut server = start(&database, &keys(1)).await?;
    let ada = server.client().join("ada@example.org").await?;
    let project = ada.create_project("secrets").await?;
    note_secret(VALUE);
    set(&ada, &project, "TOKEN", VALUE, 201).await?;
    let mut shown = vec![ada.get(&format!("/api/v1/projects/{project}/secrets")).await?.text];
    for status in [200, 400] {
        let (url, mut received) = echo(status).await?;
        let pipeline = define(&ada, &project, &url).await?;
        let ended = run(&ada, &pipeline, json!({"text": "${{ secrets.TOKEN }}"})).await?;
        let request = received.recv().await.context("nothing was sent")?;
        assert!(request.contains(&format!("Bearer {VALUE}")), "{request}");
        let text = Value::from(VALUE).to_string();
        assert!(
            request.contains(&format!(r#"["{}","${{{{ secrets.TOKEN }}}}"]"#, text.trim_matches('"'))),
            "{request}"
        );
        let id = ended["id"].as_str().context("no id")?.to_owned();
        assert_eq!(ended["state"], if status == 200 { "succeeded" } else { "failed" }, "{ended}");
        for path in ["", "/journal?limit=200", "/stream"] {
            shown.push(ada.get(&format!("/api/v1/runs/{id}{path}")).await?.text);
        }
    }
    shown.push(ada.get("/api/v1/events?format=json&limit=200").await?.text);
    shown.push(ada.get("/api/v1/audit/events?limit=200").await?.text);
    assert!(shown.iter().any(|text| text.contains("[secret TOKEN]")), "something was taken out");
    // The use is recorded within a second or so.
    wait_until(Duration::from_secs(20), "the use of the secret is recorded", async || {
        let audit =
            ada.get("/api/v1/audit/events?type=secret_used").await.map_err(|error| format!("{error:#}"))?;
        let n_uses = audit.body["items"].as_array().map_or(0, Vec::len);
        if n_uses == 2 { Ok(()) } else { Err(audit.text) }
    })
    .await?;
    let listed = ada.get(&format!("/api/v1/projects/{project}/secrets")).await?.expect(200)?;
    assert!(listed["items"][0]["last_used_at"].is_string(), "{listed}");
    let traces = traces();
    for text in &shown {
        assert_eq!(find_secret(text, &traces), None, "{text}");
    }
    for (table, rows) in &database.rows().await? {
        assert_eq!(find_secret(&rows.join("\n"), &traces), None, "in table {table}");
    }
    let file = std::fs::read_to_string(database.files_of(&project).join("out.json"))?;
    assert_eq!(find_secret(&file, &traces), None, "what a later node writes is redacted: {file}");
    server.stop(Duration::from_secs(30)).await?;
    assert_eq!(find_secret(&server.log(), &traces), None, "in the log");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_reads_what_the_old_one_wrote_and_a_lost_key_is_named() -> Result<()> {
    let database = Database::empty().await?;
    let (old, new) = (keys(1), keys(2));
    let mut server = start(&database, &old).await?;
    let ada = server.client().join("ada@example.org").await?;
    let project = ada.create_project("secrets").await?;
    set(&ada, &project, "TOKEN", VALUE, 201).await?;
    let (url, mut received) = echo(200).await?;
    let pipeline = define(&ada, &project, &url).await?;
    let secrets = format!("/api/v1/projects/{project}/secrets");
    let key_id = async |client: &Client| -> Result<Value> {
        Ok(client.get(&secrets).await?.expect(200)?["items"][0]["key_id"].clone())
    };
    let of_old = key_id(&ada).await?;
    server.stop(Duration::from_secs(30)).await?;

    let mut server = start(&database, &format!("{new} {old}")).await?;
    let ada = server.client().login("ada@example.org").await?;
    wait_until(Duration::from_secs(20), "the secret is encrypted with the new key", async || {
        match key_id(&ada).await {
            Ok(id) if id != of_old => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    server.stop(Duration::from_secs(30)).await?;

    let mut server = start(&database, &new).await?;
    let ada = server.client().login("ada@example.org").await?;
    let ended = run(&ada, &pipeline, json!({"text": ""})).await?;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert!(received.recv().await.context("nothing was sent")?.contains(VALUE));
    let of_new = key_id(&ada).await?;
    server.stop(Duration::from_secs(30)).await?;

    let server = start(&database, &keys(3)).await?;
    let ada = server.client().login("ada@example.org").await?;
    let ended = run(&ada, &pipeline, json!({"text": ""})).await?;
    assert_eq!(ended["state"], "failed", "{ended}");
    let error = ended["nodes"][0]["error"].to_string();
    assert!(
        error.contains("secret_unreadable") && error.contains(of_new.as_str().context("no id")?),
        "{error}"
    );
    assert!(received.try_recv().is_err(), "nothing is sent without the value");
    set(&ada, &project, "TOKEN", VALUE, 204).await?;
    assert_eq!(run(&ada, &pipeline, json!({"text": ""})).await?["state"], "succeeded", "it can be set anew");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_secret_is_said_and_a_changed_one_is_used_at_once() -> Result<()> {
    let database = Database::empty().await?;
    let server = start(&database, &keys(1)).await?;
    let ada = server.client().join("ada@example.org").await?;
    let project = ada.create_project("secrets").await?;
    let path = |name: &str| format!("/api/v1/projects/{project}/secrets/{name}");
    for (name, value, pointer) in [
        ("2A", json!("long enough"), "/name"),
        ("A", json!("abc"), "/value"),
        ("A", json!(["abcd"]), "/value"),
    ] {
        let refused = ada.put(&path(name), &json!({ "value": value })).await?;
        assert_eq!((refused.status, refused.pointers()), (422, vec![pointer]), "{}", refused.text);
    }
    ada.delete(&path("A")).await?.expect_problem(404, "not-found")?;
    let (url, mut received) = echo(200).await?;
    let pipeline = define(&ada, &project, &url).await?;
    let ended = run(&ada, &pipeline, json!({"text": ""})).await?;
    assert_eq!(ended["state"], "failed");
    assert_eq!(ended["nodes"][0]["error"]["kind"], "secret_missing", "{ended}");
    for (value, status) in [("the first value", 201), ("the second value", 204), ("the third value", 204)] {
        set(&ada, &project, "TOKEN", value, status).await?;
        run(&ada, &pipeline, json!({"text": ""})).await?;
        let request = received.recv().await.context("nothing was sent")?;
        assert!(request.contains(&format!("Bearer {value}")), "{request}");
    }
    let wrong = pipeline_with_secret_in_url(&url);
    let refused = ada.post("/api/v1/pipelines/validate", &wrong).await?.expect(200)?;
    assert!(refused.to_string().contains("/nodes/0/config/url"), "{refused}");
    Ok(())
}

fn pipeline_with_secret_in_url(url: &str) -> Value {
    let config = json!({"action": "call_api", "url": format!("{url}/${{{{ secrets.TOKEN }}}}")});
    pipeline(&[json!({"id": "call", "type": "action", "config": config})], &[])
}
