//! What this crate offers, used by the real clients: the SDKs for Python and TypeScript in both generations, and the
//! command line of the official inspector. Each lists the tools, calls one, and reads a resource.

use std::path::PathBuf;
use std::process::Command;

use gathering_test_packages::{node_modules_of, python};
use serde_json::{Value, json};

/// A client of Python's SDK 1, and of its SDK 2 with the older protocol.
const PYTHON_SESSION: &str = r#"
import asyncio, json, sys
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

async def main(command, directory):
    server = StdioServerParameters(command=command, args=[directory])
    async with stdio_client(server) as (reading, writing), ClientSession(reading, writing) as session:
        await session.initialize()
        tools = await session.list_tools()
        result = await session.call_tool("read_file", {"path": "a.md"})
        refused = (await session.call_tool("read_file", {})).content[0].text
        read = await session.read_resource("file:///a.md")
        print(json.dumps({
            "tools": [tool.name for tool in tools.tools],
            "text": json.loads(result.content[0].text)["content"],
            "refused": refused,
            "resource": read.contents[0].text,
        }))

asyncio.run(main(*sys.argv[1:]))
"#;

/// A client of Python's SDK 2 with the newest protocol that both speak.
const PYTHON_CLIENT: &str = r#"
import asyncio, json, sys
from mcp import Client, StdioServerParameters

async def main(command, directory):
    async with Client(StdioServerParameters(command=command, args=[directory])) as client:
        tools = await client.list_tools()
        result = await client.call_tool("read_file", {"path": "a.md"})
        refused = (await client.call_tool("read_file", {})).content[0].text
        read = await client.read_resource("file:///a.md")
        print(json.dumps({
            "version": client.protocol_version,
            "tools": [tool.name for tool in tools.tools],
            "text": result.structured_content["content"],
            "refused": refused,
            "resource": read.contents[0].text,
        }))

asyncio.run(main(*sys.argv[1:]))
"#;

/// A client of the SDK 1 for TypeScript.
const NODE_CLIENT: &str = r#"
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = require("@modelcontextprotocol/sdk/client/stdio.js");

(async () => {
  const [command, directory] = process.argv.slice(1);
  const client = new Client({ name: "test", version: "1" });
  await client.connect(new StdioClientTransport({ command, args: [directory] }));
  const { tools } = await client.listTools();
  const result = await client.callTool({ name: "read_file", arguments: { path: "a.md" } });
  const refused = (await client.callTool({ name: "read_file", arguments: {} })).content[0].text;
  const read = await client.readResource({ uri: "file:///a.md" });
  console.log(JSON.stringify({
    tools: tools.map((tool) => tool.name),
    text: result.structuredContent.content,
    refused,
    resource: read.contents[0].text,
  }));
  await client.close();
})();
"#;

const NODE_PACKAGES: [&str; 2] =
    ["@modelcontextprotocol/sdk@1.32.2", "@modelcontextprotocol/inspector@2.12.0"];

/// The example that offers the built-in tools, which Cargo builds beside the tests.
fn offering() -> PathBuf {
    let beside = PathBuf::from(env!("CARGO_BIN_EXE_mcp-fake-server"));
    beside.parent().unwrap().join("examples/offer_tools")
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.md"), "rivers\n").unwrap();
    directory
}

fn output_of(command: &mut Command) -> Value {
    let ended = command.output().unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command:?}: {errors}");
    serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

fn check(found: &Value) {
    let names: Vec<&str> = found["tools"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(names.contains(&"read_file") && names.contains(&"search_files"), "{names:?}");
    assert_eq!((&found["text"], &found["resource"]), (&json!("rivers\n"), &json!("rivers\n")));
    assert_eq!(found["refused"], "invalid arguments: /path: is required");
}

#[test]
fn pythons_clients_of_both_generations_use_what_is_offered() {
    let directory = directory();
    for (packages, script, version) in [
        ("mcp==1.30.0", PYTHON_SESSION, None),
        ("mcp==2.3.0", PYTHON_SESSION, None),
        ("mcp==2.3.0", PYTHON_CLIENT, Some("2026-07-28")),
    ] {
        let mut client = Command::new(python(&[packages]).unwrap());
        let found = output_of(client.args(["-c", script]).arg(offering()).arg(directory.path()));
        check(&found);
        assert_eq!(found["version"].as_str(), version, "{packages}");
    }
}

#[test]
fn clients_of_node_use_what_is_offered() {
    let Some(modules) = node_modules_of(&NODE_PACKAGES).unwrap() else { return };
    let directory = directory();
    let mut client = Command::new("node");
    client.env("NODE_PATH", &modules).args(["-e", NODE_CLIENT, "--"]);
    check(&output_of(client.arg(offering()).arg(directory.path())));

    let mut inspector = Command::new(modules.join(".bin/mcp-inspector"));
    inspector.arg("--cli").arg(offering()).arg(directory.path());
    inspector.args(["--method", "tools/call", "--tool-name", "read_file", "--tool-arg", "path=a.md"]);
    let found = output_of(&mut inspector);
    assert_eq!(
        (&found["structuredContent"]["content"], &found["isError"]),
        (&json!("rivers\n"), &json!(false))
    );
}
