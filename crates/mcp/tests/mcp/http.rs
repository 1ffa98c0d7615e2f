//! Servers over HTTP: sessions, streams, tokens and refusals.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gathering_domain::Secret;
use gathering_mcp::{
    McpAuth, McpError, McpNoticeKind, McpServer, McpServerConfig, McpServices, McpTransport,
};
use gathering_tools::{Outbound, OutboundPolicy};
use serde_json::{Value, json};

use crate::http_server::{HttpServer, Reply, Request, events, json_reply, refusal, result, with_header};
use crate::support::{http, mount, services, wait_until};

/// A server of 2025-11-25 whose session is called `s1`, and whose tool `echo` is answered by `call`.
fn older(request: &Request, call: impl Fn(&Request) -> Reply) -> Reply {
    match (request.method.as_str(), request.asks().as_str()) {
        ("POST", "server/discover") => {
            let refused = refusal(400, -32000, "Bad Request: Server not initialized");
            with_header(refused, "mcp-session-id", "dead")
        }
        ("POST", "initialize") => {
            let capabilities = json!({"tools": {"listChanged": true}});
            let about = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities,
                               "serverInfo": {"name": "older", "version": "1"}});
            with_header(result(request, about), "mcp-session-id", "s1")
        }
        ("POST", "tools/list") => result(request, json!({"tools": [echo()]})),
        ("POST", "tools/call") => call(request),
        ("POST", _) => Reply::Whole(202, Vec::new(), String::new()),
        _ => refusal(405, -32000, "Method not allowed."),
    }
}

fn modern(request: &Request, call: impl Fn(&Request) -> Reply) -> Reply {
    match request.asks().as_str() {
        "server/discover" => result(
            request,
            json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
                   "capabilities": {"tools": {}}}),
        ),
        "tools/list" => result(request, json!({"resultType": "complete", "tools": [echo()]})),
        "tools/call" => call(request),
        _ => refusal(404, -32601, "Method not found"),
    }
}

fn echo() -> Value {
    json!({"name": "echo", "inputSchema": {"type": "object"}})
}

fn said(request: &Request) -> Reply {
    result(request, text(&request.message()))
}

fn text(message: &Value) -> Value {
    let said = message["params"]["arguments"]["message"].as_str().unwrap_or("nothing");
    json!({"resultType": "complete", "content": [{"type": "text", "text": said}]})
}

async fn call(server: &McpServer) -> Result<String, McpError> {
    server.call("echo", json!({"message": "hi"})).await.map(|result| result.text())
}

#[tokio::test]
async fn an_older_server_is_spoken_to_in_the_session_of_its_handshake() {
    let remote = HttpServer::start(|request| older(request, said)).await;
    let server = mount(http(&remote.url));
    assert_eq!(call(&server).await.unwrap(), "hi");
    let handshake = &remote.heard("initialize")[0];
    assert_eq!(handshake.header("mcp-session-id"), None, "a refusal gives no session");
    let called = &remote.heard("tools/call")[0];
    assert_eq!(called.header("mcp-session-id"), Some("s1"));
    assert_eq!(called.header("mcp-protocol-version"), Some("2025-11-25"));
    assert_eq!(called.header("accept"), Some("application/json, text/event-stream"));
    server.stop().await;
    assert_eq!(remote.requests("DELETE")[0].header("mcp-session-id"), Some("s1"));
}

#[tokio::test]
async fn a_modern_server_is_told_the_message_in_headers() {
    let remote = HttpServer::start(|request| modern(request, said)).await;
    let server = mount(http(&remote.url));
    assert_eq!(call(&server).await.unwrap(), "hi");
    let called = &remote.heard("tools/call")[0];
    assert_eq!(called.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!((called.header("mcp-method"), called.header("mcp-name")), (Some("tools/call"), Some("echo")));
    assert_eq!(called.header("mcp-session-id"), None);
    assert!(remote.heard("initialize").is_empty());
    server.stop().await;
    assert!(remote.requests("DELETE").is_empty());
}

#[tokio::test]
async fn a_stream_is_read_past_all_that_is_not_the_answer() {
    let remote = HttpServer::start(|request| {
        older(request, |request| {
            let id = &request.message()["id"];
            let token = &request.message()["params"]["_meta"]["progressToken"];
            let ask = json!({"jsonrpc": "2.0", "id": 0, "method": "ping"});
            let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress",
                                  "params": {"progressToken": token, "progress": 1}});
            let other = json!({"jsonrpc": "2.0", "id": 4711, "result": {}});
            let answer = json!({"jsonrpc": "2.0", "id": id, "result": text(&request.message())});
            let lines: String = [ask, progress, other, answer]
                .iter()
                .map(|message| format!("event: message\r\ndata: {message}\r\n\r\n"))
                .collect();
            events(&format!("id: 1\r\ndata:\r\n\r\n: still here\r\n\r\ndata: no json\r\n\r\n{lines}"))
        })
    })
    .await;
    let services = services();
    let notices = services.notices.clone();
    let server = McpServer::mount(http(&remote.url), services).unwrap();
    assert_eq!(call(&server).await.unwrap(), "hi");
    let mut kinds = std::iter::from_fn(|| notices.try_next()).map(|notice| notice.kind);
    assert!(kinds.any(|kind| matches!(kind, McpNoticeKind::Progress { .. })));
    server.stop().await;
}

