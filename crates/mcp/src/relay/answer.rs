//! What a server answers, passed on, or in words why it does not.

use std::ops::Deref;
use std::time::Duration;

use gathering_tools::{OutboundError, OutboundRequest, OutboundStream};
use serde_json::Value;
use tokio::time::timeout;

use super::{Message, Relay};
use crate::http::SseReader;
use crate::message::shortened;
use crate::pipe::Replies;

/// The largest message of a server, in bytes: a file of 4 MiB in Base64, and in JSON, is far from it.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// How long an answer that has begun may be silent. A server that keeps a stream open says so more often.
const MAX_SILENCE: Duration = Duration::from_secs(120);

/// The longest text of a server that is repeated, in bytes.
const MAX_TEXT: usize = 1024;

impl Relay {
    /// Sends a message, and passes the answer on.
    ///
    /// # Errors
    /// Why there is no answer, for the person at the client.
    pub(super) async fn pass_on(
        &self,
        request: OutboundRequest,
        message: &Message,
        replies: &Replies,
    ) -> Result<(), String> {
        let stream = self.outbound.open(request).await.map_err(|error| self.unreachable(&error))?;
        let header = |name: &str| stream.headers.get(name).and_then(|value| value.to_str().ok());
        let media_type = header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
        if stream.status == 200 && media_type.trim().eq_ignore_ascii_case("text/event-stream") {
            return self.pass_on_events(stream, message, replies).await;
        }
        let (status, pause) = (stream.status, header("retry-after").map(str::to_owned));
        let body = self.read_body(stream).await?;
        match answer_of(&body, message) {
            Some(_) if message.id.is_none() => Err(self.refusal(status, pause.as_deref(), &body)),
            Some(Answer::ToThis) => {
                self.note_handshake(message, &body);
                replies.send(body).await;
                Ok(())
            }
            Some(Answer::ToNobody(reason)) => Err(reason),
            None if matches!(status, 200..=299) && message.id.is_none() => Ok(()),
            None => Err(self.refusal(status, pause.as_deref(), &body)),
        }
    }

    async fn pass_on_events(
        &self,
        mut stream: OutboundStream,
        message: &Message,
        replies: &Replies,
    ) -> Result<(), String> {
        let mut events = SseReader::new(MAX_ANSWER_BYTES);
        let mut is_answered = message.id.is_none();
        while let Some(part) = self.part(&mut stream).await? {
            let whole = events.take(&part).map_err(|_| too_large())?;
            for event in whole.into_iter().filter(|event| serde_json::from_slice::<Value>(event).is_ok()) {
                if matches!(answer_of(&event, message), Some(Answer::ToThis)) {
                    is_answered = true;
                    self.note_handshake(message, &event);
                }
                replies.send(event).await;
            }
        }
        if is_answered {
            Ok(())
        } else {
            Err("the server ended its answer before it was complete".to_owned())
        }
    }

    async fn read_body(&self, mut stream: OutboundStream) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        while let Some(part) = self.part(&mut stream).await? {
            if body.len() + part.len() > MAX_ANSWER_BYTES {
                return Err(too_large());
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    async fn part(
        &self,
        stream: &mut OutboundStream,
    ) -> Result<Option<impl Deref<Target = [u8]> + use<>>, String> {
        match timeout(MAX_SILENCE, stream.chunk()).await {
            Ok(part) => part.map_err(|error| self.unreachable(&error)),
            Err(_) => Err(format!("the server at {} fell silent in its answer; {MAY_HAVE}", self.url)),
        }
    }

    fn unreachable(&self, error: &OutboundError) -> String {
        let url = &self.url;
        match error {
            OutboundError::Connect { .. } => {
                format!("the server at {url} cannot be reached: is it running? Nothing was sent")
            }
            OutboundError::Paused { .. } | OutboundError::Busy { .. } => {
                format!("the server at {url} is busy: {error}. Nothing was sent")
            }
            error if error.may_have_been_sent() => format!("{error}; {MAY_HAVE}"),
            error => error.to_string(),
        }
    }

    /// What an answer says that is no message.
    fn refusal(&self, status: u16, pause: Option<&str>, body: &[u8]) -> String {
        let url = &self.url;
        let again = pause.map_or_else(String::new, |pause| format!(" in {pause:.32} seconds"));
        let what = match status {
            401 => format!(
                "the server at {url} does not accept the API key: set GATHERING_API_KEY to a valid one"
            ),
            404 | 405 => format!("there is no MCP endpoint at {url}: check --server"),
            429 => format!("the server at {url} gets too many requests: try again{again}"),
            503 => format!("the server at {url} is not available now: try again{again}"),
            300..=399 => format!("{url} redirects to another address: name that one with --server"),
            202 => format!("the server at {url} took the request and did not answer it"),
            _ => format!("the server at {url} answered with status {status}"),
        };
        let problem: Value = serde_json::from_slice(body).unwrap_or_default();
        let detail = problem["detail"].as_str().or_else(|| problem["error"]["message"].as_str());
        match detail {
            Some(detail) => format!("{what} ({status}: {})", shortened(detail, MAX_TEXT)),
            None => format!("{what} ({status})"),
        }
    }
}

const MAY_HAVE: &str = "the request may have taken effect";

fn too_large() -> String {
    format!("the answer of the server is larger than {MAX_ANSWER_BYTES} bytes; {MAY_HAVE}")
}

/// What a JSON-RPC answer answers.
enum Answer {
    ToThis,
    /// It cannot say which message it answers, but that can only be this one; its reason.
    ToNobody(String),
}

/// `None` if the text is no JSON-RPC answer.
fn answer_of(text: &[u8], message: &Message) -> Option<Answer> {
    let read: Value = serde_json::from_slice(text).ok()?;
    if read["jsonrpc"] != "2.0" || (read.get("result").is_none() && read.get("error").is_none()) {
        return None;
    }
    if read.get("id") == message.id.as_ref() {
        return Some(Answer::ToThis);
    }
    let reason = read["error"]["message"].as_str().unwrap_or("the server answers another message");
    Some(Answer::ToNobody(shortened(reason, MAX_TEXT)))
}
