//! The toolbox and the tools in it, against real files and a real server.

use crate::support::{Server, answer};
use async_trait::async_trait;
use gathering_tools::{
    BlockingPool, BlockingTool, EffectClass, Mailer, NotificationChannels, Outbound, OutboundPolicy,
    RegisterToolError, SignedWebhook, SmtpSettings, SmtpTls, Tool, ToolContext, ToolError, ToolSetup,
    ToolSource, ToolSpec, Toolbox, Workspace, verify_webhook,
};
use serde_json::{Value, json};

fn toolbox() -> Toolbox {
    let policy = OutboundPolicy::allowing(["127.0.0.0/8".parse().unwrap()]);
    Toolbox::with_builtin(&Outbound::new(policy).unwrap(), BlockingPool::new(2)).unwrap()
}

async fn in_workspace() -> (tempfile::TempDir, ToolContext) {
    let directory = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(directory.path(), BlockingPool::new(2)).await.unwrap();
    (directory, ToolContext::new().with_workspace(workspace))
}

fn pointers(error: &ToolError) -> Vec<&str> {
    match error {
        ToolError::InvalidParameters(problems) => {
            problems.iter().map(|problem| problem.pointer.as_str()).collect()
        }
        other => panic!("{other:?}"),
    }
}

struct Counting {
    spec: ToolSpec,
    calls: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Counting {
    fn new(name: &str, parameters: Value) -> Self {
        let spec = ToolSpec {
            name: name.to_owned(),
            description: String::new(),
            parameters,
            class: EffectClass::Unsafe,
            source: ToolSource::Mcp("test".to_owned()),
        };
        Self { spec, calls: std::sync::Arc::default() }
    }
}

#[async_trait]
impl Tool for Counting {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, _params: Value, _context: &ToolContext) -> Result<Value, ToolError> {
        Ok(json!(self.calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1))
    }
}

impl BlockingTool for Counting {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn call(&self, params: Value, _context: &ToolContext) -> Result<Value, ToolError> {
        assert!(params["panic"].is_null(), "asked to");
        Ok(json!(std::thread::current().name()))
    }
}

#[tokio::test]
async fn every_bad_parameter_is_reported_and_nothing_is_executed() {
    let mut tools = Toolbox::new(BlockingPool::new(1));
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["a"],
        "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "integer"}}}
    });
    let tool = Counting::new("count", schema);
    let calls = std::sync::Arc::clone(&tool.calls);
    tools.register(tool).unwrap();
    let bad = json!({"b": [1, "x", 2.5], "c": 1});
    let error = tools.call("count", bad.clone(), &ToolContext::new()).await.unwrap_err();
    assert_eq!(pointers(&error), ["/a", "/b/1", "/b/2", "/c"]);
    assert_eq!((error.kind().as_str(), error.is_retryable()), ("invalid_parameters", false));
    assert_eq!(tools.validate("count", &bad).unwrap_err().iter().count(), 4);
    assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert_eq!(tools.call("count", json!({"a": "x"}), &ToolContext::new()).await.unwrap(), json!(1));
}

#[tokio::test]
async fn names_are_unique_and_sorted_and_a_selection_has_only_its_own() {
    let mut tools = toolbox();
    let listed: Vec<&str> = tools.list().map(|spec| spec.name.as_str()).collect();
    let expected = [
        "edit_file",
        "http_request",
        "list_files",
        "now",
        "read_file",
        "read_table",
        "search_files",
        "send_notification",
        "wait",
        "write_file",
    ];
    assert_eq!(listed, expected);
    let again = tools.register(Counting::new("read_file", json!({})));
    assert!(matches!(again, Err(RegisterToolError::NameTaken(_))), "{again:?}");
    let odd = tools.register(Counting::new("a b", json!({})));
    assert!(matches!(odd, Err(RegisterToolError::InvalidName(_))), "{odd:?}");
    let schema = tools.register(Counting::new("c", json!({"type": 1})));
    assert!(matches!(schema, Err(RegisterToolError::InvalidSchema { .. })), "{schema:?}");
    let few = tools.select(["read_file"]).unwrap();
    assert!(few.get("write_file").is_none() && few.get("read_file").is_some());
    let error = few.call("write_file", json!({}), &ToolContext::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "unknown tool `write_file`; known tools: read_file");
    assert!(tools.select(["nothing"]).is_err());
}