#[tokio::test]
async fn a_request_in_a_stream_is_answered() {
    let remote = HttpServer::start(|request| {
        older(request, |_| {
            let ask = json!({"jsonrpc": "2.0", "id": 0, "method": "roots/list"});
            Reply::Open(format!("data: {ask}\n\n"))
        })
    })
    .await;
    let server = mount(http(&remote.url));
    server.ready().await.unwrap();
    let answered = async || {
        let answers = remote.heard("").into_iter().map(|request| request.message());
        answers.into_iter().any(|message| message["id"] == 0 && message["error"]["code"] == -32601)
    };
    tokio::select! {
        called = call(&server) => panic!("it ended: {called:?}"),
        () = wait_until("the request is answered", answered) => {}
    }
    server.stop().await;
}

#[tokio::test]
async fn a_stream_that_ends_before_the_answer_is_read_on_where_the_server_says() {
    let asked = Arc::new(Mutex::new(Value::Null));
    let remote = HttpServer::start(move |request| match request.header("last-event-id") {
        Some("e1") => events("id: e2\ndata:\n\n"),
        Some("e2") => {
            let message = asked.lock().unwrap().clone();
            let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": text(&message)});
            events(&format!("data: {answer}\n\n"))
        }
        _ => older(request, |request| {
            *asked.lock().unwrap() = request.message();
            events("id: e1\nretry: 20\ndata:\n\n")
        }),
    })
    .await;
    let server = mount(http(&remote.url));
    assert_eq!(call(&server).await.unwrap(), "hi");
    assert_eq!(remote.heard("tools/call").len(), 1, "the call itself is not repeated");
    server.stop().await;
}

#[tokio::test]
async fn a_lost_session_is_replaced_and_the_call_is_sent_again_once() {
    for (status, words) in [(404, "Session not found"), (400, "Bad Request: No valid session ID provided")] {
        let n_calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&n_calls);
        let remote = HttpServer::start(move |request| {
            older(request, |request| match counted.fetch_add(1, Ordering::Relaxed) {
                0 | 2.. => refusal(status, -32600, words),
                1 => said(request),
            })
        })
        .await;
        let server = mount(http(&remote.url));
        assert_eq!(call(&server).await.unwrap(), "hi");
        assert_eq!((n_calls.load(Ordering::Relaxed), remote.heard("initialize").len()), (2, 2));
        let error = call(&server).await.unwrap_err();
        assert!(matches!(error, McpError::SessionLost | McpError::NotReady { .. }), "{error}");
        assert!(!error.may_have_taken_place());
        assert_eq!(n_calls.load(Ordering::Relaxed), 4, "one repeat, not more");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_refusal_keeps_the_session_and_says_what_is_wrong() {
    let unknown = |_: &Request| refusal(404, -32601, "Method not found");
    let remote = HttpServer::start(move |request| older(request, unknown)).await;
    let server = mount(http(&remote.url));
    let error = call(&server).await.unwrap_err();
    assert_eq!(error.to_string(), "the server answered with error -32601: Method not found");
    assert_eq!(remote.heard("initialize").len(), 1);
    server.stop().await;

    let broken = |_: &Request| Reply::Whole(503, Vec::new(), "overloaded".to_owned());
    let remote = HttpServer::start(move |request| older(request, broken)).await;
    let server = mount(http(&remote.url));
    let error = call(&server).await.unwrap_err();
    assert_eq!(error.to_string(), "the server answered with status 503: overloaded");
    assert!(error.may_have_taken_place() && error.is_retryable());
    server.stop().await;
}

#[tokio::test]
async fn an_answer_of_another_kind_is_a_failure_of_its_call() {
    let html = || Reply::Whole(200, vec![("content-type".to_owned(), "text/html".to_owned())], String::new());
    type Answer = fn(&Request) -> Reply;
    let answers: [(Answer, &str); 4] = [
        (|_| events("data: 1\n\n"), "the stream ended before it"),
        (
            |_| json_reply(200, &json!({"jsonrpc": "2.0", "id": 99, "result": {}})),
            "it answers another request",
        ),
        (|_| events(&format!("data: {}\n\n", "x".repeat(2 << 20))), "larger than 1048576 bytes"),
        (|request| result(request, json!({"x": "y".repeat(2 << 20)})), "larger than 1048576 bytes"),
    ];
    for (answer, words) in answers {
        let remote = HttpServer::start(move |request| modern(request, answer)).await;
        let server = mount(http(&remote.url));
        let error = call(&server).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.may_have_taken_place());
        server.stop().await;
    }
    let remote = HttpServer::start(move |request| modern(request, |_| html())).await;
    let server = mount(http(&remote.url));
    let error = call(&server).await.unwrap_err();
    assert!(error.to_string().contains("its content type is `text/html`"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn a_call_that_is_dropped_hangs_up_on_a_modern_server_and_tells_an_older_one() {
    let remote = HttpServer::start(|request| modern(request, |_| Reply::Silence)).await;
    let server = mount(http(&remote.url));
    server.ready().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), call(&server)).await.is_err());
    wait_until("the client hung up", async || remote.hung_up() == ["tools/call"]).await;
    assert!(remote.heard("notifications/cancelled").is_empty());
    server.stop().await;

    let remote = HttpServer::start(|request| older(request, |_| Reply::Open(String::new()))).await;
    let server = mount(http(&remote.url));
    server.ready().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), call(&server)).await.is_err());
    wait_until("the server is told", async || !remote.heard("notifications/cancelled").is_empty()).await;
    let cancelled = remote.heard("notifications/cancelled")[0].message();
    assert_eq!(cancelled["params"]["requestId"], remote.heard("tools/call")[0].message()["id"]);
    server.stop().await;
}

