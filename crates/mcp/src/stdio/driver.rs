//! The task of one server process: reads, writes, and ends the process.
//!
//! Invariant: when the task ends, the process group is gone and every request on it has an outcome.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::lines::{Line, Lines};
use super::link::Shared;
use super::process::{Process, describe};
use super::stderr::LastLines;
use crate::calls::{Answer, Outcome};
use crate::error::ServerEnd;
use crate::message::{self, Message, RpcError};

/// Requests of the server that are answered at once.
const MAX_ANSWERING: usize = 32;
/// Lines in a row that are no messages, before the server is given up.
const MAX_JUNK: usize = 10_000;
/// How long a server that has closed its output may take to end.
const AFTER_OUTPUT: Duration = Duration::from_secs(2);
/// How long the last words of an ended process may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Drives the process until it ends, or until the link is closed.
pub(super) async fn drive(mut process: Process, shared: Arc<Shared>, queue: mpsc::Receiver<Vec<u8>>) {
    let _ends = AlwaysEnds(&shared);
    let (stdin, stdout) = (process.child.stdin.take(), process.child.stdout.take());
    let stderr = process.child.stderr.take();
    let last = LastLines::new(shared.limits.stderr_lines);
    let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else { return };

    let mut errors = pin!(last.read(stderr));
    let mut errors_end = false;
    let end = async {
        let cause = talk(stdin, stdout, &shared, queue).await;
        let patience = if matches!(cause, Stop::OutOfTime) { Duration::ZERO } else { AFTER_OUTPUT };
        (cause, process.end(patience).await)
    };
    let mut end = pin!(end);
    let (cause, status) = loop {
        tokio::select! {
            ended = &mut end => break ended,
            () = &mut errors, if !errors_end => errors_end = true,
        }
    };
    if !errors_end {
        let _ = timeout(LAST_WORDS, errors).await;
    }
    let how = match cause {
        Stop::Broken(why) => format!("{why} ({})", describe(&status)),
        Stop::OutputClosed | Stop::OutOfTime => describe(&status),
    };
    shared.end(ServerEnd { how, last_lines: last.list() });
}

/// Ends the link also if the task panics.
struct AlwaysEnds<'a>(&'a Shared);

impl Drop for AlwaysEnds<'_> {
    fn drop(&mut self) {
        self.0.end_unless_ended();
    }
}

/// Why the conversation is over.
enum Stop {
    OutputClosed,
    /// The link was closed, and the server did not end in time.
    OutOfTime,
    /// The server breaks the rules.
    Broken(String),
}

/// Reads and writes until the server closes its output. Its input is closed when this returns, or earlier when the link
/// is closed: then calls in flight may still be answered.
async fn talk(
    stdin: impl AsyncWrite + Unpin,
    stdout: impl AsyncRead + Unpin,
    shared: &Shared,
    queue: mpsc::Receiver<Vec<u8>>,
) -> Stop {
    let out_of_time = async {
        shared.closing.cancelled().await;
        sleep(shared.patience()).await;
    };
    tokio::select! {
        stop = read(stdout, shared) => stop,
        () = write(stdin, shared, queue) => Stop::OutputClosed,
        () = out_of_time => Stop::OutOfTime,
    }
}

/// Never returns: a server whose input is closed may still write.
async fn write(mut stdin: impl AsyncWrite + Unpin, shared: &Shared, mut queue: mpsc::Receiver<Vec<u8>>) {
    let writing = async {
        while let Some(line) = queue.recv().await {
            // A server that has closed its input is about to end, or answers nothing more.
            if stdin.write_all(&line).await.is_err() || stdin.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = shared.closing.cancelled() => {}
    }
    drop(stdin);
    pending().await
}

type Answering<'a> = FuturesUnordered<BoxFuture<'a, Value>>;

async fn read(stdout: impl AsyncRead + Unpin, shared: &Shared) -> Stop {
    let mut lines = Lines::new(stdout, shared.limits.max_line_bytes);
    let mut answering = Answering::new();
    let mut junk = 0;
    loop {
        tokio::select! {
            line = lines.next() => match line {
                Ok(Some(line)) => {
                    let understood = take(line, shared, &mut answering);
                    junk = if understood { 0 } else { junk + 1 };
                    if junk > MAX_JUNK {
                        return Stop::Broken("it writes lines that are no messages".to_owned());
                    }
                }
                Ok(None) => return Stop::OutputClosed,
                Err(error) => return Stop::Broken(format!("its output is unreadable: {error}")),
            },
            Some(response) = answering.next() => shared.try_send(&response),
        }
    }
}

/// Takes a line. Whether it was understood.
fn take<'a>(line: Line, shared: &'a Shared, answering: &mut Answering<'a>) -> bool {
    match line {
        Line::Whole(text) => match message::read(&text) {
            Some(messages) => {
                for message in messages {
                    dispatch(message, text.len(), shared, answering);
                }
                true
            }
            None if text.iter().all(u8::is_ascii_whitespace) => true,
            None => fail(answered(&text, &text), Outcome::Garbled, shared),
        },
        Line::TooLong { head, tail } => {
            let only = || shared.calls.only().filter(|_| starts_answer(&head));
            fail(answered(&head, &tail).or_else(only), Outcome::TooLong, shared)
        }
    }
}

