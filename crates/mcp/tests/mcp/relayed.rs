//! A relay between a pipe and a server over HTTP: what it says in headers, passes on, and says of a server that cannot
//! answer.

use std::time::Duration;

use gathering_domain::Secret;
use gathering_mcp::PipeStop;
use gathering_mcp::relay::Relay;
use gathering_tools::{Outbound, OutboundPolicy};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, Lines};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::http_server::{HttpServer, Reply, events, json_reply, refusal, result, with_header};

const LIMIT: Duration = Duration::from_secs(20);

/// The client's ends of a pipe to a relay.
struct Piped {
    input: Option<DuplexStream>,
    lines: Lines<BufReader<DuplexStream>>,
    relaying: JoinHandle<std::io::Result<()>>,
    stop: PipeStop,
}

impl Piped {
    fn to(url: &str) -> Self {
        let policy = OutboundPolicy::allowing(["127.0.0.0/8".parse().unwrap()]);
        let relay = Relay::new(Outbound::new(policy).unwrap(), url, Secret::from("key")).unwrap();
        let (input, theirs) = tokio::io::duplex(1 << 20);
        let (output, ours) = tokio::io::duplex(1 << 20);
        let stop = PipeStop { grace: LIMIT, ..PipeStop::default() };
        let stopping = stop.clone();
        let relaying = tokio::spawn(async move { relay.serve_lines(theirs, output, &stopping).await });
        Self { input: Some(input), lines: BufReader::new(ours).lines(), relaying, stop }
    }

    async fn write(&mut self, text: &str) {
        self.input.as_mut().unwrap().write_all(format!("{text}\n").as_bytes()).await.unwrap();
    }

    async fn send(&mut self, message: &Value) {
        self.write(&message.to_string()).await;
    }

    async fn line(&mut self) -> Option<String> {
        timeout(LIMIT, self.lines.next_line()).await.unwrap().unwrap()
    }

    async fn answer(&mut self) -> Value {
        serde_json::from_str(&self.line().await.unwrap()).unwrap()
    }

    async fn ask(&mut self, id: u64, method: &str, params: Value) -> Value {
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        self.answer().await
    }

    /// Why a message was not answered.
    async fn error(&mut self) -> String {
        let answer = self.ask(7, "tools/list", json!({})).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-32603)), "{answer}");
        answer["error"]["message"].as_str().unwrap().to_owned()
    }

    /// Closes the pipe, and returns the lines that still came.
    async fn end(mut self) -> Vec<String> {
        drop(self.input.take());
        let mut rest = Vec::new();
        while let Some(line) = self.line().await {
            rest.push(line);
        }
        timeout(LIMIT, self.relaying).await.unwrap().unwrap().unwrap();
        rest
    }
}

fn modern(params: Value) -> Value {
    let mut params = params;
    params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    params
}