#[tokio::test]
async fn every_builtin_tool_rejects_unknown_parameters() {
    let tools = toolbox();
    for spec in tools.list() {
        let problems = tools.validate(&spec.name, &json!({"surprise": 1})).unwrap_err();
        assert!(problems.iter().any(|problem| problem.pointer.as_str() == "/surprise"), "{}", spec.name);
        assert!(!spec.description.is_empty());
        assert_eq!(spec.source.to_string(), "builtin");
    }
}

#[tokio::test]
async fn a_blocking_tool_runs_off_the_runtime_and_its_panic_is_an_error() {
    let mut tools = Toolbox::new(BlockingPool::new(1));
    tools.register_blocking(Counting::new("slow", json!({"type": "object"}))).unwrap();
    let here = json!(std::thread::current().name());
    assert_ne!(tools.call("slow", json!({}), &ToolContext::new()).await.unwrap(), here);
    let error = tools.call("slow", json!({"panic": true}), &ToolContext::new()).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.is_retryable()), ("panicked", false));
}

#[tokio::test]
async fn files_are_written_read_and_listed() {
    let tools = toolbox();
    let (_directory, context) = in_workspace().await;
    let written =
        tools.call("write_file", json!({"path": "r/a.md", "content": "# A"}), &context).await.unwrap();
    let version = &written["version"];
    assert_eq!(written, json!({"path": "r/a.md", "size": 3, "created": true, "version": version}));
    let read = tools.call("read_file", json!({"path": "./r/a.md"}), &context).await.unwrap();
    let expected =
        json!({"path": "r/a.md", "content": "# A", "encoding": "utf-8", "size": 3, "version": version});
    assert_eq!(read, expected);
    let binary = json!({"path": "b", "content": "/wA=", "encoding": "base64"});
    tools.call("write_file", binary, &context).await.unwrap();
    let read = tools.call("read_file", json!({"path": "b"}), &context).await.unwrap();
    assert_eq!((&read["content"], &read["encoding"]), (&json!("/wA="), &json!("base64")));
    let listed = json!({"recursive": true, "pattern": "*.md"});
    let listed = tools.call("list_files", listed, &context).await.unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!((&listed["items"][0]["path"], &listed["items"][0]["size"]), (&json!("r/a.md"), &json!(3)));
    let error =
        tools.call("write_file", json!({"path": "b", "content": "!", "encoding": "base64"}), &context).await;
    assert_eq!(pointers(&error.unwrap_err()), ["/content"]);
}

#[tokio::test]
async fn a_path_outside_is_forbidden_and_reveals_nothing() {
    let tools = toolbox();
    let (_directory, context) = in_workspace().await;
    for path in ["../x", "/etc/passwd", "a/%2e%2e/%2e%2e/x", "..\\x", "a\0"] {
        let calls = [
            ("read_file", json!({"path": path})),
            ("write_file", json!({"path": path, "content": "x"})),
            ("list_files", json!({"path": path})),
        ];
        for (tool, params) in calls {
            let error = tools.call(tool, params, &context).await.unwrap_err();
            assert_eq!((error.kind().as_str(), error.is_retryable()), ("forbidden", false), "{tool} {path}");
            assert_eq!(error.to_string(), "the path is outside of the workspace");
        }
    }
    let error = tools.call("read_file", json!({"path": "x"}), &ToolContext::new()).await.unwrap_err();
    assert_eq!(error.kind().as_str(), "no_workspace");
    let error = tools.call("read_file", json!({"path": "x"}), &context).await.unwrap_err();
    assert_eq!(error.kind().as_str(), "not_found");
}

#[tokio::test]
async fn http_request_sends_its_parameters_and_returns_values() {
    let server = Server::start(|request| match request.contains("/json") {
        true => answer(
            "201 Created",
            &[("Content-Type", "application/json"), ("X-A", "1"), ("X-A", "2")],
            "{\"n\": 1}",
        ),
        false => answer("404 Not Found", &[("content-type", "application/json")], "no json"),
    })
    .await;
    let tools = toolbox();
    let context = ToolContext::new().with_idempotency_key("run/node");
    let params =
        json!({"method": "POST", "url": server.url("/json"), "headers": {"X-Key": "v"}, "body": {"a": [1]}});
    let created = tools.call("http_request", params, &context).await.unwrap();
    assert_eq!((&created["status"], &created["body"]), (&json!(201), &json!({"n": 1})));
    assert_eq!(created["headers"]["x-a"], json!("1, 2"));
    let missing = tools.call("http_request", json!({"url": server.url("/")}), &context).await.unwrap();
    assert_eq!((&missing["status"], &missing["body"]), (&json!(404), &json!("no json")));
    let sent = server.asked().remove(0);
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /json "), "{head}");
    for line in ["x-key: v", "idempotency-key: run/node", "content-type: application/json"] {
        assert!(head.lines().any(|found| found.eq_ignore_ascii_case(line)), "{line} in {head}");
    }
    assert_eq!(body, "{\"a\":[1]}");
}

