//! A tiny HTTP server on a free local port, which keeps what it was sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A request, with the names of its headers in lower case.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Request {
    /// The message in the body.
    pub fn message(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The method of the message.
    pub fn asks(&self) -> String {
        self.message()["method"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is answered.
pub enum Reply {
    /// The whole answer: status, headers and body.
    Whole(u16, Vec<(String, String)>, String),
    /// A stream of events that stays open after these.
    Open(String),
    /// Nothing, until the client hangs up.
    Silence,
}

/// A JSON body.
pub fn json_reply(status: u16, body: &Value) -> Reply {
    Reply::Whole(status, vec![("content-type".to_owned(), "application/json".to_owned())], body.to_string())
}

/// A result for `request`.
pub fn result(request: &Request, result: Value) -> Reply {
    json_reply(200, &json!({"jsonrpc": "2.0", "id": request.message()["id"], "result": result}))
}

/// An error without a request.
pub fn refusal(status: u16, code: i64, text: &str) -> Reply {
    json_reply(status, &json!({"jsonrpc": "2.0", "id": null, "error": {"code": code, "message": text}}))
}

/// A stream of events that ends after these.
pub fn events(text: &str) -> Reply {
    Reply::Whole(200, vec![("content-type".to_owned(), "text/event-stream".to_owned())], text.to_owned())
}

/// Adds a header.
pub fn with_header(reply: Reply, name: &str, value: &str) -> Reply {
    match reply {
        Reply::Whole(status, mut headers, body) => {
            headers.push((name.to_owned(), value.to_owned()));
            Reply::Whole(status, headers, body)
        }
        other => other,
    }
}

/// Answers each request with what its function says; ends when it is dropped.
pub struct HttpServer {
    pub url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    answer: Box<dyn Fn(&Request) -> Reply + Send + Sync>,
    requests: Mutex<Vec<Request>>,
    hung_up: Mutex<Vec<String>>,
}

impl HttpServer {
    pub async fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), answer).await
    }

    pub async fn start_at(
        address: SocketAddr,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            requests: Mutex::default(),
            hung_up: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&accepting)));
            }
        });
        Self { url, shared, task }
    }

    /// The requests so far whose message has this method.
    pub fn heard(&self, method: &str) -> Vec<Request> {
        let requests = self.shared.requests.lock().unwrap();
        requests.iter().filter(|request| request.asks() == method).cloned().collect()
    }

    /// The requests so far with this method of HTTP.
    pub fn requests(&self, method: &str) -> Vec<Request> {
        let requests = self.shared.requests.lock().unwrap();
        requests.iter().filter(|request| request.method == method).cloned().collect()
    }

    /// The methods of the messages whose answers the client did not await.
    pub fn hung_up(&self) -> Vec<String> {
        self.shared.hung_up.lock().unwrap().clone()
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let Some(request) = read(&mut stream).await else { return };
    shared.requests.lock().unwrap().push(request.clone());
    let head = match (shared.answer)(&request) {
        Reply::Whole(status, headers, body) => {
            let headers: String =
                headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n", body.len());
            let _ = stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes()).await;
            let _ = stream.shutdown().await;
            return;
        }
        Reply::Open(text) => {
            format!("HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{text}")
        }
        Reply::Silence => String::new(),
    };
    let _ = stream.write_all(head.as_bytes()).await;
    let mut rest = [0];
    let _ = stream.read(&mut rest).await;
    shared.hung_up.lock().unwrap().push(request.asks());
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let mut first = lines.next()?.split(' ');
            let headers: BTreeMap<String, String> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
                return Some(Request { method, path, headers, body: body.to_owned() });
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
