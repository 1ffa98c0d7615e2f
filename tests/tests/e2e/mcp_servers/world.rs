//! A scripted MCP server, and a project that mounts it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use gathering_e2e::{Client, Database, Reply, Server, wait_until, workspace_root};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{LIMIT, SERVERS, VALUE};

/// A scripted server, whose definitions a test can change.
pub(super) struct Scripted {
    directory: TempDir,
    script: PathBuf,
}

impl Scripted {
    pub(super) fn new() -> Result<Self> {
        let script = workspace_root()?.join("tests/data/mcp_server.py");
        let scripted = Self { directory: tempfile::tempdir()?, script };
        scripted.define(&definitions("Says it again"))?;
        Ok(scripted)
    }

    pub(super) fn file(&self) -> PathBuf {
        self.directory.path().join("definitions.json")
    }

    pub(super) fn define(&self, definitions: &Value) -> Result<()> {
        Ok(std::fs::write(self.file(), definitions.to_string())?)
    }

    /// How it is mounted over stdio, with a secret in its environment.
    pub(super) fn stdio(&self) -> Value {
        let env = json!({"API_TOKEN": "${{ secrets.API_TOKEN }}"});
        json!({"type": "stdio", "command": "python3", "args": [self.script, self.file()], "env": env})
    }

    /// Starts it on a free port.
    pub(super) fn http(&self) -> Result<Http> {
        let mut command = Command::new("python3");
        command.arg(&self.script).arg(self.file()).arg("http").stdout(Stdio::piped());
        let mut process = Http(command.spawn()?, String::new());
        let output = process.0.stdout.take().context("its output")?;
        let mut port = String::new();
        BufReader::new(output).read_line(&mut port)?;
        process.1 = format!("http://127.0.0.1:{}/mcp", port.trim());
        Ok(process)
    }
}

/// A server over HTTP and its address; killed when this is dropped.
pub(super) struct Http(Child, pub(super) String);

impl Drop for Http {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn definitions(echo: &str) -> Value {
    let text = json!({"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}},
        "additionalProperties": false});
    let plain = |name: &str| json!({"name": name, "description": name, "inputSchema": {"type": "object"}});
    json!([{"name": "echo", "description": echo, "inputSchema": text, "annotations": {"readOnlyHint": true}},
        plain("pid"), plain("secret"), plain("die"), plain("hang"), plain("flood"),
        plain("tell")])
}

/// A project of somebody, with the secret `API_TOKEN`.
pub(super) struct World {
    pub(super) ada: Client,
    pub(super) project: String,
}

impl World {
    pub(super) async fn new(server: &Server) -> Result<Self> {
        let ada = server.client().join("ada@example.org").await?;
        let project = ada.create_project("clock").await?;
        let secret = format!("/api/v1/projects/{project}/secrets/API_TOKEN");
        ensure!(ada.put(&secret, &json!({"value": VALUE})).await?.status == 201);
        Ok(Self { ada, project })
    }

    pub(super) async fn mount(&self, name: &str, transport: &Value) -> Result<Reply> {
        let body = json!({"project_id": self.project, "name": name, "transport": transport});
        self.ada.post(SERVERS, &body).await
    }

    pub(super) fn path(&self, rest: &str) -> String {
        format!("{SERVERS}{rest}?project_id={}", self.project)
    }

    pub(super) async fn invoke(&self, tool: &str, params: Value) -> Result<Reply> {
        invoke(&self.ada, &self.project, tool, params).await
    }

    pub(super) async fn text(&self, tool: &str, params: Value) -> Result<String> {
        text(self.invoke(tool, params).await?)
    }
}

pub(super) async fn invoke(client: &Client, project: &str, tool: &str, params: Value) -> Result<Reply> {
    let body = json!({"params": params, "project_id": project});
    client.post(&format!("/api/v1/tools/{tool}/invoke"), &body).await
}

/// What a tool said.
pub(super) fn text(reply: Reply) -> Result<String> {
    let answer = reply.expect(200)?;
    Ok(answer["output"]["content"][0]["text"].as_str().with_context(|| answer.to_string())?.to_owned())
}

pub(super) fn statuses(server: &Value) -> Vec<(&str, &str)> {
    let tools = server["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    tools.iter().filter_map(|tool| Some((tool["name"].as_str()?, tool["status"].as_str()?))).collect()
}

pub(super) fn is_alive(process: &str) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

pub(super) async fn until_gone(process: &str) -> Result<()> {
    let look = async || if is_alive(process) { Err("it is there") } else { Ok(()) };
    wait_until(LIMIT, "the process has ended", look).await
}

pub(super) async fn start(database: &Database) -> Result<Server> {
    Server::start_with(database, |command| {
        command.env("GATHERING_MCP_COMMANDS", "python3");
    })
    .await
}