#[tokio::test]
async fn the_effect_class_of_a_request_follows_its_method() {
    let tools = toolbox();
    for (params, class) in [
        (json!({"url": "x"}), EffectClass::Pure),
        (json!({"url": "x", "method": "PUT"}), EffectClass::Idempotent),
        (json!({"url": "x", "method": "POST"}), EffectClass::Unsafe),
        (json!({"url": "x", "method": 1}), EffectClass::Unsafe),
    ] {
        assert_eq!(tools.class_of("http_request", &params).unwrap(), class, "{params}");
    }
}

#[tokio::test]
async fn a_notification_is_delivered_only_with_a_success_status() {
    let server = Server::start(|request| match request {
        r if r.contains("/busy") => answer("503 Service Unavailable", &[], ""),
        r if r.contains("/gone") => answer("410 Gone", &[], ""),
        _ => answer("202 Accepted", &[], "ok"),
    })
    .await;
    let tools = toolbox();
    let send = async |path: &str, rest: Value| {
        let mut params = json!({"channel": "webhook", "url": server.url(path)});
        params.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        tools.call("send_notification", params, &ToolContext::new().with_idempotency_key("k")).await
    };
    let sent = send("/hook", json!({"message": "done", "payload": {"run": 7}})).await.unwrap();
    assert_eq!(sent, json!({"delivered": true, "status": 202}));
    assert!(server.asked()[0].ends_with("{\"run\":7,\"message\":\"done\"}"), "{:?}", server.asked());
    assert!(server.asked()[0].to_lowercase().contains("idempotency-key: k\r\n"));
    let busy = send("/busy", json!({"message": ""})).await.unwrap_err();
    assert_eq!((busy.kind().as_str(), busy.is_retryable()), ("http", true));
    let gone = send("/gone", json!({"message": ""})).await.unwrap_err();
    assert_eq!((gone.kind().as_str(), gone.is_retryable()), ("http", false));
    let nothing = send("/hook", json!({})).await.unwrap_err();
    assert_eq!(pointers(&nothing), ["/message"]);
}

const KEYS: &str = "shop = whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
                    shop = whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH";

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let lines = request.lines().filter_map(|line| line.split_once(": "));
    lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

