//! `/mcp`: pipelines and runs in the hands of MCP clients, over HTTP and without sessions.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gathering_e2e::{Client, Database, Reply, Server, begin, pipeline, wait_until};
use gathering_test_packages::python;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const MODERN: &str = "2026-07-28";

/// A client of Python's SDK: it starts a pipeline, reads its output as a resource, and sees what it may not.
const PYTHON_CLIENT: &str = r#"
import asyncio, json, sys
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

async def main(url, token, pipeline):
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"})
    async with Client(streamable_http_client(url, http_client=http)) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        run = (await client.call_tool("start_run", {"pipeline_id": pipeline, "input": {"n": 1}})).structured_content
        output = await client.read_resource(f"gathering://runs/{run['run_id']}/output")
        by_name = (await client.call_tool("is_one", {"n": 2})).structured_content
        wrong = await client.call_tool("is_one", {"n": "two"})
        refused = await client.call_tool("start_run", {"pipeline": pipeline})
        print(json.dumps({
            "version": client.protocol_version,
            "tools": tools,
            "run": run,
            "output": json.loads(output.contents[0].text),
            "by_name": by_name["output"],
            "wrong": [wrong.is_error, wrong.content[0].text],
            "refused": [refused.is_error, refused.content[0].text],
        }))

asyncio.run(main(*sys.argv[1:]))
"#;

/// What a client since 2026-07-28 sends, with the headers that say the same.
async fn modern(client: &Client, method: &str, name: &str, mut params: Value) -> Result<Reply> {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let client = client.with_header("mcp-protocol-version", MODERN).with_header("mcp-method", method);
    client.with_header("mcp-name", name).post("/mcp", &message).await
}

async fn call(client: &Client, tool: &str, arguments: Value) -> Result<Value> {
    let extensions = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let meta = json!({"io.modelcontextprotocol/clientCapabilities": extensions});
    let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
    Ok(modern(client, "tools/call", tool, params).await?.expect(200)?["result"].clone())
}

async fn task(client: &Client, method: &str, id: &str, more: Value) -> Result<Value> {
    let mut params = more;
    params["taskId"] = json!(id);
    Ok(modern(client, method, id, params).await?.expect(200)?["result"].clone())
}

