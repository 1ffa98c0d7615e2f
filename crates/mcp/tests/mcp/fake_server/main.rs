//! A server for tests. Each of its tools misbehaves in the way that its name says, and so does each argument.

mod list;
mod tools;

use std::io::{BufRead as _, Write as _};

use serde_json::{Value, json};

/// How the whole server behaves, from its arguments.
#[derive(Default)]
pub(crate) struct Server {
    arguments: Vec<String>,
    /// Everything that it was sent.
    heard: Vec<Value>,
    /// The last call of `late`, until it is cancelled.
    late: Option<Value>,
    /// The call whose answer waits for what the client says to request 0.
    asking: Option<Value>,
    is_locked: bool,
    lists: usize,
    is_renamed: bool,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut server = Server { arguments, ..Server::default() };
    server.begin();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        if let Ok(message) = serde_json::from_str::<Value>(&line) {
            server.hear(message);
        }
    }
    if server.is("never-ends") {
        loop {
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
    }
}

impl Server {
    fn is(&self, behaviour: &str) -> bool {
        self.arguments.iter().any(|argument| argument == behaviour)
    }

    fn begin(&self) {
        if self.is("dies-at-once") {
            tell("no licence found");
            std::process::exit(3);
        }
        if self.is("has-child") {
            // It outlives its parent unless the whole group is ended.
            let mut child = std::process::Command::new("sleep");
            child.arg("1000").stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
            if let Ok(child) = child.spawn() {
                tell(&format!("child {}", child.id()));
                let _ = std::fs::write(&self.arguments[1], child.id().to_string());
            }
        }
    }

    fn hear(&mut self, message: Value) {
        self.heard.push(message.clone());
        let params = message["params"].clone();
        match message["method"].as_str() {
            Some("server/discover") => self.discover(&message),
            Some("initialize") => self.initialize(&message),
            Some("notifications/initialized") if self.is("tells-changes") => {
                for _ in 0..5 {
                    notify("notifications/tools/list_changed", json!({}));
                }
            }
            Some("notifications/cancelled") => self.cancelled(&params),
            Some("ping") if self.is("no-ping") => {}
            Some("ping") => answer(&message, json!({})),
            Some("tools/list") => self.list(&message),
            Some("tools/call") => self.call(&message),
            Some("subscriptions/listen") => {
                notify("notifications/tools/list_changed", json!({}));
            }
            Some(method) if message.get("id").is_some() => {
                refuse(&message, -32601, &format!("no {method}"));
            }
            Some(_) => {}
            None => self.told(&message),
        }
    }

    fn discover(&mut self, message: &Value) {
        if self.is("modern") {
            let tools = json!({"listChanged": true});
            answer(
                message,
                json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": tools},
                       "ttlMs": 0, "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "fake", "version": "1"}}}),
            );
        } else if self.is("silent-to-discover") {
            self.is_locked = true;
        } else if self.is("dies-of-discover") {
            std::process::exit(1);
        } else if self.is("answers-anything") {
            answer(message, json!({"supportedVersions": ["2026-07-28"]}));
        } else if self.is("another-version") {
            refuse(message, -32022, "unsupported");
        } else if !self.is("silent") {
            refuse(message, -32601, "Method not found");
        }
    }

    fn initialize(&self, message: &Value) {
        if self.is("silent") {
            tell("waiting for a key press");
            return;
        }
        // The question has made this process modern.
        if self.is_locked {
            return;
        }
        if self.is("modern") {
            return refuse(message, -32022, "the initialize handshake is not accepted");
        }
        let version = if self.is("old") { "1999-01-01" } else { "2025-11-25" };
        answer(
            message,
            json!({"protocolVersion": version, "capabilities": {"tools": {"listChanged": true}},
                   "serverInfo": {"name": "fake", "version": "1"}, "instructions": "be kind"}),
        );
    }
}

pub(crate) fn write(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

pub(crate) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

pub(crate) fn answer(message: &Value, result: Value) {
    write(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string());
}

pub(crate) fn refuse(message: &Value, code: i64, text: &str) {
    let error = json!({"code": code, "message": text});
    write(&json!({"jsonrpc": "2.0", "id": message["id"], "error": error}).to_string());
}

pub(crate) fn notify(method: &str, params: Value) {
    write(&json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string());
}

pub(crate) fn text(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}], "resultType": "complete"})
}
