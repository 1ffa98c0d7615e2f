//! A small local server that answers the chat completions protocol from a list.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request as the server received it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub head: String,
    pub body: Value,
}

/// Returns its answers in order, one for each request, then never answers. Ends when it is dropped.
pub struct Server {
    base_url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Answers are status lines (with headers, if any) and bodies.
    pub async fn start(answers: Vec<(&'static str, String)>) -> Self {
        Self::start_with(answers, true).await
    }

    /// The same, but it never ends a stream.
    pub async fn start_hanging(answers: Vec<(&'static str, String)>) -> Self {
        Self::start_with(answers, false).await
    }

    async fn start_with(answers: Vec<(&'static str, String)>, ends: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1/", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        let mut answers = VecDeque::from(answers);
        let task = tokio::spawn(async move {
            let mut silent = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let Some(request) = read_request(&mut stream).await else { continue };
                kept.lock().unwrap().push(request);
                if let Some((status, body)) = answers.pop_front() {
                    respond(&mut stream, status, &body).await;
                    if ends {
                        let _ = stream.shutdown().await;
                    }
                }
                silent.push(stream);
            }
        });
        Self { base_url, asked, task }
    }

    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A completion with a text.
pub fn says(text: &str) -> (&'static str, String) {
    completion(&json!({"role": "assistant", "content": text}), "stop")
}

/// A completion with tool calls: names and raw arguments.
pub fn wants(calls: &[(&str, &str)]) -> (&'static str, String) {
    wants_until(calls, "tool_calls")
}

/// The same, which ended for this reason.
pub fn wants_until(calls: &[(&str, &str)], finish_reason: &str) -> (&'static str, String) {
    let calls: Vec<Value> = calls
        .iter()
        .enumerate()
        .map(|(at, (name, arguments))| {
            json!({"id": format!("c{at}"), "type": "function", "function": {"name": name, "arguments": arguments}})
        })
        .collect();
    completion(&json!({"role": "assistant", "content": null, "tool_calls": calls}), finish_reason)
}

/// An answer that is streamed: its chunks, and that it has ended.
pub fn streams(chunks: &[Value]) -> (&'static str, String) {
    streams_cut(&format!("{}data: [DONE]\n\n", events(chunks)))
}

/// A stream as it is, which then ends.
pub fn streams_cut(stream: &str) -> (&'static str, String) {
    ("200 OK\r\ncontent-type: text/event-stream; charset=utf-8", stream.to_owned())
}

/// The chunks as events.
pub fn events(chunks: &[Value]) -> String {
    chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect()
}

/// A chunk with this delta.
pub fn delta(delta: Value) -> Value {
    json!({"object": "chat.completion.chunk", "model": "tiny-1", "choices": [{"index": 0, "delta": delta}]})
}

/// The chunk that says why the answer ends.
pub fn ends(finish_reason: &str) -> Value {
    json!({"model": "tiny-1", "choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}], "usage": null})
}

/// The chunk with the usage.
pub fn used() -> Value {
    json!({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}})
}

fn completion(message: &Value, finish_reason: &str) -> (&'static str, String) {
    let body = json!({
        "id": "x", "object": "chat.completion", "model": "tiny-1",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    });
    ("200 OK", body.to_string())
}

async fn respond(stream: &mut TcpStream, status: &str, body: &str) {
    if status.contains("event-stream") {
        return drip(stream, status, body).await;
    }
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// A stream, byte by byte, whose end is that of the connection.
async fn drip(stream: &mut TcpStream, status: &str, body: &str) {
    let _ = stream.set_nodelay(true);
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).await;
    for byte in body.as_bytes() {
        let _ = stream.write_all(&[*byte]).await;
        tokio::task::yield_now().await;
    }
}

/// Reads a request; `None` at the end of the connection.
pub async fn read_request(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, value)| value.trim().parse().unwrap());
            if body.len() >= length {
                return Some(Asked { head: head.to_owned(), body: serde_json::from_str(body).unwrap() });
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
