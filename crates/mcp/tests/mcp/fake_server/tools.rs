//! The tools.

use serde_json::{Value, json};

use crate::{Server, answer, notify, refuse, tell, text, write};

impl Server {
    pub(crate) fn call(&mut self, message: &Value) {
        let params = &message["params"];
        match params["name"].as_str().unwrap_or_default() {
            "echo" => answer(message, text(params["arguments"]["message"].as_str().unwrap_or_default())),
            "heard" => answer(message, text(&json!(self.heard).to_string())),
            "hang" => {}
            "garbled" => write(&format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{oops"#, message["id"])),
            "noise" => {
                write("hello from print");
                write("{not json either");
                write("");
                answer(message, text("after the noise"));
            }
            "wrong_id" => {
                write(r#"{"jsonrpc":"2.0","id":"one","result":{}}"#);
                write(r#"{"jsonrpc":"2.0","id":123456,"result":{}}"#);
            }
            // As TypeScript writes it: the id comes last.
            "huge" => {
                let result = text(&"x".repeat(3 << 20));
                write(&format!(r#"{{"result":{result},"jsonrpc":"2.0","id":{}}}"#, message["id"]));
            }
            "big" => answer(message, text(&"x".repeat(100 << 10))),
            "deep" => {
                let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
                write(&format!(
                    r#"{{"jsonrpc":"2.0","id":{},"result":{{"content":{deep}}}}}"#,
                    message["id"]
                ));
            }
            "die" => {
                tell("about to fail");
                tell("division by zero");
                std::process::exit(7);
            }
            "close_output" => {
                // What is written from here on goes nowhere, and the process goes on.
                if let Ok(nothing) = std::fs::File::open("/dev/null") {
                    let _ = rustix::stdio::dup2_stdout(nothing);
                }
            }
            "late" | "late_error" => {
                progress(message, 1);
                self.late = Some(message.clone());
            }
            "ask_ping" => self.ask(message, "ping", json!({})),
            "ask_roots" => self.ask(message, "roots/list", json!({})),
            "ask_elicit" => {
                let schema = json!({"type": "object", "properties": {"colour": {"type": "string"}}});
                self.ask(
                    message,
                    "elicitation/create",
                    json!({"message": "Which?", "requestedSchema": schema}),
                );
            }
            "ask_sampling" => self.ask(message, "sampling/createMessage", json!({"messages": []})),
            "asks_twice" => asks_for_input(message, 2),
            "asks_for_ever" => asks_for_input(message, usize::MAX),
            "fail" => {
                let mut result = text("no zone `utc`; write `UTC`");
                result["isError"] = json!(true);
                answer(message, result);
            }
            "refuse" => refuse(message, -32602, "Unknown tool: refuse"),
            "misfit" => {
                let mut result = text("one");
                result["structuredContent"] = json!({"n": "one"});
                answer(message, result);
            }
            "flood" => loop {
                write("flooding");
            },
            "log_much" => {
                for entry in 0..1000 {
                    notify("notifications/message", json!({"level": "info", "data": entry}));
                }
                answer(message, text("logged"));
            }
            "rename" => {
                self.is_renamed = true;
                notify("notifications/tools/list_changed", json!({}));
                answer(message, text("renamed"));
            }
            name => refuse(message, -32602, &format!("Unknown tool: {name}")),
        }
    }

    /// Sends request 0, as SDKs do that count from there.
    fn ask(&mut self, message: &Value, method: &str, params: Value) {
        self.asking = Some(message.clone());
        write(&json!({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}).to_string());
    }

    /// The client answers request 0: what it says is the result of the call.
    pub(crate) fn told(&mut self, message: &Value) {
        if let Some(asking) = self.asking.take() {
            answer(&asking, text(&message.to_string()));
        }
    }

    /// Goes on after the cancellation, as servers do: progress, and an answer of one kind or the other.
    pub(crate) fn cancelled(&mut self, params: &Value) {
        let Some(late) = self.late.take_if(|late| late["id"] == params["requestId"]) else { return };
        progress(&late, 2);
        if late["params"]["name"] == "late" {
            answer(&late, text("too late"));
        } else {
            refuse(&late, 0, "Request cancelled");
        }
    }
}

fn progress(message: &Value, progress: u64) {
    let token = &message["params"]["_meta"]["progressToken"];
    notify("notifications/progress", json!({"progressToken": token, "progress": progress, "total": 2}));
}

/// Asks for more input until there were `times` answers.
fn asks_for_input(message: &Value, times: usize) {
    let params = &message["params"];
    let asked = params["requestState"].as_str().and_then(|state| state.parse().ok()).unwrap_or(0);
    if asked >= times {
        return answer(message, text(&params["inputResponses"].to_string()));
    }
    let question =
        json!({"method": "elicitation/create", "params": {"message": "Which?", "requestedSchema": {}}});
    answer(
        message,
        json!({"resultType": "input_required", "requestState": (asked + 1).to_string(),
               "inputRequests": {"colour": question}}),
    );
}
