//! The link to one server over HTTP.
//!
//! Owns the session of the older protocol and the tokens. Its task sends cancellations and listens to what the server
//! says without being asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gathering_tools::{Outbound, OutboundStream};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::auth::{Tokens, refused};
use super::headers::{HttpSession, request_to, with_protocol, with_session};
use super::refusal;
use super::reply::{Asked, read_answer, read_body, read_events};
use super::sse::SseReader;
use crate::McpError;
use crate::calls::Answer;
use crate::config::{HttpEndpoint, McpLimits};
use crate::message;
use crate::peer::Peer;
use crate::protocol::{Dialect, LEGACY_VERSION};
use crate::stdio::with_progress_token;
use crate::tool_call::{CallsInFlight, ToolCall};

/// Cancellations that wait to be sent.
const MAX_QUEUED: usize = 64;
/// The largest body of a refusal that is read, in bytes.
const MAX_REFUSAL: usize = 64 * 1024;
/// The time for messages without an answer: cancellations, answers, the end of a session.
const BRIEF: Duration = Duration::from_secs(5);
/// The pause before listening again after the stream ended.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// A server over HTTP.
pub(crate) struct HttpLink {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What the link, its task and its streams share.
pub(super) struct Shared {
    pub(super) peer: Arc<Peer>,
    pub(super) limits: McpLimits,
    outbound: Outbound,
    endpoint: HttpEndpoint,
    tokens: Tokens,
    /// Only a successful handshake gives a session: refusals may name one, which is dead.
    session: watch::Sender<Option<HttpSession>>,
    next_id: AtomicU64,
    pub(super) calls: CallsInFlight,
    cancelled: mpsc::Sender<u64>,
    closing: CancellationToken,
    /// The server has forgotten the session.
    lost: CancellationToken,
}

impl HttpLink {
    /// A link, which has sent nothing yet.
    pub(crate) fn new(
        endpoint: &HttpEndpoint,
        limits: &McpLimits,
        outbound: Outbound,
        peer: Arc<Peer>,
    ) -> Self {
        let (cancelled, cancellations) = mpsc::channel(MAX_QUEUED);
        let shared = Arc::new(Shared {
            peer,
            limits: limits.clone(),
            outbound,
            tokens: Tokens::new(endpoint),
            endpoint: endpoint.clone(),
            session: watch::Sender::new(None),
            next_id: AtomicU64::new(1),
            calls: CallsInFlight::default(),
            cancelled,
            closing: CancellationToken::new(),
            lost: CancellationToken::new(),
        });
        let task = tokio::spawn(attend(Arc::clone(&shared), cancellations));
        Self { shared, task: Mutex::new(Some(task)) }
    }

    /// Sends a request and waits for its answer, however long that takes.
    ///
    /// Cancel: safe. Since 2026-07-28 hanging up cancels the call; before, the server is told.
    pub(crate) async fn request(
        &self,
        dialect: Dialect,
        method: &str,
        params: &Value,
        call: Option<&Arc<ToolCall>>,
    ) -> Result<Answer, McpError> {
        let shared = &*self.shared;
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        let params = match call {
            Some(_) => with_progress_token(params, id),
            None => params.clone(),
        };
        if let Some(call) = call {
            shared.calls.add(call);
        }
        let is_told = dialect == Dialect::Legacy && method != "initialize";
        let mut guard = InFlight { shared, id, is_told };
        let answered = shared.ask(dialect, &message::request(id, method, &params), Asked { id, call }).await;
        guard.is_told = false;
        if matches!(answered, Err(McpError::SessionLost)) {
            shared.lost.cancel();
        }
        answered
    }

    /// Sends a notification.
    pub(crate) async fn notify(
        &self,
        dialect: Dialect,
        method: &str,
        params: &Value,
    ) -> Result<(), McpError> {
        let message = message::notification(method, params);
        self.shared.post(dialect, &message, &[]).await.map(drop)
    }

    /// Waits until the server has forgotten the session.
    pub(crate) async fn lost(&self) {
        self.shared.lost.cancelled().await;
    }