#[tokio::test]
async fn headers_say_what_a_message_says() {
    let server = HttpServer::start(|request| result(request, json!({"protocolVersion": "2025-06-18"}))).await;
    let mut piped = Piped::to(&server.url);
    piped.ask(1, "tools/call", modern(json!({"name": "search"}))).await;
    piped.ask(2, "resources/read", modern(json!({"uri": "x://ä"}))).await;
    piped.ask(3, "initialize", json!({"protocolVersion": "2026-07-28"})).await;
    piped.ask(4, "tools/list", json!({})).await;
    assert!(piped.end().await.is_empty());

    let of = |method: &str| server.heard(method).remove(0);
    let call = of("tools/call");
    assert_eq!(call.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!((call.header("mcp-method"), call.header("mcp-name")), (Some("tools/call"), Some("search")));
    assert_eq!(call.header("authorization"), Some("Bearer key"));
    assert_eq!(call.header("accept"), Some("application/json, text/event-stream"));
    assert_eq!(call.header("content-type"), Some("application/json"));
    assert_eq!(of("resources/read").header("mcp-name"), Some("=?base64?eDovL8Ok?="));
    assert_eq!(of("initialize").header("mcp-protocol-version"), None);
    let list = of("tools/list");
    assert_eq!((list.header("mcp-protocol-version"), list.header("mcp-method")), (Some("2025-06-18"), None));
}

#[tokio::test]
async fn messages_are_passed_on_as_they_are() {
    let server = HttpServer::start(|request| match request.asks().as_str() {
        "notifications/initialized" => Reply::Whole(202, Vec::new(), String::new()),
        // As pretty JSON has it, with a number that no float holds.
        _ => Reply::Whole(
            200,
            vec![("content-type".to_owned(), "application/json; charset=utf-8".to_owned())],
            "{\r\n  \"jsonrpc\": \"2.0\",\n  \"id\": \"a\",\n  \"result\": {\"n\": 12345678901234567890123}\n}".to_owned(),
        ),
    })
    .await;
    let mut piped = Piped::to(&server.url);
    piped.write(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    piped
        .write(r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"n":98765432109876543210987}}"#)
        .await;
    let answer = piped.line().await.unwrap();
    assert!(answer.contains(r#""result": {"n": 12345678901234567890123}"#), "{answer}");
    assert!(server.heard("tools/call")[0].body.contains("98765432109876543210987"));
    assert!(piped.end().await.is_empty(), "what asks for nothing is not answered");
}

#[tokio::test]
async fn a_stream_is_passed_on_line_by_line() {
    let server = HttpServer::start(|request| match request.asks().as_str() {
        "tools/call" => events(
            ": hello\r\n\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n\
             data: {\"jsonrpc\":\"2.0\",\ndata: \"id\":1,\"result\":{}}\n\n",
        ),
        _ => Reply::Open(
            ": keep-alive\n\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/a\"}\n\n".to_owned(),
        ),
    })
    .await;
    let mut piped = Piped::to(&server.url);
    piped.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call"})).await;
    assert_eq!(piped.answer().await["method"], "notifications/progress");
    assert_eq!(piped.answer().await["result"], json!({}));
    piped.send(&json!({"jsonrpc": "2.0", "id": 2, "method": "subscriptions/listen"})).await;
    assert_eq!(piped.answer().await["method"], "notifications/a", "before the stream ends");
}

#[tokio::test]
async fn a_call_that_the_client_cancels_is_hung_up_on_and_not_answered() {
    let server = HttpServer::start(|request| match request.asks().as_str() {
        "tools/call" => Reply::Silence,
        _ => result(request, json!({})),
    })
    .await;
    let mut piped = Piped::to(&server.url);
    piped.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call"})).await;
    let asked = async {
        while server.heard("tools/call").is_empty() {
            tokio::task::yield_now().await
        }
    };
    timeout(LIMIT, asked).await.unwrap();
    piped
        .send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}))
        .await;
    assert_eq!(piped.ask(2, "ping", json!({})).await["id"], 2);
    let hung_up = async {
        while server.hung_up() != ["tools/call"] {
            tokio::task::yield_now().await
        }
    };
    timeout(LIMIT, hung_up).await.unwrap();
    let told = async {
        while server.heard("notifications/cancelled").is_empty() {
            tokio::task::yield_now().await
        }
    };
    timeout(LIMIT, told).await.unwrap();
    assert!(piped.end().await.is_empty());
}

#[tokio::test]
async fn what_a_server_refuses_is_an_error_that_says_what_to_do() {
    let problem = |status, detail: &str| json_reply(status, &json!({"title": "x", "detail": detail}));
    let server = HttpServer::start(move |request| match request.path.as_str() {
        "/401/mcp" => problem(401, "the key is expired"),
        "/429/mcp" => with_header(problem(429, "too fast"), "retry-after", "3"),
        "/404/mcp" => Reply::Whole(404, Vec::new(), "<html>".to_owned()),
        "/307/mcp" => with_header(problem(307, ""), "location", "https://elsewhere.example/mcp"),
        "/500/mcp" => Reply::Whole(500, Vec::new(), String::new()),
        "/202/mcp" => Reply::Whole(202, Vec::new(), String::new()),
        "/null/mcp" => refusal(400, -32600, "I cannot read this"),
        "/html/mcp" => Reply::Whole(200, Vec::new(), "<html>".to_owned()),
        "/cut/mcp" => events("data: {\"jsonrpc\":\"2.0\",\"method\":\"a\"}\n\n"),
        _ => json_reply(404, &json!({"jsonrpc": "2.0", "id": request.message()["id"], "error": {"code": -32601, "message": "Method not found"}})),
    })
    .await;
    let base = server.url.trim_end_matches("/mcp");
    for (status, said) in [
        ("401", "GATHERING_API_KEY to a valid one (401: the key is expired)"),
        ("429", "try again in 3 seconds (429: too fast)"),
        ("404", "check --server (404)"),
        ("307", "redirects to another address"),
        ("500", "answered with status 500"),
        ("202", "did not answer it"),
        ("null", "I cannot read this"),
        ("html", "answered with status 200"),
    ] {
        let error = Piped::to(&format!("{base}/{status}")).error().await;
        assert!(error.contains(said) && !error.contains("elsewhere"), "{status}: {error}");
    }
    let mut cut = Piped::to(&format!("{base}/cut/"));
    cut.send(&json!({"jsonrpc": "2.0", "id": 7, "method": "a"})).await;
    assert_eq!(cut.answer().await["method"], "a");
    let error = cut.answer().await;
    assert!(error["error"]["message"].as_str().unwrap().contains("before it was complete"), "{error}");
    let own = Piped::to(&server.url).ask(7, "fly", json!({})).await;
    assert_eq!(own["error"]["code"], -32601, "an error of the protocol is passed on");
}

