//! Passes the messages of a client on a pipe on to an MCP server over HTTP, for clients that only start programs.
//!
//! Owns the headers that repeat what a message says, and the words for a server that cannot answer. Never knows what a
//! message asks for, and keeps nothing of a server but the version of the protocol: each message finds the server anew,
//! so that a relay goes on when its server is back.

mod answer;
mod message;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gathering_domain::{ExposeSecret as _, Secret};
use gathering_tools::{Outbound, OutboundError, OutboundRequest};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;

use self::message::Message;
use crate::http::{ACCEPTED, header_text};
use crate::offer::named_parameter;
use crate::pipe::{self, Answering, PipeStop, Replies};
use crate::protocol::MODERN_VERSION;

/// The time to the head of an answer. No call of GatheRing takes longer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);

/// A server that messages are passed on to.
pub struct Relay {
    outbound: Outbound,
    url: String,
    token: Secret,
    /// What the server has answered to `initialize`, which every later message of that client repeats.
    version: Mutex<Option<String>>,
}

impl Relay {
    /// A relay to the MCP endpoint of the server at `url`: `url` itself if it ends with `/mcp`, else `/mcp` below it.
    /// `token` is sent as `Authorization: Bearer`, to this server only.
    ///
    /// # Errors
    /// [`OutboundError::InvalidRequest`] if the URL is none of a server, or the token cannot be sent.
    pub fn new(outbound: Outbound, url: &str, token: Secret) -> Result<Self, OutboundError> {
        let url = endpoint(url)?;
        let relay = Self { outbound, url, token, version: Mutex::default() };
        relay.request(&Message::default())?;
        Ok(relay)
    }

    /// The address of the endpoint.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Passes on the messages of one client, a line each, until it closes the pipe and the last message is answered, or
    /// until `stop`. A message that the server cannot be asked is answered with an error that says why.
    ///
    /// Cancel: calls that go on are dropped, and the server is hung up on.
    ///
    /// # Errors
    /// If the input breaks, or has a line without an end.
    pub async fn serve_lines(
        &self,
        input: impl AsyncRead + Unpin,
        output: impl AsyncWrite + Unpin,
        stop: &PipeStop,
    ) -> std::io::Result<()> {
        pipe::serve(self, input, output, stop).await
    }

    /// A request to the server without its body.
    fn request(&self, message: &Message) -> Result<OutboundRequest, OutboundError> {
        let request = OutboundRequest::new("POST", &self.url)?
            .timeout(HEAD_TIMEOUT)
            .max_response_bytes(usize::MAX)
            .header("authorization", &format!("Bearer {}", self.token.expose_secret()))?
            .header("content-type", "application/json")?
            .header("accept", ACCEPTED)?;
        if message.is_modern {
            return with_headers_of(request, message);
        }
        let version = self.version.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match version.filter(|_| message.method != "initialize") {
            Some(version) => request.header("mcp-protocol-version", &header_text(&version)),
            None => Ok(request),
        }
    }

    /// Remembers the version of a handshake.
    fn note_handshake(&self, message: &Message, answer: &[u8]) {
        if message.method != "initialize" {
            return;
        }
        let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
        if let Some(version) = answer["result"]["protocolVersion"].as_str() {
            *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(version.to_owned());
        }
    }
}

impl Answering for Relay {
    async fn answer(&self, text: Vec<u8>, replies: Replies) {
        let (message, text) = match Message::read(text) {
            Ok(read) => read,
            Err(refused) => return replies.send(refused.to_string().into_bytes()).await,
        };
        let passed = match self.request(&message) {
            Ok(request) => self.pass_on(request.body(&Value::String(text)), &message, &replies).await,
            Err(error) => Err(error.to_string()),
        };
        let Err(reason) = passed else { return };
        tracing::warn!(method = message.method, "a message got no answer of the server: {reason}");
        if let Some(error) = message.error(&reason) {
            replies.send(error.to_string().into_bytes()).await;
        }
    }
}

/// Says again in headers what the message says, as is asked since 2026-07-28.
fn with_headers_of(request: OutboundRequest, message: &Message) -> Result<OutboundRequest, OutboundError> {
    let request = request
        .header("mcp-protocol-version", MODERN_VERSION)?
        .header("mcp-method", &header_text(&message.method))?;
    match &message.name {
        Some(name) => request.header("mcp-name", &header_text(name)),
        None => Ok(request),
    }
}

fn endpoint(url: &str) -> Result<String, OutboundError> {
    let wrong = |reason: String| OutboundError::InvalidRequest { reason };
    let mut url = Url::parse(url).map_err(|error| wrong(format!("invalid URL: {error}")))?;
    let path = url.path().trim_end_matches('/').to_owned();
    if !path.ends_with("/mcp") {
        url.set_path(&format!("{path}/mcp"));
    }
    Ok(url.into())
}

/// The value that the header `Mcp-Name` repeats.
fn name_of(method: &str, params: &Value) -> Option<String> {
    params[named_parameter(method)?].as_str().map(str::to_owned)
}
