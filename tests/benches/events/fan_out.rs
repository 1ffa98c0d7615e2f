//! One event to many readers, each with a stream of its own, beside the same bytes over as many bare connections.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gathering_e2e::Client;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::start;
use crate::table::{Report, quantile};

/// The readers of one account: fewer than an account may have.
const PER_ACCOUNT: usize = 200;

/// More than anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The pause between two events: each is measured alone.
const PAUSE: Duration = Duration::from_millis(20);

/// When each event was sent.
type Sent = Arc<Mutex<Vec<Instant>>>;

pub(crate) async fn measure(n_readers: usize, n_events: usize, report: &mut Report) -> Result<()> {
    let (_database, server, owner) = start().await?;
    let project = owner.create_project("shared").await?;
    let mut tokens = Vec::new();
    for number in 0..n_readers.div_ceil(PER_ACCOUNT) {
        let reader = server.client().join(&format!("reader{number}@example.org")).await?;
        let member = format!("/api/v1/projects/{project}/members/{}", reader.user_id().await?);
        owner.put(&member, &json!({"role": "viewer"})).await?.expect(204)?;
        tokens.push(reader.token().context("no token")?.to_owned());
    }
    let (sent, (told, mut heard)) = (Sent::default(), mpsc::unbounded_channel());
    for number in 0..n_readers {
        let stream = TcpStream::connect(server.address()).await?;
        let token = &tokens[number / PER_ACCOUNT];
        let head = format!(
            "GET /api/v1/events?project_id={project} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        begin(stream, head, &sent, &told).await?;
    }
    let post = async |number: usize| post(&owner, &project, number).await;
    let latencies = rounds(n_readers, n_events, &sent, &mut heard, post).await?;

    let bare = Bare::open(n_readers).await?;
    let (sent, (told, mut heard)) = (Sent::default(), mpsc::unbounded_channel());
    let mut writers = bare.connect(&sent, &told).await?;
    let bytes = |number: usize| format!("data: {{{}\"n\":{number}}}\n\n", "\"filling\":0,".repeat(25));
    let mut limits = Vec::new();
    for number in 0..n_events {
        note(&sent);
        for writer in &mut writers {
            writer.write_all(bytes(number).as_bytes()).await?;
        }
        collect(n_readers, &mut heard, &mut limits).await?;
        tokio::time::sleep(PAUSE).await;
    }
    for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
        let limit = ("the same bytes over bare connections", quantile(&limits, q)?);
        report.add(
            format!("from posting an event to each of {n_readers} streams, {name}"),
            quantile(&latencies, q)?,
            limit,
        );
    }
    Ok(())
}

/// Starts to read a connection, once the first line has come that says that it is one.
async fn begin(
    mut stream: TcpStream,
    head: String,
    sent: &Sent,
    told: &mpsc::UnboundedSender<Duration>,
) -> Result<()> {
    stream.write_all(head.as_bytes()).await?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    // The greeting comes before anything else.
    while !line.starts_with("retry:") {
        line.clear();
        let n_bytes = tokio::time::timeout(LIMIT, reader.read_line(&mut line)).await??;
        ensure!(
            n_bytes > 0 && !line.starts_with("HTTP/1.1 4") && !line.starts_with("HTTP/1.1 5"),
            "refused: {line}"
        );
    }
    tokio::spawn(read(reader, Arc::clone(sent), told.clone()));
    Ok(())
}

/// Tells how long each event took. The number of an event is its last field.
async fn read(mut reader: BufReader<TcpStream>, sent: Sent, told: mpsc::UnboundedSender<Duration>) {
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line).await {
            Ok(n_bytes) if n_bytes > 0 => {}
            _ => return,
        }
        let arrived = Instant::now();
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let number = data.split("\"n\":").nth(1).and_then(|rest| rest.split('}').next());
        let Some(number) = number.and_then(|number| number.parse::<usize>().ok()) else { continue };
        let at = sent.lock().unwrap_or_else(PoisonError::into_inner).get(number).copied();
        if let Some(at) = at {
            told.send(arrived - at).ok();
        }
    }
}

fn note(sent: &Sent) {
    sent.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
}

async fn post(owner: &Client, project: &str, number: usize) -> Result<()> {
    let body = json!({"project_id": project, "type": "order.paid", "data": {"n": number}});
    owner.post("/api/v1/events", &body).await?.expect(201)?;
    Ok(())
}

async fn rounds(
    n_readers: usize,
    n_events: usize,
    sent: &Sent,
    heard: &mut mpsc::UnboundedReceiver<Duration>,
    post: impl AsyncFn(usize) -> Result<()>,
) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    for number in 0..n_events {
        note(sent);
        post(number).await?;
        collect(n_readers, heard, &mut latencies).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(latencies)
}

async fn collect(
    n_readers: usize,
    heard: &mut mpsc::UnboundedReceiver<Duration>,
    latencies: &mut Vec<Duration>,
) -> Result<()> {
    for n_heard in 0..n_readers {
        match tokio::time::timeout(LIMIT, heard.recv()).await {
            Ok(Some(latency)) => latencies.push(latency),
            _ => bail!("only {n_heard} of {n_readers} readers got an event"),
        }
    }
    Ok(())
}

/// Connections without a server in between.
struct Bare {
    listener: TcpListener,
    n_readers: usize,
}

impl Bare {
    async fn open(n_readers: usize) -> Result<Self> {
        Ok(Self { listener: TcpListener::bind("127.0.0.1:0").await?, n_readers })
    }

    /// Connects the readers; answers with the other ends.
    async fn connect(&self, sent: &Sent, told: &mpsc::UnboundedSender<Duration>) -> Result<Vec<TcpStream>> {
        let address = self.listener.local_addr()?;
        let mut writers = Vec::new();
        for _ in 0..self.n_readers {
            let (reader, accepted) = tokio::join!(TcpStream::connect(address), self.listener.accept());
            let writer = accepted?.0;
            writer.set_nodelay(true)?;
            tokio::spawn(read(BufReader::new(reader?), Arc::clone(sent), told.clone()));
            writers.push(writer);
        }
        Ok(writers)
    }
}
