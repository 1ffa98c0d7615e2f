//! The answer to one request: JSON, or a stream of events that ends with it.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use gathering_tools::{OutboundError, OutboundStream};
use tokio::time::sleep;

use super::link::Shared;
use super::sse::SseReader;
use crate::McpError;
use crate::calls::Answer;
use crate::message::{self, Message};
use crate::tool_call::ToolCall;

/// Requests of the server that are answered at once; further ones wait for the end of one.
const MAX_ANSWERING: usize = 32;

/// How often the stream of one answer is read on.
const MAX_RESUMED: usize = 100;

/// A request whose answer is awaited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) id: u64,
    pub(super) call: Option<&'a Arc<ToolCall>>,
}

/// Reads the answer to `asked`.
///
/// # Errors
/// What the server says, or that the answer is missing or too long.
pub(super) async fn read_answer(
    mut stream: OutboundStream,
    asked: Asked<'_>,
    shared: &Shared,
) -> Result<Answer, McpError> {
    match media_type(&stream).as_str() {
        "text/event-stream" => read_to_answer(stream, asked, shared).await,
        "application/json" => {
            let body = read_body(&mut stream, shared.limits.max_line_bytes).await?;
            let messages = message::read(&body).ok_or_else(|| invalid("it is not JSON-RPC"))?;
            for message in messages {
                if let Took::Answer(answer) = take(message, Some(asked), body.len(), shared) {
                    return answer;
                }
            }
            Err(invalid("it answers another request"))
        }
        other => Err(invalid(&format!("its content type is `{}`", message::shortened(other, 64)))),
    }
}

/// Reads events until the answer. A stream that ends or breaks before is read on where the server says that this is
/// possible.
async fn read_to_answer(
    mut stream: OutboundStream,
    asked: Asked<'_>,
    shared: &Shared,
) -> Result<Answer, McpError> {
    let mut events = SseReader::new(shared.limits.max_line_bytes);
    for _ in 0..MAX_RESUMED {
        let error = match read_events(stream, &mut events, Some(asked), shared).await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => invalid("the stream ended before it"),
            Err(error @ McpError::Outbound(OutboundError::BrokenOff { .. })) => error,
            Err(error) => return Err(error),
        };
        let Some(place) = events.read_on() else { return Err(error) };
        sleep(place.pause).await;
        // The server may have forgotten the session; the call was accepted nevertheless.
        let resumed = shared.open_stream(Some(&place.last_id)).await.ok().flatten();
        stream = resumed.ok_or(error)?;
    }
    Err(invalid("the stream ended before it, again and again"))
}

/// Reads the whole body, at most `limit` bytes.
pub(super) async fn read_body(stream: &mut OutboundStream, limit: usize) -> Result<Vec<u8>, McpError> {
    let mut body = Vec::new();
    while let Some(part) = stream.chunk().await? {
        if body.len() + part.len() > limit {
            return Err(McpError::TooLarge { limit_bytes: limit });
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// Reads events until the answer to `asked`, or to the end of the stream. What else comes in it is taken on the way.
pub(super) async fn read_events(
    mut stream: OutboundStream,
    events: &mut SseReader,
    asked: Option<Asked<'_>>,
    shared: &Shared,
) -> Result<Option<Answer>, McpError> {
    let limit_bytes = shared.limits.max_line_bytes;
    let mut answering: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
    loop {
        let part = tokio::select! {
            part = stream.chunk(), if answering.len() < MAX_ANSWERING => part?,
            Some(()) = answering.next() => continue,
        };
        let Some(part) = part else { return Ok(None) };
        for event in events.take(&part).map_err(|_| McpError::TooLarge { limit_bytes })? {
            // As on standard output: what is no message is passed over.
            for message in message::read(&event).unwrap_or_default() {
                match take(message, asked, event.len(), shared) {
                    Took::Answer(answer) => return answer.map(Some),
                    Took::Question(answering_it) => answering.push(answering_it),
                    Took::Other => {}
                }
            }
        }
    }
}

/// What a message of a stream was.
enum Took<'a> {
    /// What the request waits for.
    Answer(Result<Answer, McpError>),
    /// A request of the server, and its answering.
    Question(BoxFuture<'a, ()>),
    Other,
}

fn take<'a>(message: Message, asked: Option<Asked<'_>>, size_bytes: usize, shared: &'a Shared) -> Took<'a> {
    match message {
        Message::Response { id, outcome } if asked.is_some_and(|asked| id.as_u64() == Some(asked.id)) => {
            Took::Answer(outcome.map(|result| Answer { result, size_bytes }).map_err(McpError::from))
        }
        Message::Response { .. } => Took::Other,
        Message::Request { id, method, params } => {
            let call = call_of(asked, None, shared);
            Took::Question(Box::pin(shared.answer_server((id, method, params), call)))
        }
        Message::Notification { method, params } => {
            shared.peer.note(&method, &params, |token| call_of(asked, token, shared));
            Took::Other
        }
    }
}

/// The call that a message belongs to: what comes in the answer to a call is of that call. Elsewhere a server does not say
/// which one it means.
fn call_of(asked: Option<Asked<'_>>, token: Option<u64>, shared: &Shared) -> Option<Arc<ToolCall>> {
    match asked {
        Some(asked) if token.is_none_or(|token| token == asked.id) => asked.call.cloned(),
        None if token.is_none() => shared.calls.only(),
        _ => None,
    }
}

fn media_type(stream: &OutboundStream) -> String {
    let content_type = stream.headers.get("content-type").and_then(|value| value.to_str().ok());
    content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn invalid(reason: &str) -> McpError {
    McpError::InvalidAnswer { reason: reason.to_owned() }
}