#[tokio::test]
async fn changes_that_an_older_server_tells_on_its_own_stream_are_heard() {
    let remote = HttpServer::start(|request| {
        if request.method == "GET" {
            let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
            return Reply::Open(format!("data:\n\ndata: {changed}\n\n"));
        }
        older(request, said)
    })
    .await;
    let server = mount(http(&remote.url));
    wait_until("the tools were listed anew", async || remote.heard("tools/list").len() >= 2).await;
    assert_eq!(remote.requests("GET")[0].header("mcp-session-id"), Some("s1"));
    server.stop().await;
}

/// A server that wants a token, of which the second one is good, and the endpoint that gives them.
async fn guarded() -> HttpServer {
    let given = AtomicUsize::new(0);
    HttpServer::start(move |request| {
        if request.path == "/token" {
            let n = given.fetch_add(1, Ordering::Relaxed) + 1;
            return json_reply(200, &json!({"access_token": format!("t{n}"), "expires_in": 3600}));
        }
        match request.header("authorization") {
            Some("Bearer t2") => modern(request, said),
            _ => Reply::Whole(401, Vec::new(), String::new()),
        }
    })
    .await
}

fn with_auth(url: &str, auth: McpAuth) -> McpServerConfig {
    let mut config = http(url);
    let McpTransport::Http(endpoint) = &mut config.transport else { unreachable!() };
    endpoint.auth = auth;
    config
}

#[tokio::test]
async fn a_token_is_got_with_the_credentials_and_replaced_once_when_it_is_refused() {
    let remote = guarded().await;
    let token_url = remote.url.replace("/mcp", "/token");
    let server = mount(with_auth(
        &remote.url,
        McpAuth::ClientCredentials {
            token_url,
            client_id: "gathering".to_owned(),
            client_secret: Secret::from("a:b"),
            scope: Some("tools".to_owned()),
        },
    ));
    assert_eq!(call(&server).await.unwrap(), "hi");
    let asked: Vec<Request> =
        remote.requests("POST").into_iter().filter(|request| request.path == "/token").collect();
    assert_eq!(asked.len(), 2, "the first token was refused");
    // `gathering:a%3Ab`
    assert_eq!(asked[0].header("authorization"), Some("Basic Z2F0aGVyaW5nOmElM0Fi"));
    assert!(asked[0].body.starts_with("grant_type=client_credentials&resource=http%3A%2F%2F127.0.0.1"));
    assert!(asked[0].body.ends_with("&scope=tools"), "{}", asked[0].body);
    server.stop().await;
}

#[tokio::test]
async fn refused_credentials_are_named_and_no_secret_is() {
    let remote = guarded().await;
    let server = mount(with_auth(&remote.url, McpAuth::Bearer(Secret::from("s3cret"))));
    let error = server.ready().await.unwrap_err().to_string();
    assert!(error.contains("refused the credentials") && !error.contains("s3cret"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn a_private_address_is_not_reached_unless_the_operator_allows_it() {
    let remote = HttpServer::start(|request| modern(request, said)).await;
    let outbound = Outbound::new(OutboundPolicy::public_only()).unwrap();
    let server = McpServer::mount(http(&remote.url), McpServices::new(outbound)).unwrap();
    let error = server.ready().await.unwrap_err();
    assert!(error.to_string().contains("private or reserved address"), "{error}");
    assert!(remote.requests("POST").is_empty());
    server.stop().await;
}