fn dispatch<'a>(message: Message, size_bytes: usize, shared: &'a Shared, answering: &mut Answering<'a>) {
    match message {
        Message::Response { id, outcome } => {
            let outcome = match outcome {
                Ok(result) => Outcome::Answered(Answer { result, size_bytes }),
                Err(error) => Outcome::Refused(error),
            };
            match id.as_u64() {
                Some(id) => shared.calls.end(id, outcome),
                None => shared.calls.note_stray(),
            }
        }
        Message::Notification { method, params } => {
            let calls = &shared.calls;
            shared.peer.note(&method, &params, |token| match token {
                Some(token) => calls.call_of(token),
                None => calls.only_call(),
            });
        }
        Message::Request { id, .. } if answering.len() >= MAX_ANSWERING => {
            shared.try_send(&message::response(&id, Err(RpcError::new(-32000, "too many requests at once"))));
        }
        Message::Request { id, method, params } => {
            // A server does not say which call it asks for.
            let call = shared.calls.only_call();
            answering.push(Box::pin(async move {
                let answered = shared.peer.answer(Some(&id), &method, &params, call.as_deref()).await;
                message::response(&id, answered)
            }));
        }
    }
}

/// Ends the request that a line answers which cannot be read. Whether there is one.
fn fail(id: Option<u64>, outcome: Outcome, shared: &Shared) -> bool {
    match id {
        Some(id) => shared.calls.end(id, outcome),
        None => shared.calls.note_stray(),
    }
    id.is_some()
}

/// The request that a line answers, from its ends: SDKs write the id first (Python, Rust) or last (TypeScript).
fn answered(head: &[u8], tail: &[u8]) -> Option<u64> {
    let (head, tail) = (String::from_utf8_lossy(head), String::from_utf8_lossy(tail));
    if let Some(rest) = head.strip_prefix(r#"{"jsonrpc":"2.0","id":"#) {
        let (id, rest) = rest.split_once(',')?;
        return id.parse().ok().filter(|_| rest.starts_with(r#""result""#) || rest.starts_with(r#""error""#));
    }
    if !starts_answer(head.as_bytes()) {
        return None;
    }
    let (_, id) = tail.trim_end().strip_suffix('}')?.rsplit_once(r#","id":"#)?;
    id.parse().ok()
}

fn starts_answer(head: &[u8]) -> bool {
    [r#"{"result""#, r#"{"error""#, r#"{"jsonrpc":"2.0","result""#, r#"{"jsonrpc":"2.0","id""#]
        .iter()
        .any(|start| head.starts_with(start.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_line_says_at_its_ends_which_request_it_answers() {
        let of = |line: &str| answered(line.as_bytes(), line.as_bytes());
        assert_eq!(of(r#"{"jsonrpc":"2.0","id":7,"result":{"#), Some(7));
        assert_eq!(of(r#"{"result":{"text":"x","id":3},"jsonrpc":"2.0","id":8}"#), Some(8));
        assert_eq!(of(r#"{"jsonrpc":"2.0","id":0,"method":"roots/list"}"#), None);
        assert_eq!(of(r#"{"method":"roots/list","jsonrpc":"2.0","id":0}"#), None);
        assert_eq!(of("hello"), None);
    }
}