#[tokio::test]
async fn a_relay_goes_on_when_its_server_is_back() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut piped = Piped::to(&format!("http://{address}"));
    let away = piped.error().await;
    assert!(away.contains("cannot be reached: is it running? Nothing was sent"), "{away}");
    let server = HttpServer::start_at(address, |request| result(request, json!({}))).await;
    assert_eq!(piped.ask(1, "ping", json!({})).await["result"], json!({}));
    drop(server);
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_the_next_one_is_answered() {
    let server = HttpServer::start(|request| result(request, json!({}))).await;
    let mut piped = Piped::to(&server.url);
    let deep = "[".repeat(100_000);
    for line in ["hello", "{", "\u{0}", &deep] {
        piped.write(line).await;
        let refused = piped.answer().await;
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&Value::Null, &json!(-32700)));
    }
    for (head, id) in [(r#"{"jsonrpc": "2.0", "id": "b", "x":""#, json!("b")), (r#"{"x":""#, json!(9))] {
        let long = format!(r#"{head}{}","jsonrpc":"2.0","id":9}}"#, "x".repeat(17 << 20));
        piped.write(&long).await;
        let refused = piped.answer().await;
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&id, &json!(-32600)));
    }
    piped.write("\n \r").await;
    assert_eq!(piped.ask(1, "ping", json!({})).await["result"], json!({}));
    assert!(piped.end().await.is_empty());
    assert!(server.heard("").is_empty(), "none of it was sent");
}

#[tokio::test]
async fn at_the_end_a_call_gets_its_time_and_no_more() {
    let server = HttpServer::start(|_| Reply::Silence).await;
    for signals in [1, 2] {
        let mut piped = Piped::to(&server.url);
        piped.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call"})).await;
        let asked = async {
            while server.heard("tools/call").len() < signals {
                tokio::task::yield_now().await
            }
        };
        timeout(LIMIT, asked).await.unwrap();
        if signals == 1 {
            drop(piped.input.take());
            assert!(
                timeout(Duration::from_millis(100), &mut piped.relaying).await.is_err(),
                "the call has time"
            );
        } else {
            piped.stop.drain.cancel();
        }
        piped.stop.now.cancel();
        timeout(LIMIT, &mut piped.relaying).await.unwrap().unwrap().unwrap();
        assert!(piped.stop.drain.is_cancelled());
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_keeps_no_relay() {
    let large = "x".repeat(4 << 20);
    let server = HttpServer::start(move |request| result(request, json!({ "text": large }))).await;
    let mut piped = Piped::to(&server.url);
    piped.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call"})).await;
    let asked = async {
        while server.heard("tools/call").is_empty() {
            tokio::task::yield_now().await
        }
    };
    timeout(LIMIT, asked).await.unwrap();
    drop(piped.input.take());
    timeout(LIMIT, &mut piped.relaying).await.unwrap().unwrap().unwrap();
}

#[test]
fn a_url_that_is_none_of_a_server_is_refused() {
    let outbound = Outbound::new(OutboundPolicy::public_only()).unwrap();
    let relay = |url: &str, key: &str| Relay::new(outbound.clone(), url, Secret::from(key));
    assert_eq!(relay("https://example.org", "k").unwrap().url(), "https://example.org/mcp");
    assert_eq!(relay("https://example.org/a/mcp/", "k").unwrap().url(), "https://example.org/a/mcp/");
    for url in ["example.org", "ftp://example.org", "http://ada:secret@example.org", ""] {
        assert!(relay(url, "k").is_err(), "{url}");
    }
    let refused = relay("https://example.org", "a\nkey").err().unwrap().to_string();
    assert!(!refused.contains("a\nkey"), "{refused}");
}
