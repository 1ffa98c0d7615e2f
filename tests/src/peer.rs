//! A recording HTTP server on this host: what pipelines call, in place of the outside world.
//!
//! Owns its connections, one request each. Never knows why it is asked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::wait::wait_until;

/// One request, as it arrived whole.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its place among all requests, from 0.
    pub number: usize,
    /// Its place among those to the same path, from 0.
    pub nth: usize,
    /// `GET` and so on.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The headers, their names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: String,
    /// When it was whole.
    pub at: Instant,
    /// Whether the client left before it had its answer.
    pub is_given_up: bool,
}

impl Request {
    /// The `Idempotency-Key`, if there is one.
    pub fn idempotency_key(&self) -> Option<&str> {
        self.headers.get("idempotency-key").map(String::as_str)
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// What a request gets.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    body: Value,
    delay: Duration,
    until_released: bool,
    hangs_up: bool,
}

impl Answer {
    /// This, at once.
    pub fn now(status: u16, body: Value) -> Answer {
        Answer { status, body, delay: Duration::ZERO, until_released: false, hangs_up: false }
    }

    /// None: the request was taken, and the connection ends.
    pub fn none() -> Answer {
        Answer { hangs_up: true, ..Answer::now(200, Value::Null) }
    }

    /// This, as by a service that needs time for it.
    pub fn slow(delay: Duration, body: Value) -> Answer {
        Answer { delay, ..Answer::now(200, body) }
    }

    /// This, once [`Peer::release`] is called.
    pub fn held(body: Value) -> Answer {
        Answer { until_released: true, ..Answer::now(200, body) }
    }
}

/// Everything that was asked, and how often at each path.
#[derive(Default)]
struct Requests {
    all: Vec<Request>,
    n_by_path: HashMap<String, usize>,
}

type Script = dyn Fn(&Request) -> Answer + Send + Sync;

struct Shared {
    requests: Mutex<Requests>,
    script: Box<Script>,
    released: watch::Sender<bool>,
}

/// The server; it ends with this value.
pub struct Peer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Peer {
    /// A peer that answers by `script`.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Result<Peer> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("the peer cannot listen")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            requests: Mutex::default(),
            script: Box::new(script),
            released: watch::Sender::new(false),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Peer { address, shared, accepting })
    }

    /// Its URL for a path that begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Everything that it was asked, in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests().all.clone()
    }

    /// How often it was asked.
    pub fn n_requests(&self) -> usize {
        self.shared.requests().all.len()
    }

    /// What it was asked at this path.
    pub fn requests_to(&self, path: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.path == path).collect()
    }

    /// Answers everything that is held, from now on.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// Waits until it has been asked `n_requests` times in all.
    ///
    /// # Errors
    /// If `limit` passes first.
    pub async fn asked(&self, n_requests: usize, limit: Duration) -> Result<()> {
        wait_until(limit, &format!("the peer is asked {n_requests} times"), async || {
            let n_seen = self.n_requests();
            if n_seen >= n_requests { Ok(()) } else { Err(format!("asked {n_seen} times")) }
        })
        .await
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, mut request: Request) -> Request {
        let mut requests = self.requests();
        request.number = requests.all.len();
        let n_earlier = requests.n_by_path.entry(request.path.clone()).or_default();
        request.nth = *n_earlier;
        *n_earlier += 1;
        requests.all.push(request.clone());
        request
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                let shared = Arc::clone(&shared);
                // Its end is the client's to notice.
                connections.spawn(async move { serve(stream, &shared).await.ok() });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, shared: &Shared) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let request = shared.take_in(read(&mut stream).await?);
    let answer = (shared.script)(&request);
    let ready = async {
        tokio::time::sleep(answer.delay).await;
        if answer.until_released {
            shared.released.subscribe().wait_for(|released| *released).await.ok();
        }
    };
    let mut rest = [0; 64];
    tokio::select! {
        () = ready => {}
        // A client sends no more before the answer: this is the end of the connection.
        _ = stream.read(&mut rest) => {
            if let Some(request) = shared.requests().all.get_mut(request.number) {
                request.is_given_up = true;
            }
            return Ok(());
        }
    }
    if answer.hangs_up {
        return Ok(());
    }
    let body = answer.body.to_string();
    let head = format!(
        "HTTP/1.1 {} Answer\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.status,
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}

async fn read(stream: &mut BufReader<TcpStream>) -> Result<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
        ensure!(head.len() < 64 * 1024, "the head is too long");
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let body = match headers.get("content-length") {
        Some(length) => {
            let mut body = vec![0; length.parse()?];
            stream.read_exact(&mut body).await?;
            body
        }
        None if headers.contains_key("transfer-encoding") => read_chunks(stream).await?,
        None => Vec::new(),
    };
    let body = String::from_utf8_lossy(&body).into_owned();
    let at = Instant::now();
    Ok(Request { number: 0, nth: 0, method, path, headers, body, at, is_given_up: false })
}

async fn read_chunks(stream: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await?);
        }
        let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16)?;
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(chunk.split_at(size).0);
    }
}
