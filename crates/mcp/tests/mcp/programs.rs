//! The official servers, installed once, with pinned versions.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gathering_mcp::McpServerConfig;
use gathering_test_packages::{node_modules_of, python};

use crate::support;

/// The newest generation of Python's SDK, and servers that use it.
const PYTHON_2: [&str; 4] = [
    "mcp==2.3.0",
    "mcp-server-time==2026.10.19",
    "mcp-server-git==2026.10.19",
    "mcp-server-fetch==2026.10.24",
];
/// The older generation.
const PYTHON_1: [&str; 1] = ["mcp==1.30.0"];
const NPM: [&str; 4] = [
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
    "@modelcontextprotocol/server-memory@2026.8.31",
    "@modelcontextprotocol/server-sequential-thinking@2026.8.31",
];

/// A generation of Python's SDK.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PythonSdk {
    One,
    Two,
}

impl PythonSdk {
    fn python(self) -> PathBuf {
        match self {
            Self::One => python(&PYTHON_1).unwrap(),
            Self::Two => python(&PYTHON_2).unwrap(),
        }
    }
}

/// The settings of a program that may start slowly, because many tests run at once.
fn stdio(command: &str, arguments: &[&str]) -> McpServerConfig {
    let mut config = support::stdio(command, arguments);
    config.limits.probe_silence = Duration::from_secs(20);
    config
}

/// A server of PyPI, by its module, such as `mcp_server_time`.
pub fn pypi(module: &str) -> McpServerConfig {
    stdio(PythonSdk::Two.python().to_str().unwrap(), &["-m", module])
}

/// The file of a server of npm; `None` without npm, and the test says so.
pub fn npm_file(name: &str) -> Option<String> {
    let modules = node_modules_of(&NPM).unwrap()?;
    let file = modules.join("@modelcontextprotocol").join(name).join("dist/index.js");
    Some(file.to_str().unwrap().to_owned())
}

/// A server of npm, such as `server-memory`.
pub fn npm(name: &str, arguments: &[&str]) -> Option<McpServerConfig> {
    let file = npm_file(name)?;
    let arguments: Vec<&str> = [file.as_str()].iter().chain(arguments).copied().collect();
    Some(stdio("node", &arguments))
}

fn own_file() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp/servers/own.py");
    file.to_str().unwrap().to_owned()
}

/// `servers/own.py` over stdio.
pub fn own(sdk: PythonSdk) -> McpServerConfig {
    stdio(sdk.python().to_str().unwrap(), &[&own_file(), "stdio"])
}

/// A program that listens to a port; ends when it is dropped.
pub struct Listening {
    pub url: String,
    command: Command,
    child: Child,
}

impl Listening {
    fn start(mut command: Command, port: u16) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        Self { url: format!("http://127.0.0.1:{port}/mcp"), command, child }
    }

    /// `servers/own.py` over HTTP.
    pub fn own(sdk: PythonSdk) -> Self {
        let port = free_port();
        let mut command = Command::new(sdk.python());
        command.args([&own_file(), "http", &port.to_string()]);
        Self::start(command, port)
    }

    /// `server-everything` over HTTP.
    pub fn everything() -> Option<Self> {
        let port = free_port();
        let mut command = Command::new("node");
        command.args([&npm_file("server-everything")?, "streamableHttp"]).env("PORT", port.to_string());
        Some(Self::start(command, port))
    }

    /// Ends the program and starts it anew on the same port: it has forgotten every session.
    pub fn restart(&mut self) {
        self.end();
        self.child = self.command.spawn().unwrap();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.end();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
