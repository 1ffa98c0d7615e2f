//! The messages of one client on a pipe: read line by line, answered side by side, cancelled, ended in order.
//!
//! Owns the lines and the calls in flight. Never knows what a message asks for: an [`Answering`] does.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Result};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::stdio::{Line, Lines};

/// The most messages that are answered at the same time; further ones wait in the pipe.
const MAX_AT_ONCE: usize = 64;

/// The longest message, in bytes. A longer one is refused, and the rest of its line is skipped.
pub(crate) const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// How long the last answers may take to be written: a client that does not read must not keep the process.
const LAST_WRITES: Duration = Duration::from_secs(1);

const INVALID_REQUEST: i64 = -32600;

/// When a pipe is no longer served, and how long calls may then go on.
#[derive(Debug, Clone)]
pub struct PipeStop {
    /// Cancelled: nothing more is read. The end of the input cancels it, too.
    pub drain: CancellationToken,
    /// Cancelled: calls that go on are dropped.
    pub now: CancellationToken,
    /// How long calls may go on after `drain`.
    pub grace: Duration,
}

/// At the end of the input only, and calls may then go on as long as they do.
impl Default for PipeStop {
    fn default() -> Self {
        Self { drain: CancellationToken::new(), now: CancellationToken::new(), grace: Duration::MAX }
    }
}

/// What answers the messages of a pipe.
pub(crate) trait Answering: Send + Sync {
    /// Answers one message with any number of lines.
    ///
    /// Cancel: the client has cancelled the call, or has gone.
    fn answer(&self, message: Vec<u8>, replies: Replies) -> impl Future<Output = ()> + Send;
}

/// Where the lines of answers go.
#[derive(Clone)]
pub(crate) struct Replies(mpsc::Sender<Vec<u8>>);

impl Replies {
    /// Writes a message, which is JSON: a line feed in it stands between its parts and is written as a space. Waits
    /// while the client does not read.
    pub(crate) async fn send(&self, mut message: Vec<u8>) {
        for byte in &mut message {
            if matches!(*byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        message.push(b'\n');
        // Nobody reads any more if this fails, which the writer reports.
        self.0.send(message).await.ok();
    }
}

/// Serves a pipe until the client closes it and the last message is answered, or until `stop`.
///
/// Cancel: calls that go on are dropped.
///
/// # Errors
/// If the input breaks, or has a line without an end. A client that no longer reads has ended.
pub(crate) async fn serve<A: Answering>(
    answering: &A,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin,
    stop: &PipeStop,
) -> Result<()> {
    let (replies, written) = mpsc::channel(MAX_AT_ONCE);
    let answered = CancellationToken::new();
    let reading = async {
        let read = read(answering, Replies(replies), input, stop).await;
        answered.cancel();
        read
    };
    let overdue = async {
        answered.cancelled().await;
        sleep(LAST_WRITES).await;
    };
    let both = async { tokio::try_join!(reading, write(written, output)) };
    tokio::select! {
        ended = both => match ended {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            ended => ended.map(drop),
        },
        () = overdue => Ok(()),
    }
}

async fn write(mut written: mpsc::Receiver<Vec<u8>>, mut output: impl AsyncWrite + Unpin) -> Result<()> {
    while let Some(line) = written.recv().await {
        output.write_all(&line).await?;
        output.flush().await?;
    }
    Ok(())
}

async fn read<A: Answering>(
    answering: &A,
    replies: Replies,
    input: impl AsyncRead + Unpin,
    stop: &PipeStop,
) -> Result<()> {
    let mut lines = Lines::new(input, MAX_LINE_BYTES);
    let mut calls =
        Calls { answering, replies, next: 0, cancels: BTreeMap::new(), running: FuturesUnordered::new() };
    loop {
        tokio::select! {
            line = lines.next(), if calls.running.len() < MAX_AT_ONCE => match line? {
                Some(Line::Whole(text)) if text.iter().all(u8::is_ascii_whitespace) => {}
                Some(Line::Whole(text)) => calls.take(text),
                Some(Line::TooLong { head, tail }) => calls.refuse(&head, &tail),
                None => break,
            },
            Some(number) = calls.running.next() => {
                calls.cancels.remove(&number);
            }
            () = stop.drain.cancelled() => break,
        }
    }
    stop.drain.cancel();
    let rest = async { while calls.running.next().await.is_some() {} };
    tokio::select! {
        () = rest => {}
        () = sleep(stop.grace) => {}
        () = stop.now.cancelled() => {}
    }
    Ok(())
}

/// The calls in flight, numbered in the order of their arrival.
struct Calls<'a, A> {
    answering: &'a A,
    replies: Replies,
    next: u64,
    /// How the calls with an id are cancelled.
    cancels: BTreeMap<u64, (Value, CancellationToken)>,
    running: FuturesUnordered<BoxFuture<'a, u64>>,
}

impl<'a, A: Answering> Calls<'a, A> {
    fn take(&mut self, text: Vec<u8>) {
        if let Some(id) = cancelled_by(&text) {
            let of_id = self.cancels.values().filter(|(other, _)| *other == id);
            of_id.for_each(|(_, cancel)| cancel.cancel());
        }
        let cancel = CancellationToken::new();
        if let Some(id) = id_of(&text) {
            self.cancels.insert(self.next, (id, cancel.clone()));
        }
        let (answering, replies) = (self.answering, self.replies.clone());
        self.run(async move {
            // Nothing more is said of a call that was cancelled.
            cancel.run_until_cancelled(answering.answer(text, replies)).await;
        });
    }

