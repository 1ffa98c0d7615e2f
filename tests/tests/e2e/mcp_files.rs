//! `gathering mcp FILE`: pipeline files as tools of a client, without a server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gathering_e2e::{
    Answer, Database, Peer, Piped, Process, begin, binary, call, pipeline, python, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(90);

/// A client of Python's SDK 2: it lists the tools, calls one, and reads its output.
const PYTHON_CLIENT: &str = r#"
import asyncio, json, os, sys
from mcp import Client, StdioServerParameters

async def main(command, *args):
    async with Client(StdioServerParameters(command=command, args=args, env=dict(os.environ))) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        run = (await client.call_tool("double", {"n": 21})).structured_content
        again = (await client.call_tool("get_run", {"run_id": run["run_id"]})).structured_content
        output = await client.read_resource(f"gathering://runs/{run['run_id']}/output")
        wrong = await client.call_tool("double", {"n": "x"})
        print(json.dumps({
            "version": client.protocol_version,
            "tools": tools,
            "run": run,
            "again": again,
            "output": json.loads(output.contents[0].text),
            "wrong": [wrong.is_error, wrong.content[0].text],
        }))

asyncio.run(main(*sys.argv[1:]))
"#;

fn write(directory: &Path, name: &str, definition: &Value) -> Result<PathBuf> {
    let path = directory.join(name);
    std::fs::write(&path, definition.to_string())?;
    Ok(path)
}

/// Doubles a number.
fn double() -> Value {
    let mut double = pipeline(&[begin()], &[]);
    double["name"] = json!("double");
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    double["input"] = json!({ "schema": schema });
    double["output"] = json!("input.n * 2");
    double
}

fn serving(database: &Database, files: &[&Path]) -> Result<Command> {
    let mut command = database.command(&["mcp"])?;
    command.args(files).current_dir(database.directory());
    Ok(command)
}