    /// Ends the session and the task.
    pub(crate) async fn close(&self) {
        self.shared.closing.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

impl Drop for HttpLink {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

impl Shared {
    async fn ask(&self, dialect: Dialect, message: &Value, asked: Asked<'_>) -> Result<Answer, McpError> {
        let headers = asked.call.map(|call| call.headers.as_slice()).unwrap_or_default();
        let stream = self.post(dialect, message, headers).await?;
        let offered = stream.headers.get("mcp-session-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        let answer = read_answer(stream, asked, self).await?;
        if message["method"] == "initialize" {
            let version = answer.result["protocolVersion"].as_str().unwrap_or(LEGACY_VERSION).to_owned();
            self.session.send_replace(Some(HttpSession { id: offered, version }));
        }
        Ok(answer)
    }

    /// Sends a message, and once more with a new token if the server does not know the token any more.
    async fn post(
        &self,
        dialect: Dialect,
        message: &Value,
        headers: &[(String, String)],
    ) -> Result<OutboundStream, McpError> {
        let session = self.session.borrow().clone();
        let mut is_repeated = false;
        loop {
            let token = self.tokens.token(&self.outbound).await?;
            let request = request_to(&self.endpoint, "POST", token.as_ref())?.body(message);
            let request = with_protocol(request, dialect, session.as_ref(), message, headers)?;
            let mut stream = self.outbound.open(request).await?;
            match stream.status {
                200..=299 => return Ok(stream),
                401 if !is_repeated && self.tokens.forget().await => is_repeated = true,
                401 => return Err(refused("it answered with status 401")),
                status => {
                    let body = read_body(&mut stream, MAX_REFUSAL).await.unwrap_or_default();
                    let has_session = dialect == Dialect::Legacy && session.is_some();
                    return Err(refusal::read(status, &body, has_session));
                }
            }
        }
    }

    /// Answers a request of the server.
    pub(super) async fn answer_server(
        &self,
        (id, method, params): (Value, String, Value),
        call: Option<Arc<ToolCall>>,
    ) {
        let answered = self.peer.answer(Some(&id), &method, &params, call.as_deref()).await;
        let response = message::response(&id, answered);
        self.send_brief(&response).await;
    }

    /// Sends a message whose loss does no harm that anybody could repair.
    async fn send_brief(&self, message: &Value) {
        match timeout(BRIEF, self.post(Dialect::Legacy, message, &[])).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                let error = self.peer.loggable(&error);
                tracing::debug!(server = %self.peer.server, error, "an MCP server took no message");
            }
            Err(_) => tracing::debug!(server = %self.peer.server, "an MCP server took no message in time"),
        }
    }

    /// Reads what the server says without being asked, as long as it offers that.
    async fn listen(&self) {
        loop {
            let session = self.session.subscribe().wait_for(Option::is_some).await.ok().as_deref().cloned();
            if session.flatten().is_none() {
                return;
            }
            match self.open_stream(None).await {
                Ok(Some(stream)) => {
                    let mut events = SseReader::new(self.limits.max_line_bytes);
                    let _ = read_events(stream, &mut events, None, self).await;
                    // What changed while nobody listened was not told.
                    self.peer.tools_changed.notify_one();
                }
                // The server offers no such stream.
                Ok(None) => return,
                Err(error) => {
                    let error = self.peer.loggable(&error);
                    tracing::debug!(server = %self.peer.server, error, "cannot listen to an MCP server");
                }
            }
            sleep(LISTEN_AGAIN).await;
        }
    }

    /// Opens a stream of what the server says, or one that ended after the event `last_id`. `None` if the server offers
    /// none.
    pub(super) async fn open_stream(
        &self,
        last_id: Option<&str>,
    ) -> Result<Option<OutboundStream>, McpError> {
        let session = self.session.borrow().clone();
        let Some(session) = session else { return Ok(None) };
        let token = self.tokens.token(&self.outbound).await?;
        let mut request = with_session(request_to(&self.endpoint, "GET", token.as_ref())?, &session)?;
        if let Some(last_id) = last_id {
            request = request.header("last-event-id", last_id)?;
        }
        let stream = self.outbound.open(request).await?;
        Ok((stream.status == 200).then_some(stream))
    }

    async fn end_session(&self) -> Result<(), McpError> {
        let session = self.session.borrow().clone();
        if let Some(session) = session.filter(|session| session.id.is_some()) {
            let token = self.tokens.token(&self.outbound).await?;
            let request = with_session(request_to(&self.endpoint, "DELETE", token.as_ref())?, &session)?;
            self.outbound.open(request).await?;
        }
        Ok(())
    }
}

/// The task of the link.
async fn attend(shared: Arc<Shared>, mut cancelled: mpsc::Receiver<u64>) {
    let telling = async {
        while let Some(id) = cancelled.recv().await {
            let params = json!({"requestId": id, "reason": "the caller went away"});
            shared.send_brief(&message::notification("notifications/cancelled", &params)).await;
        }
    };
    let listening = async {
        shared.listen().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = telling => {}
        () = listening => {}
        () = shared.closing.cancelled() => {}
    }
    if !shared.lost.is_cancelled() {
        // A server that is gone cannot be told, and forgets the session by itself.
        let _ = timeout(BRIEF, shared.end_session()).await;
    }
}

/// A request whose answer is awaited. Dropped before, it is cancelled.
struct InFlight<'a> {
    shared: &'a Shared,
    id: u64,
    is_told: bool,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.is_told && self.shared.cancelled.try_send(self.id).is_err() {
            tracing::debug!(server = %self.shared.peer.server, "too many calls were cancelled at once");
        }
    }
}
