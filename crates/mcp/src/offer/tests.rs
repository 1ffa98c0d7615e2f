//! Requests of both generations and their answers, over an offer in memory.

use std::sync::Mutex;

use chrono::{DateTime, Utc};
use gathering_domain::{EffectClass, Pointer, Problems};
use serde_json::json;

use super::*;
use crate::PipeStop;

/// Offers one tool, whose calls become tasks where the client follows them.
struct Desk {
    state: Mutex<TaskState>,
}

impl Desk {
    fn new() -> Self {
        Self { state: Mutex::new(TaskState::Working) }
    }

    fn task(&self, id: &str) -> Result<OfferedTask, OfferError> {
        if id != "t1" {
            return Err(OfferError::NotFound(format!("there is no task `{id}`")));
        }
        let at: DateTime<Utc> = "2026-01-02T03:04:05Z".parse().unwrap();
        let state = self.state.lock().unwrap().clone();
        Ok(OfferedTask { id: id.to_owned(), state, message: None, created_at: at, updated_at: at })
    }
}

#[async_trait]
impl McpOffer for Desk {
    type Caller = ();

    async fn list_tools(&self, (): &(), cursor: Option<&str>) -> Result<OfferedToolPage, OfferError> {
        let tool = OfferedTool {
            name: if cursor.is_some() { "second" } else { "first" }.to_owned(),
            title: None,
            description: "Does it".to_owned(),
            input_schema: json!({"type": "object"}),
            class: EffectClass::Pure,
            may_be_task: true,
        };
        let next_cursor = cursor.is_none().then(|| "1".to_owned());
        Ok(OfferedToolPage { tools: vec![tool], next_cursor })
    }

    async fn call_tool(&self, (): &(), call: OfferedCall) -> Result<Called, OfferError> {
        match (call.tool.as_str(), call.may_be_task) {
            ("first", true) => Ok(Called::Task(self.task("t1")?)),
            ("first", false) => Ok(Called::Ended(OfferedResult::of(json!({"got": call.arguments})))),
            ("wrong", _) => Err(OfferError::Invalid(Problems::one(Pointer::root().join("n"), "is required"))),
            ("broken", _) => Err(OfferError::Internal("the secret cause".into())),
            (other, _) => Err(OfferError::NotFound(format!("Unknown tool: {other}"))),
        }
    }

    async fn find_task(&self, (): &(), task: &str) -> Result<OfferedTask, OfferError> {
        self.task(task)
    }

    async fn wait_for_task(&self, (): &(), task: &str) -> Result<OfferedTask, OfferError> {
        self.task(task)
    }

    async fn cancel_task(&self, (): &(), task: &str) -> Result<OfferedTask, OfferError> {
        *self.state.lock().unwrap() = TaskState::Cancelled;
        self.task(task)
    }

    async fn answer_task(
        &self,
        (): &(),
        task: &str,
        answers: Vec<TaskAnswer>,
    ) -> Result<OfferedTask, OfferError> {
        *self.state.lock().unwrap() = TaskState::Ended(OfferedResult::of(json!(format!("{answers:?}"))));
        self.task(task)
    }

    fn resource_templates(&self) -> Vec<ResourceTemplate> {
        vec![ResourceTemplate { uri_template: "x://{id}", name: "x", description: "An x", mime_type: None }]
    }

    async fn read_resource(&self, (): &(), uri: &str) -> Result<ResourceContent, OfferError> {
        match uri {
            "x://text" => Ok(ResourceContent { mime_type: "text/plain".to_owned(), bytes: b"hi".to_vec() }),
            "x://bytes" => Ok(ResourceContent { mime_type: "image/png".to_owned(), bytes: vec![0xff, 0] }),
            _ => Err(OfferError::NotFound("there is nothing".to_owned())),
        }
    }
}

/// The answer on a pipe to a request of this generation.
async fn ask(offer: &Desk, is_modern: bool, method: &str, mut params: Value) -> Value {
    if is_modern {
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN_VERSION);
    }
    let request = json!({"jsonrpc": "2.0", "id": 0, "method": method, "params": params});
    let reply = answer(offer, &(), request.to_string().as_bytes(), &McpHeaders::default()).await;
    let body = reply.body.unwrap();
    assert_eq!((&body["jsonrpc"], &body["id"]), (&json!("2.0"), &json!(0)));
    body
}

