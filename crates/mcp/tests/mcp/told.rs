//! What a server tells of a call reaches the caller of that call.

use std::sync::{Arc, Mutex};

use gathering_mcp::{McpError, McpServer};
use gathering_tools::{ToolContext, ToolListener, ToolNotice, ToolNotices};
use serde_json::{Value, json};

use crate::http_server::{HttpServer, Request, events, result};
use crate::programs::{Listening, PythonSdk, own};
use crate::support::{fake, http, mount, wait_until};

/// A caller who listens.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<ToolNotice>>>);

impl ToolListener for Heard {
    fn told(&self, notice: ToolNotice) {
        self.0.lock().unwrap().push(notice);
    }
}

impl Heard {
    fn all(&self) -> Vec<ToolNotice> {
        self.0.lock().unwrap().clone()
    }

    /// Calls a tool and listens.
    async fn call(&self, server: &McpServer, tool: &str, arguments: Value) -> Result<String, McpError> {
        let context = ToolContext::new().with_notices(ToolNotices::to(self.clone()));
        call(server, tool, arguments, &context).await
    }
}

async fn call(
    server: &McpServer,
    tool: &str,
    arguments: Value,
    context: &ToolContext,
) -> Result<String, McpError> {
    let digest = server.ready().await?.find(tool).unwrap().digest;
    server.call_defined(tool, arguments, digest, context).await.map(|result| result.text())
}

fn log(text: &str) -> ToolNotice {
    ToolNotice::Log { level: "info".to_owned(), text: text.to_owned() }
}

fn progress(progress: f64, total: f64) -> ToolNotice {
    ToolNotice::Progress { progress, total: Some(total), message: None }
}

#[tokio::test]
async fn progress_goes_to_its_call_and_a_log_to_the_only_call_that_it_can_be_about() {
    let server = mount(fake(&[]));
    let (slow, busy, alone) = (Heard::default(), Heard::default(), Heard::default());
    {
        let waiting = slow.call(&server, "late", json!({}));
        let mut waiting = std::pin::pin!(waiting);
        let both = async {
            wait_until("it tells", || async { !slow.all().is_empty() }).await;
            busy.call(&server, "log_much", json!({})).await
        };
        tokio::select! {
            ended = &mut waiting => panic!("it ended: {ended:?}"),
            logged = both => assert_eq!(logged.unwrap(), "logged"),
        }
    }
    assert_eq!(slow.all(), [progress(1.0, 2.0)], "nothing of the other call, nor after the cancellation");
    assert_eq!(busy.all(), [], "it could be about either");
    alone.call(&server, "log_much", json!({})).await.unwrap();
    let heard = alone.all();
    assert_eq!((heard.len(), heard.last()), (1000, Some(&log("999"))));
    server.stop().await;
}

/// A server of 2026-07-28 with a log, which tells what it does before it answers.
fn telling(request: &Request) -> crate::http_server::Reply {
    let message = request.message();
    match request.asks().as_str() {
        "server/discover" => {
            let capabilities = json!({"tools": {}, "logging": {}});
            let about = json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": capabilities});
            result(request, about)
        }
        "tools/list" => {
            let tool = json!({"name": "dig", "inputSchema": {"type": "object"}});
            result(request, json!({"resultType": "complete", "tools": [tool]}))
        }
        _ => {
            let token = &message["params"]["_meta"]["progressToken"];
            let told = json!({"jsonrpc": "2.0", "method": "notifications/progress",
                              "params": {"progressToken": token, "progress": 1, "total": 3}});
            let log = json!({"jsonrpc": "2.0", "method": "notifications/message",
                             "params": {"level": "info", "data": {"depth": 7}}});
            let other = json!({"jsonrpc": "2.0", "method": "notifications/progress",
                               "params": {"progressToken": 4711, "progress": 9}});
            let answer = json!({"jsonrpc": "2.0", "id": message["id"],
                                "result": {"resultType": "complete", "content": []}});
            events(&[told, log, other, answer].map(|message| format!("data: {message}\n\n")).concat())
        }
    }
}

#[tokio::test]
async fn a_modern_server_is_asked_for_its_log_where_somebody_listens() {
    let remote = HttpServer::start(telling).await;
    let server = mount(http(&remote.url));
    call(&server, "dig", json!({}), &ToolContext::new()).await.unwrap();
    let heard = Heard::default();
    heard.call(&server, "dig", json!({})).await.unwrap();
    assert_eq!(heard.all(), [progress(1.0, 3.0), log(r#"{"depth":7}"#)]);
    let asked =
        |request: &Request| request.message()["params"]["_meta"]["io.modelcontextprotocol/logLevel"].clone();
    let calls: Vec<Value> = remote.heard("tools/call").iter().map(asked).collect();
    assert_eq!(calls, [Value::Null, json!("info")]);
    server.stop().await;
}

#[tokio::test]
async fn servers_of_both_generations_tell_the_caller_how_far_they_are() {
    for sdk in [PythonSdk::One, PythonSdk::Two] {
        let listening = Listening::own(sdk);
        for config in [own(sdk), http(&listening.url)] {
            let server = mount(config);
            let (one, other) = (Heard::default(), Heard::default());
            wait_until("it listens", || async { server.ready().await.is_ok() }).await;
            let (first, second) = tokio::join!(
                one.call(&server, "slow", json!({"steps": 2})),
                other.call(&server, "slow", json!({"steps": 3}))
            );
            assert_eq!((first.unwrap().as_str(), second.unwrap().as_str()), ("done", "done"));
            assert_eq!(one.all(), [progress(1.0, 2.0), progress(2.0, 2.0)], "{sdk:?}");
            assert_eq!(other.all(), [1.0, 2.0, 3.0].map(|step| progress(step, 3.0)), "{sdk:?}");
            server.stop().await;
        }
    }
}
