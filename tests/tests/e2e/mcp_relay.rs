//! `gathering mcp --server`: clients that only start programs, on a server elsewhere.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gathering_e2e::{
    Client, Database, Piped, Process, Server, begin, binary, command, node_modules, pipeline, python,
    wait_until,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// A client of Python's SDK 1, and of its SDK 2 with the older protocol.
const PYTHON_SESSION: &str = r#"
import asyncio, json, os, sys
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

async def main(pipeline, command, *args):
    server = StdioServerParameters(command=command, args=args, env=dict(os.environ))
    async with stdio_client(server) as (reading, writing), ClientSession(reading, writing) as session:
        version = await session.initialize()
        tools = await session.list_tools()
        run = json.loads((await session.call_tool("start_run", {"pipeline_id": pipeline})).content[0].text)
        output = await session.read_resource(f"gathering://runs/{run['run_id']}/output")
        print(json.dumps({
            "version": version.protocolVersion if hasattr(version, "protocolVersion") else version.protocol_version,
            "tools": [tool.name for tool in tools.tools],
            "run": run,
            "output": json.loads(output.contents[0].text),
        }))

asyncio.run(main(*sys.argv[1:]))
"#;

/// A client of Python's SDK 2 with the newest protocol that both speak.
const PYTHON_CLIENT: &str = r#"
import asyncio, json, os, sys
from mcp import Client, StdioServerParameters

async def main(pipeline, command, *args):
    async with Client(StdioServerParameters(command=command, args=args, env=dict(os.environ))) as client:
        tools = await client.list_tools()
        run = (await client.call_tool("start_run", {"pipeline_id": pipeline})).structured_content
        output = await client.read_resource(f"gathering://runs/{run['run_id']}/output")
        print(json.dumps({
            "version": client.protocol_version,
            "tools": [tool.name for tool in tools.tools],
            "run": run,
            "output": json.loads(output.contents[0].text),
        }))

asyncio.run(main(*sys.argv[1:]))
"#;

/// A client of the SDK 1 for TypeScript.
const NODE_CLIENT: &str = r#"
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = require("@modelcontextprotocol/sdk/client/stdio.js");

(async () => {
  const [pipeline, command, ...args] = process.argv.slice(1);
  const client = new Client({ name: "test", version: "1" });
  await client.connect(new StdioClientTransport({ command, args, env: process.env }));
  const { tools } = await client.listTools();
  const run = (await client.callTool({ name: "start_run", arguments: { pipeline_id: pipeline } })).structuredContent;
  const output = await client.readResource({ uri: `gathering://runs/${run.run_id}/output` });
  console.log(JSON.stringify({
    version: "2025-11-25",
    tools: tools.map((tool) => tool.name),
    run,
    output: JSON.parse(output.contents[0].text),
  }));
  await client.close();
})();
"#;

/// Starts a relay, says its number, and waits to be killed.
const DOOMED_CLIENT: &str = r#"
import subprocess, sys
relay = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
relay.stdin.write(sys.stdin.readline().encode())
relay.stdin.flush()
print(relay.pid, flush=True)
relay.wait()
"#;

/// `gathering mcp --server` for this server and key, not yet started.
fn relaying(server: &str, key: &Client) -> Result<Command> {
    let mut relay = command(&["mcp", "--server", server])?;
    relay.env("GATHERING_API_KEY", key.token().context("a key")?);
    Ok(relay)
}

fn url(server: &Server) -> String {
    format!("http://{}", server.address())
}