async fn tool(client: &mut Piped, name: &str, arguments: Value) -> Result<Value> {
    let called = client.ask("tools/call", json!({"name": name, "arguments": arguments})).await?;
    Ok(called["result"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_a_tool_without_a_server_and_without_a_database() -> Result<()> {
    let database = Database::embedded()?;
    let file = write(database.directory(), "double.json", &double())?;
    let mut client = Command::new(python(&["mcp==2.3.0"])?);
    client.args(["-c", PYTHON_CLIENT]).arg(binary()?).arg("mcp").arg(&file);
    for (name, value) in serving(&database, &[])?.get_envs() {
        match value {
            Some(value) => client.env(name, value),
            None => client.env_remove(name),
        };
    }
    let ended = Process::start(&mut client)?.end(LIMIT).await?;
    ensure!(ended.code == Some(0), "{}", ended.stderr);
    let found: Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!(found["version"], "2026-07-28");
    assert_eq!(found["tools"], json!(["get_run", "cancel_run", "double"]));
    assert_eq!((&found["run"]["state"], &found["run"]["output"]), (&json!("succeeded"), &json!(42)));
    assert_eq!((&found["again"], &found["output"]), (&found["run"], &json!(42)));
    assert_eq!(found["wrong"], json!([true, "invalid arguments: /input/n: must be of type integer"]));
    // The cluster has stopped with the program: the next one starts it again.
    let mut client = Piped::start(serving(&database, &[&file])?)?;
    assert_eq!(tool(&mut client, "double", json!({"n": 1})).await?["structuredContent"]["output"], 2);
    let ended = client.end(LIMIT).await?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{}", ended.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_followed_and_outlives_the_program() -> Result<()> {
    let database = Database::empty().await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let mut read = call("read", &peer.url("/read"));
    read["config"]["method"] = json!("GET");
    let mut slow = pipeline(&[read], &[]);
    slow["tool"] = json!({"name": "slow"});
    let file = write(database.directory(), "slow.json", &slow)?;
    let mut command = serving(&database, &[&file])?;
    command.env("GATHERING_LOG", "info");
    let mut client = Piped::start(command)?;

    // As a task, which is cancelled.
    let params = json!({"name": "slow", "arguments": {}, "task": {}});
    let created = client.ask("tools/call", params).await?["result"]["task"].clone();
    assert_eq!(created["status"], "working", "{created}");
    let id = created["taskId"].as_str().context("taskId")?.to_owned();
    let cancelled = client.ask("tasks/cancel", json!({"taskId": id})).await?;
    assert_eq!(cancelled["result"]["status"], "cancelled", "{cancelled}");
    assert_eq!(
        tool(&mut client, "get_run", json!({"run_id": id})).await?["structuredContent"]["state"],
        "cancelled"
    );

    // The call is cancelled, the run is not.
    let message = json!({"jsonrpc": "2.0", "id": "c", "method": "tools/call", "params": {"name": "slow", "arguments": {}}});
    client.write(&message.to_string()).await?;
    peer.asked(2, LIMIT).await?;
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "c"}});
    client.write(&cancel.to_string()).await?;
    let unknown =
        tool(&mut client, "get_run", json!({"run_id": "00000000-0000-7000-8000-000000000000"})).await?;
    assert_eq!(unknown["isError"], true, "{unknown}");
    client.signal(Signal::SIGTERM)?;
    let ended = client.ended(LIMIT).await?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("is not finished"), "{}", ended.stderr);

    // What `gathering run` does with it.
    peer.release();
    let mut resumed = database.command(&["run", "--resume"])?;
    resumed.arg(&file).current_dir(database.directory());
    let resumed = Process::start(&mut resumed)?.end(LIMIT).await?;
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert_eq!(peer.n_requests(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_leaves_no_process_behind() -> Result<()> {
    let database = Database::embedded()?;
    let file = write(database.directory(), "double.json", &double())?;
    let script = "import subprocess, sys\n\
                  p = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n\
                  p.stdin.write(sys.stdin.readline().encode()); p.stdin.flush()\n\
                  print(p.stdout.readline().decode(), end='', flush=True); print(p.pid, flush=True); p.wait()";
    let mut client = Command::new("python3");
    client.args(["-c", script]).arg(binary()?).arg("mcp").arg(&file);
    for (name, value) in serving(&database, &[])?.get_envs() {
        match value {
            Some(value) => client.env(name, value),
            None => client.env_remove(name),
        };
    }
    let mut client = Piped::start(client)?;
    assert_eq!(client.ask("ping", json!({})).await?["result"], json!({}));
    let program: u32 = client.line().await?.parse()?;
    client.signal(Signal::SIGKILL)?;
    let lock = database.data_dir().join("postgres/postmaster.pid");
    let gone = async || {
        let runs = std::fs::read_to_string(format!("/proc/{program}/cmdline"))
            .is_ok_and(|line| line.contains("mcp"));
        if runs || lock.exists() {
            Err(format!("program: {runs}, database: {}", lock.exists()))
        } else {
            Ok(())
        }
    };
    wait_until(LIMIT, "the program and its database have ended", gone).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_served_is_said_before_anything_starts() -> Result<()> {
    let database = Database::embedded()?;
    let right = write(database.directory(), "double.json", &double())?;
    let invalid = write(database.directory(), "invalid.json", &json!({"nodes": []}))?;
    let mut list = double();
    list["input"] = json!({"schema": {"type": "array"}});
    let list = write(database.directory(), "list.json", &list)?;
    for (files, said) in [
        (vec![invalid.as_path()], "invalid.json"),
        (vec![&right, &right], "another tool is called `double`"),
        (vec![&list], "/input/schema: must be of an object"),
        (vec![Path::new("absent.yaml")], "absent.yaml"),
        (vec![], "--server"),
    ] {
        let ended = Process::start(&mut serving(&database, &files)?)?.end(LIMIT).await?;
        ensure!(ended.code == Some(2) && ended.stdout.is_empty(), "{said}: {ended:?}");
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
    assert!(!database.data_dir().join("postgres").exists(), "nothing was made");
    let both = Process::start(&mut database.command(&["mcp", "a.yaml", "--server", "http://x"])?)?
        .end(LIMIT)
        .await?;
    assert_eq!(both.code, Some(2), "{}", both.stderr);
    Ok(())
}