    /// Refuses a message that is too long. SDKs write its id first or last.
    fn refuse(&mut self, head: &[u8], tail: &[u8]) {
        let message = format!("Invalid request: the message has more than {MAX_LINE_BYTES} bytes");
        let error = json!({"code": INVALID_REQUEST, "message": message});
        let reply = json!({"jsonrpc": "2.0", "id": id_at_the_ends(head, tail), "error": error});
        let replies = self.replies.clone();
        self.run(async move { replies.send(reply.to_string().into_bytes()).await });
    }

    fn run(&mut self, call: impl Future<Output = ()> + Send + 'a) {
        let number = self.next;
        self.next += 1;
        self.running.push(Box::pin(async move {
            call.await;
            number
        }));
    }
}

/// The id of a request.
fn id_of(text: &[u8]) -> Option<Value> {
    #[derive(Deserialize)]
    struct Identified {
        id: Option<Value>,
        #[serde(rename = "method")]
        _method: serde::de::IgnoredAny,
    }
    serde_json::from_slice::<Identified>(text).ok()?.id
}

/// The id of the request that this message cancels.
fn cancelled_by(text: &[u8]) -> Option<Value> {
    #[derive(Deserialize)]
    struct Cancelled {
        method: String,
        params: Params,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        request_id: Value,
    }
    let message = serde_json::from_slice::<Cancelled>(text).ok()?;
    (message.method == "notifications/cancelled").then_some(message.params.request_id)
}

/// The id of a message of which only the ends are known, if it is the first or the second field, or the last one.
fn id_at_the_ends(head: &[u8], tail: &[u8]) -> Value {
    let (head, tail) = (String::from_utf8_lossy(head), String::from_utf8_lossy(tail));
    let compact = |text: &str| text.replace(": ", ":").replace(", ", ",").replace("{ ", "{");
    let head = compact(&head);
    let head = head.trim_start().trim_start_matches('{').trim_start_matches(r#""jsonrpc":"2.0","#);
    let first =
        head.strip_prefix(r#""id":"#).and_then(|rest| rest.split_once(',')).map(|(id, _)| id.to_owned());
    let last = || {
        let tail = compact(tail.trim_end());
        let (_, id) = tail.strip_suffix('}')?.rsplit_once(r#","id":"#)?;
        Some(id.to_owned())
    };
    let id = first.or_else(last).and_then(|id| serde_json::from_str::<Value>(&id).ok());
    id.filter(|id| id.is_string() || id.is_i64() || id.is_u64()).unwrap_or_default()
}