async fn output_of(mut client: Command) -> Result<Value> {
    let mut client = tokio::process::Command::from(std::mem::replace(&mut client, Command::new("true")));
    let ended = tokio::time::timeout(LIMIT, client.stdin(Stdio::null()).output()).await??;
    let errors = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{errors}");
    serde_json::from_slice(&ended.stdout).with_context(|| format!("{errors}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn real_clients_use_a_server_through_a_relay() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let id = ada.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let (key, _) = ada.create_key(&["run"]).await?;
    let mut clients = Vec::new();
    for (package, script, version) in [
        ("mcp==1.30.0", PYTHON_SESSION, "2025-11-25"),
        ("mcp==2.3.0", PYTHON_SESSION, "2025-11-25"),
        ("mcp==2.3.0", PYTHON_CLIENT, "2026-07-28"),
    ] {
        let mut client = Command::new(python(&[package])?);
        client.args(["-c", script]);
        clients.push((client, version));
    }
    if let Some(modules) = node_modules("@modelcontextprotocol/sdk@1.32.2")? {
        let mut client = Command::new("node");
        client.env("NODE_PATH", modules).args(["-e", NODE_CLIENT, "--"]);
        clients.push((client, "2025-11-25"));
    }
    for (mut client, version) in clients {
        client.arg(&id).arg(binary()?).args(["mcp", "--server", &url(&server)]);
        client.env("GATHERING_API_KEY", key.token().context("a key")?);
        let found = output_of(client).await?;
        assert_eq!(found["version"], version);
        assert!(found["tools"].as_array().context("tools")?.contains(&json!("start_run")), "{found}");
        assert_eq!(
            (&found["run"]["state"], &found["output"]),
            (&json!("succeeded"), &found["run"]["output"])
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_tells_of_a_server_that_is_away_and_goes_on_when_it_is_back() -> Result<()> {
    let database = Database::empty().await?;
    let mut server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let (key, key_id) = ada.create_key(&["read"]).await?;
    let mut client = Piped::start(relaying(&url(&server), &key)?)?;
    assert_eq!(client.ask("ping", json!({})).await?["result"], json!({}));

    let address = server.address().to_owned();
    server.stop(LIMIT).await?;
    let away = client.ask("tools/list", json!({})).await?;
    let text = away["error"]["message"].as_str().context("an error")?;
    assert!(text.contains("cannot be reached: is it running?"), "{away}");
    let server = Server::start_with(&database, |command| {
        command.env("GATHERING_BIND", &address);
    })
    .await?;
    assert!(client.ask("tools/list", json!({})).await?["result"]["tools"].is_array());

    let ada = server.client().login("ada@example.org").await?;
    ada.delete(&format!("/api/v1/auth/api-keys/{key_id}")).await?.expect(204)?;
    let revoked = client.ask("ping", json!({})).await?;
    let text = revoked["error"]["message"].as_str().context("an error")?;
    assert!(text.contains("does not accept the API key: set GATHERING_API_KEY"), "{revoked}");
    client.write("no JSON").await?;
    assert_eq!(client.answer().await?["error"]["code"], -32700);
    let ended = client.end(LIMIT).await?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "only answers are on standard output");
    assert!(ended.stderr.contains("cannot be reached"), "the log has why: {}", ended.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_ends_with_its_client_however_that_ends() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let ask = json!({"id": "ask", "type": "approval", "config": {"message": "Pay?"}});
    let id = ada.create_pipeline(&pipeline(&[ask], &[])).await?;
    let call = json!({"name": "start_run", "arguments": {"pipeline_id": id}});
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}).to_string();
    let n_runs = async || {
        let runs = ada.get("/api/v1/runs").await.and_then(|reply| reply.expect(200));
        runs.map(|runs| runs["items"].as_array().map_or(0, Vec::len)).map_err(|error| error.to_string())
    };
    let runs = |n: usize| async move {
        let look = async || match n_runs().await {
            Ok(found) if found == n => Ok(()),
            other => Err(format!("{other:?}")),
        };
        wait_until(LIMIT, "the call is under way", look).await
    };

    // A client that is killed while a call goes on.
    let mut doomed = relaying(&url(&server), &ada)?;
    doomed.env("GATHERING_SHUTDOWN_GRACE_SECONDS", "0");
    let arguments: Vec<_> = std::iter::once(doomed.get_program()).chain(doomed.get_args()).collect();
    let mut client = Command::new("python3");
    client.args(["-c", DOOMED_CLIENT]).args(arguments);
    for (name, value) in doomed.get_envs() {
        match value {
            Some(value) => client.env(name, value),
            None => client.env_remove(name),
        };
    }
    let mut client = Piped::start(client)?;
    client.write(&message).await?;
    let relay: u32 = client.line().await?.parse()?;
    runs(1).await?;
    let is_there =
        || std::fs::read_to_string(format!("/proc/{relay}/cmdline")).is_ok_and(|line| line.contains("mcp"));
    ensure!(is_there(), "the relay runs");
    client.signal(Signal::SIGKILL)?;
    let gone = async || if is_there() { Err("it runs") } else { Ok(()) };
    wait_until(LIMIT, "the relay has ended", gone).await?;

    // A signal: the call gets its time, which another signal ends.
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut relay = relaying(&url(&server), &ada)?;
        relay.env("GATHERING_LOG", "info");
        let mut client = Piped::start(relay)?;
        client.write(&message).await?;
        runs(if signal == Signal::SIGTERM { 2 } else { 3 }).await?;
        client.signal(signal)?;
        let log = async || if client.log().contains("stopping") { Ok(()) } else { Err("not yet") };
        wait_until(LIMIT, "it has noticed the signal", log).await?;
        ensure!(client.is_running(), "the call goes on");
        client.signal(signal)?;
        assert_eq!(client.ended(LIMIT).await?.code, Some(0));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_cannot_start_says_why() -> Result<()> {
    let refused = async |server: &str, key: Option<&str>| -> Result<String> {
        let mut relay = command(&["mcp", "--server", server])?;
        if let Some(key) = key {
            relay.env("GATHERING_API_KEY", key);
        }
        let ended = Process::start(&mut relay)?.end(LIMIT).await?;
        ensure!(ended.code == Some(1) && ended.stdout.is_empty(), "{ended:?}");
        Ok(ended.stderr)
    };
    assert!(refused("http://127.0.0.1:1", None).await?.contains("GATHERING_API_KEY is not set"));
    assert!(refused("http://127.0.0.1:1", Some(" ")).await?.contains("GATHERING_API_KEY is not set"));
    assert!(refused("127.0.0.1", Some("k")).await?.contains("invalid URL"));
    assert!(refused("http://ada:pw@127.0.0.1", Some("k")).await?.contains("must not contain credentials"));
    Ok(())
}
