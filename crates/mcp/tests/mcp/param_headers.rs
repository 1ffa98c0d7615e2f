//! Parameters that a tool marks are sent as headers, too.

use gathering_mcp::{McpError, McpProtocol, McpServer, NotCallable};
use serde_json::{Value, json};

use crate::http_server::{HttpServer, Reply, Request, refusal, result};
use crate::programs::{Listening, PythonSdk, own};
use crate::support::{http, mount, stdio, wait_until};

/// A server of 2026-07-28 with these properties of the arguments of `find`; it refuses every call whose headers say
/// `nowhere`.
fn marking(request: &Request, properties: &Value) -> Reply {
    match request.asks().as_str() {
        "server/discover" => result(
            request,
            json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}),
        ),
        "tools/list" => {
            let schema = json!({"type": "object", "properties": properties});
            let tools =
                json!([{"name": "find", "inputSchema": schema}, {"name": "plain", "inputSchema": {}}]);
            result(request, json!({"resultType": "complete", "tools": tools}))
        }
        _ if request.header("mcp-param-region") == Some("nowhere") => {
            refusal(400, -32020, "Header mismatch: Mcp-Param-Zone")
        }
        _ => {
            result(request, json!({"resultType": "complete", "content": [{"type": "text", "text": "found"}]}))
        }
    }
}

fn properties() -> Value {
    json!({"region": {"type": "string", "x-mcp-header": "Region"},
           "options": {"type": "object", "properties": {"limit": {"type": "integer", "x-mcp-header": "Limit"}}},
           "dry": {"type": "boolean", "x-mcp-header": "Dry"}})
}

async fn find(server: &McpServer, arguments: Value) -> Result<String, McpError> {
    server.call("find", arguments).await.map(|result| result.text())
}

/// The headers of the last call that repeat parameters.
fn sent(remote: &HttpServer) -> Vec<(String, String)> {
    let calls = remote.heard("tools/call");
    let headers = calls.last().unwrap().headers.iter();
    headers
        .filter_map(|(name, value)| Some((name.strip_prefix("mcp-param-")?.to_owned(), value.clone())))
        .collect()
}

#[tokio::test]
async fn marked_parameters_of_a_call_are_its_headers() {
    let remote = HttpServer::start(|request| marking(request, &properties())).await;
    let server = mount(http(&remote.url));
    let own = |headers: &[(&str, &str)]| -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    find(&server, json!({"region": "eu-1", "options": {"limit": 7}, "dry": true, "more": "x"}))
        .await
        .unwrap();
    assert_eq!(sent(&remote), own(&[("dry", "true"), ("limit", "7"), ("region", "eu-1")]));
    let message = &remote.heard("tools/call")[0].message();
    assert_eq!(message["params"]["arguments"]["region"], "eu-1", "the message has them all the same");
    // These are the examples of the specification.
    for (value, header) in [
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
    ] {
        find(&server, json!({"region": value})).await.unwrap();
        assert_eq!(sent(&remote), own(&[("region", header)]));
    }
    find(&server, json!({})).await.unwrap();
    assert_eq!(sent(&remote), []);
    let refused = find(&server, json!({"options": {"limit": 1_u64 << 53}})).await.unwrap_err();
    assert!(refused.to_string().contains("/options/limit: is sent as a header"), "{refused}");
    assert_eq!(remote.heard("tools/call").len(), 6, "nothing was sent");
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_wants_other_headers_is_asked_for_its_tools_again() {
    let remote = HttpServer::start(|request| marking(request, &properties())).await;
    let server = mount(http(&remote.url));
    server.ready().await.unwrap();
    let n_lists = remote.heard("tools/list").len();
    let refused = find(&server, json!({"region": "nowhere"})).await.unwrap_err();
    assert!(refused.to_string().contains("Mcp-Param-Zone"), "{refused}");
    wait_until("it lists again", || async { remote.heard("tools/list").len() > n_lists }).await;
    server.stop().await;
}

#[tokio::test]
async fn a_tool_with_an_invalid_mark_is_not_callable_where_marks_mean_something() {
    let bad = json!({"ratio": {"type": "number", "x-mcp-header": "Ratio"}});
    let remote = HttpServer::start(move |request| marking(request, &bad)).await;
    let server = mount(http(&remote.url));
    let catalogue = server.ready().await.unwrap();
    let reason = catalogue.find("find").unwrap().not_callable.clone().unwrap();
    assert!(matches!(reason, NotCallable::InvalidHeader { .. }), "{reason:?}");
    assert!(
        reason.to_string().ends_with("/ratio: only a string, an integer or a boolean can be a header"),
        "{reason}"
    );
    let refused = find(&server, json!({"ratio": 1})).await.unwrap_err();
    assert!(matches!(refused, McpError::NotCallable { .. }), "{refused}");
    assert!(catalogue.find("plain").unwrap().not_callable.is_none(), "the others stay");
    server.stop().await;

    let mut older = http(&remote.url);
    older.protocol = McpProtocol::V2025_11_25;
    let over_stdio = stdio("true", &[]);
    for mut config in [older, over_stdio] {
        let definitions = catalogue.to_pins();
        config.pins = definitions;
        let known = gathering_mcp::McpCatalogue::pinned(&config);
        assert_eq!(known.find("find").unwrap().not_callable, None, "{:?}", config.transport);
    }
}

#[tokio::test]
async fn a_server_of_the_python_sdk_accepts_the_headers_and_needs_them() {
    for sdk in [PythonSdk::Two, PythonSdk::One] {
        let listening = Listening::own(sdk);
        for config in [http(&listening.url), own(sdk)] {
            let server = mount(config);
            wait_until("it listens", || async { server.ready().await.is_ok() }).await;
            for region in ["eu-1", "Köln\nam Rhein", " padded ", "=?base64?x?="] {
                let said = server.call("marked", json!({"region": region, "limit": 7, "note": "n"})).await;
                assert_eq!(said.unwrap().text(), format!("{region} 7 n"), "{sdk:?}");
            }
            server.stop().await;
        }
    }
}
