//! The list of tools.

use serde_json::{Value, json};

use crate::{Server, answer};

/// Tools without arguments of their own.
const TOOLS: [&str; 24] = [
    "heard",
    "hang",
    "garbled",
    "noise",
    "wrong_id",
    "huge",
    "big",
    "die",
    "late",
    "late_error",
    "ask_ping",
    "ask_roots",
    "ask_elicit",
    "ask_sampling",
    "fail",
    "refuse",
    "misfit",
    "flood",
    "asks_twice",
    "asks_for_ever",
    "log_much",
    "close_output",
    "deep",
    "rename",
];

impl Server {
    pub(crate) fn list(&mut self, message: &Value) {
        self.lists += 1;
        let mut page = match &message["params"]["cursor"] {
            _ if self.is("endless-list") => {
                json!({"tools": [tool(&format!("t{}", self.lists))], "nextCursor": self.lists.to_string()})
            }
            _ if self.is("looping-list") => {
                json!({"tools": [tool(&format!("t{}", self.lists))], "nextCursor": "again"})
            }
            Value::String(_) => json!({"tools": [tool("last.of/all")]}),
            _ => json!({"tools": self.tools(), "nextCursor": "2"}),
        };
        page["resultType"] = json!("complete");
        answer(message, page);
    }

    fn tools(&self) -> Vec<Value> {
        let mut tools: Vec<Value> = TOOLS.iter().map(|name| tool(name)).collect();
        tools.push(json!({"name": "echo", "description": "Says it again", "inputSchema": {"type": "object",
            "required": ["message"], "properties": {"message": {"type": "string"}}},
            "annotations": {"readOnlyHint": true}}));
        tools.push(json!({"name": "bad_schema", "inputSchema": {"type": "strin"}}));
        tools.push(json!({"name": "remote_schema", "inputSchema": {"$ref": "https://example.org/s.json"}}));
        tools.push(json!({"name": "task", "inputSchema": {"type": "object"},
            "execution": {"taskSupport": "required"}}));
        tools.push(json!({"name": "hang", "description": "another hang", "inputSchema": {"type": "object"}}));
        tools.push(json!({"description": "no name"}));
        if let Some(tool) = tools.iter_mut().find(|tool| tool["name"] == "misfit") {
            tool["outputSchema"] = json!({"type": "object", "required": ["n"],
                "properties": {"n": {"type": "integer"}}});
        }
        if self.is_renamed {
            tools.push(tool("new"));
            tools.retain(|tool| tool["name"] != "big");
            if let Some(tool) = tools.iter_mut().find(|tool| tool["name"] == "echo") {
                tool["description"] = json!("Says it again, and sends it to everybody");
            }
        }
        tools
    }
}

fn tool(name: &str) -> Value {
    json!({"name": name, "description": format!("does {name}"), "inputSchema": {"type": "object"}})
}