/// The answer to a body with these headers of HTTP: its status and the code of its error.
async fn refused(body: &Value, headers: McpHeaders<'_>) -> (u16, Value) {
    let headers = McpHeaders { is_http: true, ..headers };
    let reply = answer(&Desk::new(), &(), body.to_string().as_bytes(), &headers).await;
    (reply.status, reply.body.unwrap_or_default()["error"]["code"].clone())
}

#[tokio::test]
async fn a_handshake_gets_a_version_that_has_one() {
    for (asked, answered) in [
        ("2025-11-25", "2025-11-25"),
        ("2024-11-05", "2024-11-05"),
        // What Rust's client sends by default.
        ("2026-07-28", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
    ] {
        let reply = ask(&Desk::new(), false, "initialize", json!({"protocolVersion": asked})).await;
        assert_eq!(reply["result"]["protocolVersion"], answered);
        assert_eq!(reply["result"]["serverInfo"]["name"], "gathering");
    }
    let discovered = ask(&Desk::new(), true, "server/discover", json!({})).await;
    assert_eq!(discovered["result"]["supportedVersions"], json!([MODERN_VERSION]));
    assert_eq!(discovered["result"]["resultType"], "complete");
}

#[tokio::test]
async fn each_generation_has_its_own_methods() {
    for (method, is_modern) in [
        ("initialize", true),
        ("ping", true),
        ("tasks/result", true),
        ("server/discover", false),
        ("tasks/update", false),
        ("prompts/list", false),
        ("prompts/list", true),
        ("prompts/get", true),
        ("subscriptions/listen", true),
        ("resources/subscribe", false),
        ("completion/complete", false),
    ] {
        let reply = ask(&Desk::new(), is_modern, method, json!({})).await;
        assert_eq!(reply["error"]["code"], -32601, "{method}");
    }
    assert_eq!(ask(&Desk::new(), false, "ping", json!({})).await["result"], json!({}));
}

#[tokio::test]
async fn lists_say_how_long_they_hold_only_where_that_is_expected() {
    for is_modern in [false, true] {
        let first = ask(&Desk::new(), is_modern, "tools/list", json!({})).await["result"].clone();
        assert_eq!((&first["tools"][0]["name"], &first["nextCursor"]), (&json!("first"), &json!("1")));
        assert_eq!(first.get("ttlMs").is_some(), is_modern);
        assert_eq!(first.get("resultType").is_some(), is_modern);
        assert_eq!(first["tools"][0].get("execution").is_some(), !is_modern);
        let second =
            ask(&Desk::new(), is_modern, "tools/list", json!({"cursor": "1"})).await["result"].clone();
        assert_eq!((&second["tools"][0]["name"], second.get("nextCursor")), (&json!("second"), None));
    }
}

#[tokio::test]
async fn a_call_is_answered_as_text_and_as_what_it_is() {
    let call = json!({"name": "first", "arguments": {"n": 1}});
    let result = ask(&Desk::new(), false, "tools/call", call).await["result"].clone();
    assert_eq!(result["structuredContent"], json!({"got": {"n": 1}}));
    assert_eq!(result["content"], json!([{"type": "text", "text": r#"{"got":{"n":1}}"#}]));
    assert_eq!(result["isError"], false);
}

#[tokio::test]
async fn a_model_reads_what_it_did_wrong_and_nobody_reads_a_cause() {
    let call = |name: &str| json!({"name": name, "arguments": {}});
    let wrong = ask(&Desk::new(), false, "tools/call", call("wrong")).await;
    assert_eq!(wrong["result"]["isError"], true);
    assert_eq!(wrong["result"]["content"][0]["text"], "invalid arguments: /n: is required");
    let unknown = ask(&Desk::new(), true, "tools/call", call("fly")).await;
    assert_eq!(
        (&unknown["error"]["code"], &unknown["error"]["message"]),
        (&json!(-32602), &json!("Unknown tool: fly"))
    );
    let broken = ask(&Desk::new(), true, "tools/call", call("broken")).await;
    assert_eq!(
        (&broken["error"]["code"], &broken["error"]["message"]),
        (&json!(-32603), &json!("internal error"))
    );
    let list = ask(&Desk::new(), false, "tools/call", json!({"name": "first", "arguments": [1]})).await;
    assert_eq!(list["error"]["code"], -32602);
    let nameless = ask(&Desk::new(), false, "tools/call", json!({})).await;
    assert_eq!(nameless["error"]["code"], -32602);
}

#[tokio::test]
async fn a_task_is_followed_cancelled_and_answered_since_2026() {
    let desk = Desk::new();
    let capabilities =
        json!({"io.modelcontextprotocol/clientCapabilities": {"extensions": {tasks::EXTENSION: {}}}});
    let call = json!({"name": "first", "arguments": {}, "_meta": capabilities});
    let created = ask(&desk, true, "tools/call", call).await["result"].clone();
    assert_eq!((&created["resultType"], &created["taskId"]), (&json!("task"), &json!("t1")));
    assert_eq!((&created["status"], &created["ttlMs"]), (&json!("working"), &Value::Null));
    assert_eq!(created["createdAt"], "2026-01-02T03:04:05.000Z");

    let question = TaskQuestion { key: "pay".to_owned(), message: "Pay?".to_owned() };
    *desk.state.lock().unwrap() = TaskState::InputRequired(vec![question]);
    let asked = ask(&desk, true, "tasks/get", json!({"taskId": "t1"})).await["result"].clone();
    assert_eq!(asked["status"], "input_required");
    assert_eq!(asked["inputRequests"]["pay"]["params"]["message"], "Pay?");
    for responses in
        [json!({"pay": {"action": "accept"}}), json!({"pay": {"content": {"approve": true}}}), json!([])]
    {
        let update = json!({"taskId": "t1", "inputResponses": responses});
        assert_eq!(ask(&desk, true, "tasks/update", update).await["error"]["code"], -32602, "{responses}");
    }
    let responses = json!({
        "pay": {"action": "accept", "content": {"approve": true, "comment": "fine"}},
        "send": {"result": {"action": "decline"}},
        "later": {"action": "cancel"},
    });
    ask(&desk, true, "tasks/update", json!({"taskId": "t1", "inputResponses": responses})).await;
    let ended = ask(&desk, true, "tasks/get", json!({"taskId": "t1"})).await["result"].clone();
    assert_eq!((&ended["status"], &ended["result"]["resultType"]), (&json!("completed"), &json!("complete")));
    let answers = ended["result"]["content"][0]["text"].as_str().unwrap();
    assert!(answers.contains(r#"key: "pay", approve: true, comment: Some("fine")"#), "{answers}");
    assert!(answers.contains(r#"key: "send", approve: false"#) && !answers.contains("later"), "{answers}");

    ask(&desk, true, "tasks/cancel", json!({"taskId": "t1"})).await;
    let cancelled = ask(&desk, true, "tasks/get", json!({"taskId": "t1"})).await;
    assert_eq!(cancelled["result"]["status"], "cancelled");
    let absent = ask(&desk, true, "tasks/get", json!({"taskId": "t2"})).await;
    assert_eq!(absent["error"]["code"], -32602);
}

#[tokio::test]
async fn a_task_is_followed_by_older_clients_in_their_form() {
    let desk = Desk::new();
    let call = json!({"name": "first", "task": {"ttl": 60_000}});
    let created = ask(&desk, false, "tools/call", call).await["result"].clone();
    assert_eq!((&created["task"]["taskId"], &created["task"]["ttl"]), (&json!("t1"), &Value::Null));
    let going_on = ask(&desk, false, "tasks/result", json!({"taskId": "t1"})).await;
    assert_eq!(going_on["error"]["code"], -32603);
    *desk.state.lock().unwrap() = TaskState::Ended(OfferedResult::failed("it failed"));
    let result = ask(&desk, false, "tasks/result", json!({"taskId": "t1"})).await["result"].clone();
    assert_eq!((&result["isError"], &result["content"][0]["text"]), (&json!(true), &json!("it failed")));
    assert_eq!(result["_meta"]["io.modelcontextprotocol/related-task"]["taskId"], "t1");
}

#[tokio::test]
async fn resources_are_read_as_text_or_as_bytes() {
    let read =
        async |is_modern, uri| ask(&Desk::new(), is_modern, "resources/read", json!({"uri": uri})).await;
    assert_eq!(read(false, "x://text").await["result"]["contents"][0]["text"], "hi");
    assert_eq!(read(true, "x://bytes").await["result"]["contents"][0]["blob"], "/wA=");
    assert_eq!(read(false, "x://none").await["error"]["code"], -32002);
    assert_eq!(read(true, "x://none").await["error"]["code"], -32602);
    let templates = ask(&Desk::new(), true, "resources/templates/list", json!({})).await;
    assert_eq!(templates["result"]["resourceTemplates"][0]["uriTemplate"], "x://{id}");
}

#[tokio::test]
async fn headers_must_say_what_the_body_says() {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": MODERN_VERSION});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "first", "_meta": meta}});
    let right = McpHeaders {
        protocol_version: Some(MODERN_VERSION),
        method: Some("tools/call"),
        name: Some("first"),
        ..McpHeaders::default()
    };
    assert_eq!(refused(&call, right).await, (200, Value::Null));
    // As a name is sent that is no plain text, though this one is.
    let encoded = McpHeaders { name: Some("=?base64?Zmlyc3Q=?="), ..right };
    assert_eq!(refused(&call, encoded).await, (200, Value::Null));
    for wrong in [
        McpHeaders { protocol_version: None, ..right },
        McpHeaders { protocol_version: Some("2025-11-25"), ..right },
        McpHeaders { method: None, ..right },
        McpHeaders { method: Some("tools/list"), ..right },
        McpHeaders { name: None, ..right },
        McpHeaders { name: Some("second"), ..right },
        McpHeaders { name: Some("=?base64?c2Vjb25k?="), ..right },
        McpHeaders { name: Some("=?base64?first?="), ..right },
    ] {
        assert_eq!(refused(&call, wrong).await, (400, json!(-32020)), "{wrong:?}");
    }
    let plain = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let none = McpHeaders::default();
    let header = |version| McpHeaders { protocol_version: Some(version), ..none };
    assert_eq!(refused(&plain, header("2025-06-18")).await, (200, Value::Null));
    assert_eq!(refused(&plain, header(MODERN_VERSION)).await, (400, json!(-32602)), "without _meta");
    assert_eq!(refused(&plain, header("1999-01-01")).await, (400, json!(-32022)));
    assert_eq!(refused(&plain, McpHeaders { session: Some("x"), ..none }).await, (404, json!(-32600)));
    let unknown = json!({"jsonrpc": "2.0", "id": 1, "method": "fly", "params": {"_meta": meta}});
    assert_eq!(refused(&unknown, McpHeaders { method: Some("fly"), ..right }).await, (404, json!(-32601)));
    let other = json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2027-01-01"}});
    let other = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": other});
    assert_eq!(refused(&other, none).await, (400, json!(-32022)));
}

#[tokio::test]
async fn what_is_no_request_is_refused_or_passed_over() {
    for (body, status, code) in [
        ("", 400, -32700),
        ("{", 400, -32700),
        ("[]", 400, -32600),
        ("1", 400, -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, 400, -32600),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, 400, -32600),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, 400, -32600),
        (r#"{"id":1,"method":"ping"}"#, 400, -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, 400, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, 400, -32602),
    ] {
        let reply = answer(&Desk::new(), &(), body.as_bytes(), &McpHeaders::default()).await;
        assert_eq!((reply.status, &reply.body.unwrap()["error"]["code"]), (status, &json!(code)), "{body}");
    }
    for body in [
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","id":7,"result":{}}"#,
    ] {
        let reply = answer(&Desk::new(), &(), body.as_bytes(), &McpHeaders::default()).await;
        assert_eq!(reply, McpReply { status: 202, body: None }, "{body}");
    }
}

#[tokio::test]
async fn lines_are_answered_until_the_pipe_is_closed() {
    let input = "\n{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"ping\"}\nno JSON\n{\"jsonrpc\":\"2.0\",\"id\":\"b\",\"method\":\"tools/list\"}";
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    serve_lines(&Desk::new(), &(), input.as_bytes(), ours, &PipeStop::default()).await.unwrap();
    let mut output = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut theirs, &mut output).await.unwrap();
    let mut ids: Vec<String> =
        output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].to_string()).collect();
    ids.sort();
    assert_eq!(ids, ["\"b\"", "0", "null"]);
}