#[tokio::test]
async fn a_webhook_is_signed_with_each_key_of_its_name() {
    let server = Server::start(|_| answer("200 OK", &[], "")).await;
    let policy = OutboundPolicy::allowing(["127.0.0.0/8".parse().unwrap()]);
    let channels =
        NotificationChannels { webhook_keys: KEYS.parse().unwrap(), ..NotificationChannels::default() };
    let pool = BlockingPool::new(1);
    let setup = ToolSetup { notifications: channels.clone(), ..ToolSetup::default() };
    let tools = Toolbox::with_setup(&Outbound::new(policy).unwrap(), setup, pool).unwrap();
    let context = ToolContext::new().with_idempotency_key("run/node");
    let mut params =
        json!({"channel": "webhook", "url": server.url("/"), "message": "größer", "sign_with": "shop"});
    tools.call("send_notification", params.clone(), &context).await.unwrap();
    let asked = server.asked().remove(0);
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    let field = |name| header(head, name).unwrap();
    let message = SignedWebhook {
        id: field("webhook-id"),
        timestamp: field("webhook-timestamp"),
        signature: field("webhook-signature"),
        body: body.as_bytes(),
    };
    assert_eq!((message.id, message.signature.split(' ').count()), ("run/node", 2));
    let now = message.timestamp.parse().unwrap();
    for key in channels.webhook_keys.find("shop").unwrap() {
        verify_webhook(std::slice::from_ref(key), &message, now, std::time::Duration::ZERO).unwrap();
    }
    params["sign_with"] = json!("shops");
    let unknown = tools.call("send_notification", params.clone(), &context).await.unwrap_err();
    assert_eq!((unknown.kind().as_str(), unknown.is_retryable()), ("not_configured", false));
    assert!(unknown.to_string().contains("`shops`") && !unknown.may_have_taken_place(), "{unknown}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_webhook_without_a_key_has_an_id_and_a_time() {
    let server = Server::start(|_| answer("200 OK", &[], "")).await;
    let tools = toolbox();
    let params = json!({"channel": "webhook", "url": server.url("/"), "message": "x"});
    for context in [ToolContext::new().with_idempotency_key("k"), ToolContext::new(), ToolContext::new()] {
        tools.call("send_notification", params.clone(), &context).await.unwrap();
    }
    let asked = server.asked();
    let ids: Vec<&str> = asked.iter().map(|request| header(request, "webhook-id").unwrap()).collect();
    assert_eq!(ids[0], "k");
    assert!(ids[1].starts_with("msg_") && ids[1] != ids[2], "{ids:?}");
    for request in &asked {
        header(request, "webhook-timestamp").unwrap().parse::<i64>().unwrap();
        assert_eq!(header(request, "webhook-signature"), None);
    }
}

#[test]
fn a_notification_has_the_fields_of_its_channel() {
    let tools = toolbox();
    let places = |params: Value| match tools.check("send_notification", &params) {
        Ok(()) => Vec::new(),
        Err(error) => pointers(&error).into_iter().map(str::to_owned).collect(),
    };
    assert_eq!(places(json!({})), ["/channel"]);
    assert_eq!(places(json!({"channel": "pigeon"})), ["/channel"]);
    assert_eq!(places(json!({"channel": "webhook"})), ["/message", "/url"]);
    assert_eq!(places(json!({"channel": "email"})), ["/message", "/subject", "/to"]);
    let email = json!({
        "channel": "email", "to": ["a@example.org", "b\nc@example.org", 7], "cc": "nobody", "bcc": {}, "reply_to": "@",
        "subject": "a\rb", "message": "m", "html": 1, "attachments": ["../x", "out/y"], "url": "https://example.org/"
    });
    let expected =
        ["/attachments/0", "/bcc", "/cc", "/html", "/reply_to", "/subject", "/to/1", "/to/2", "/url"];
    assert_eq!(places(email), expected);
    let webhook =
        json!({"channel": "webhook", "url": "https://example.org/", "message": "m", "to": "a@example.org"});
    assert_eq!(places(webhook), ["/to"]);
    let right = json!({"channel": "email", "to": "a@example.org", "cc": [], "subject": "s", "message": "m"});
    assert!(places(right).is_empty());
}

#[test]
fn a_webhook_may_be_repeated_and_an_e_mail_may_not() {
    let tools = toolbox();
    for (channel, class) in [("webhook", EffectClass::Idempotent), ("email", EffectClass::Unsafe)] {
        assert_eq!(tools.class_of("send_notification", &json!({"channel": channel})).unwrap(), class);
    }
}

#[tokio::test]
async fn an_e_mail_whose_file_is_missing_is_not_sent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = SmtpSettings {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
        tls: SmtpTls::None,
        login: None,
        from: "gathering@example.org".parse().unwrap(),
        timeout: std::time::Duration::from_secs(1),
        extra_ca_pem: Vec::new(),
    };
    let channels =
        NotificationChannels { mailer: Mailer::new(settings).ok(), ..NotificationChannels::default() };
    let outbound = Outbound::new(OutboundPolicy::public_only()).unwrap();
    let setup = ToolSetup { notifications: channels, ..ToolSetup::default() };
    let tools = Toolbox::with_setup(&outbound, setup, BlockingPool::new(1)).unwrap();
    let (directory, context) = in_workspace().await;
    std::fs::write(directory.path().join("large"), vec![0; 16 * 1024 * 1024]).unwrap();
    std::fs::write(directory.path().join("small"), [0]).unwrap();
    for (files, kind) in [
        (json!(["small", "missing"]), "not_found"),
        (json!(["large", "small"]), "too_large"),
        (json!("."), "invalid_parameters"),
    ] {
        let params = json!({"channel": "email", "to": "a@example.org", "subject": "s", "message": "m", "attachments": files});
        let error = tools.call("send_notification", params, &context).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.may_have_taken_place()), (kind, false), "{error}");
    }
}

#[tokio::test]
async fn a_notification_with_a_bad_field_is_not_sent() {
    let tools = toolbox();
    let params = json!({
        "channel": "webhook", "url": "ftp://h/", "payload": {}, "sign_with": "",
        "headers": {"WEBHOOK-Signature": "v1,AAAA", "a b": "c", "ok": "d\r\ne: f"}
    });
    let refused = tools.call("send_notification", params, &ToolContext::new()).await.unwrap_err();
    let places = ["/headers/WEBHOOK-Signature", "/headers/a b", "/headers/ok", "/sign_with", "/url"];
    assert_eq!(pointers(&refused), places);
}