/// Waits until the task has this status.
async fn until(client: &Client, id: &str, status: &str) -> Result<Value> {
    let look = async || match task(client, "tasks/get", id, json!({})).await {
        Ok(task) if task["status"] == status => Ok(task),
        other => Err(format!("{other:?}")),
    };
    wait_until(LIMIT, status, look).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pythons_client_starts_a_pipeline_and_reads_its_output() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let is_one = json!({"id": "is_one", "type": "condition", "config": {"expression": "input.n == 1"}});
    let mut definition = pipeline(&[is_one], &[]);
    definition["tool"] = json!({"name": "is_one", "description": "Says whether a number is one"});
    let number = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    definition["input"] = json!({ "schema": number });
    let id = ada.create_pipeline(&definition).await?;
    let (key, _) = ada.create_key(&["run"]).await?;
    let mut client = tokio::process::Command::new(python(&["mcp==2.3.0"])?);
    client.args(["-c", PYTHON_CLIENT, &format!("http://{}/mcp", server.address())]);
    client.args([key.token().context("a key")?, &id]).stdin(Stdio::null());
    let ended = tokio::time::timeout(LIMIT, client.output()).await??;
    ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let found: Value = serde_json::from_slice(&ended.stdout)?;
    assert_eq!(found["version"], MODERN);
    let tools = found["tools"].as_array().context("tools")?;
    assert!(tools.contains(&json!("start_run")) && tools.contains(&json!("is_one")), "{found}");
    assert_eq!(found["by_name"]["is_one"]["result"], false, "{found}");
    assert_eq!(found["wrong"], json!([true, "invalid arguments: /input/n: must be of type integer"]));
    assert_eq!(found["run"]["state"], "succeeded", "{found}");
    assert_eq!(found["output"], found["run"]["output"]);
    assert_eq!(found["refused"][0], true);
    let refused = found["refused"][1].as_str().context("a text")?;
    assert!(refused.contains("/pipeline: is unknown here; /pipeline_id: is required"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_run_is_a_task_that_asks_is_answered_and_ends_on_any_instance() -> Result<()> {
    let database = Database::empty().await?;
    let (first, second) = (Server::start(&database).await?, Server::start(&database).await?);
    let ada = first.client().join("ada@example.org").await?;
    let elsewhere = second.client().login("ada@example.org").await?;
    let ask = json!({"id": "ask", "type": "approval", "config": {"message": "Pay?"}});
    let id = ada.create_pipeline(&pipeline(&[begin(), ask], &[("begin", "ask")])).await?;
    let started = call(&ada, "start_run", json!({"pipeline_id": id})).await?;
    assert_eq!(started["resultType"], "task", "{started}");
    let run = started["taskId"].as_str().context("taskId")?.to_owned();
    let asked = until(&elsewhere, &run, "input_required").await?;
    assert_eq!(asked["inputRequests"]["ask"]["method"], "elicitation/create", "{asked}");
    let answer = json!({"ask": {"action": "accept", "content": {"approve": true, "comment": "fine"}}});
    task(&elsewhere, "tasks/update", &run, json!({ "inputResponses": answer })).await?;
    let ended = until(&ada, &run, "completed").await?;
    let result = &ended["result"];
    assert_eq!(
        (&result["isError"], &result["structuredContent"]["state"]),
        (&json!(false), &json!("succeeded"))
    );
    assert_eq!(ada.get(&format!("/api/v1/runs/{run}")).await?.expect(200)?["state"], "succeeded");

    let started = call(&ada, "start_run", json!({"pipeline_id": id})).await?;
    let run = started["taskId"].as_str().context("taskId")?.to_owned();
    task(&elsewhere, "tasks/cancel", &run, json!({})).await?;
    until(&ada, &run, "cancelled").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_sees_and_does_only_what_its_caller_may() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let bob = server.client().join("bob@example.org").await?;
    let project = ada.create_project("hers").await?;
    let id = ada.create_pipeline(&pipeline(&[begin()], &[])).await?;
    ada.put_bytes(&format!("/api/v1/projects/{project}/files/a b.md"), "rivers").await?.expect(201)?;
    let uri = format!("gathering://projects/{project}/files/a%20b.md");
    let read = |client: &Client| {
        let (client, uri) = (client.clone(), uri.clone());
        async move { modern(&client, "resources/read", &uri, json!({ "uri": uri })).await }
    };
    assert_eq!(read(&ada).await?.expect(200)?["result"]["contents"][0]["text"], "rivers");
    assert_eq!(read(&bob).await?.expect(200)?["error"]["code"], -32602);
    let started = call(&bob, "start_run", json!({"pipeline_id": id})).await?;
    assert_eq!(started["isError"], true, "{started}");
    let (reader, _) = ada.create_key(&["read"]).await?;
    let refused = call(&reader, "start_run", json!({"pipeline_id": id})).await?;
    assert!(
        refused["content"][0]["text"].as_str().is_some_and(|text| text.contains("do not allow this")),
        "{refused}"
    );
    let escape = format!("gathering://projects/{project}/files/../../secret");
    let escaped = modern(&ada, "resources/read", &escape, json!({ "uri": escape })).await?.expect(200)?;
    assert_eq!(escaped["error"]["code"], -32602, "{escaped}");
    server.client().post("/mcp", &json!({})).await?.expect_problem(401, "not-authenticated")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_refused_by_its_headers_before_it_does_anything() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    for (name, value, status) in [
        ("origin", "https://evil.example", 403),
        ("accept", "text/html", 406),
        ("mcp-session-id", "of-yesterday", 404),
        ("mcp-protocol-version", "1999-01-01", 400),
        ("mcp-protocol-version", MODERN, 400),
    ] {
        let refused = ada.with_header(name, value).post("/mcp", &ping).await?;
        assert_eq!(refused.status, status, "{name}: {value}: {}", refused.text);
    }
    for (name, value) in [
        ("origin", format!("http://{}", server.address())),
        ("accept", "application/json, text/event-stream".to_owned()),
        ("mcp-protocol-version", "2025-11-25".to_owned()),
    ] {
        let answered = ada.with_header(name, &value).post("/mcp", &ping).await?;
        assert_eq!(answered.expect(200)?["result"], json!({}), "{name}: {value}");
    }
    ada.post("/mcp", &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?.expect(202)?;
    assert_eq!(ada.post("/mcp", &json!([ping])).await?.status, 400);
    ada.get("/mcp").await?.expect_problem(405, "method-not-allowed")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_valid_key_is_told_where_to_read_how_it_gets_in() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start_with(&database, |command| {
        command.env("GATHERING_TRUSTED_PROXIES", "127.0.0.0/8");
    })
    .await?;
    let (client, own) = (server.client(), format!("http://{}", server.address()));
    let of_mcp = format!("{own}/.well-known/oauth-protected-resource/mcp");
    for client in [client.clone(), client.with_token("wrong")] {
        let refused = client.post("/mcp", &json!({})).await?;
        refused.expect_problem(401, "not-authenticated")?;
        let challenge = refused.header("www-authenticate");
        assert!(challenge.starts_with("Bearer realm=\"gathering\""), "{challenge}");
        assert!(challenge.ends_with(&format!(", resource_metadata=\"{of_mcp}\"")), "{challenge}");
    }
    let other = client.get("/api/v1/runs").await?;
    assert!(!other.header("www-authenticate").contains("resource_metadata"), "only MCP has metadata");

    let metadata = client.get("/.well-known/oauth-protected-resource/mcp").await?;
    assert_eq!(metadata.header("cache-control"), "public, max-age=3600");
    let metadata = metadata.expect(200)?;
    assert_eq!(metadata["resource"], format!("{own}/mcp"));
    assert_eq!(metadata["bearer_methods_supported"], json!(["header"]));
    assert_eq!(metadata["scopes_supported"], json!(["read", "run"]));
    assert!(metadata.get("authorization_servers").is_none(), "no other server's tokens are accepted");
    let proxied = client
        .with_header("x-forwarded-host", "gathering.example.org")
        .with_header("x-forwarded-proto", "https")
        .get("/.well-known/oauth-protected-resource")
        .await?;
    assert_eq!(proxied.expect(200)?["resource"], "https://gathering.example.org");
    Ok(())
}
