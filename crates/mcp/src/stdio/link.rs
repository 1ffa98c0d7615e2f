//! The link to one server process. Its driver is the task that owns the process.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::driver::drive;
use super::process::Process;
use crate::McpError;
use crate::calls::{Answer, Calls};
use crate::config::{McpLimits, StdioCommand};
use crate::error::ServerEnd;
use crate::message;
use crate::peer::Peer;
use crate::tool_call::ToolCall;

/// Messages that wait to be written.
const MAX_QUEUED: usize = 64;

/// A server process.
pub(crate) struct StdioLink {
    shared: Arc<Shared>,
    driver: Mutex<Option<JoinHandle<()>>>,
}

/// What the link and its driver share.
pub(super) struct Shared {
    pub(super) calls: Calls,
    pub(super) peer: Arc<Peer>,
    pub(super) limits: McpLimits,
    pub(super) closing: CancellationToken,
    patience: OnceLock<Duration>,
    queue: mpsc::Sender<Vec<u8>>,
    end: watch::Sender<Option<ServerEnd>>,
}

impl StdioLink {
    /// Starts the process and its driver.
    ///
    /// # Errors
    /// [`McpError::Start`].
    pub(crate) fn start(
        command: &StdioCommand,
        limits: &McpLimits,
        peer: Arc<Peer>,
    ) -> Result<Self, McpError> {
        let process = Process::start(command)?;
        let (queue, queued) = mpsc::channel(MAX_QUEUED);
        let shared = Arc::new(Shared {
            calls: Calls::default(),
            peer,
            limits: limits.clone(),
            closing: CancellationToken::new(),
            patience: OnceLock::new(),
            queue,
            end: watch::Sender::new(None),
        });
        let driver = tokio::spawn(drive(process, Arc::clone(&shared), queued));
        Ok(Self { shared, driver: Mutex::new(Some(driver)) })
    }

    /// Sends a request and waits for its answer, however long that takes.
    ///
    /// Cancel: safe; the server is told, and what it answers nevertheless is dropped.
    pub(crate) async fn request(
        &self,
        method: &str,
        params: &Value,
        call: Option<&Arc<ToolCall>>,
    ) -> Result<Answer, McpError> {
        let shared = &*self.shared;
        let (id, outcome) = shared.calls.register(call.cloned())?;
        let mut guard = InFlight { shared, id, method, is_sent: false };
        let params = match call {
            Some(_) => with_progress_token(params, id),
            None => params.clone(),
        };
        let line = line_of(&message::request(id, method, &params));
        if shared.queue.send(line).await.is_err() {
            return Err(McpError::Ended { end: self.how_it_ended(), sent: false });
        }
        guard.is_sent = true;
        match outcome.await {
            Ok(outcome) => outcome.into_answer(shared.limits.max_line_bytes),
            Err(_) => Err(McpError::Ended { end: self.how_it_ended(), sent: true }),
        }
    }

    /// Sends a notification.
    pub(crate) async fn notify(&self, method: &str, params: &Value) -> Result<(), McpError> {
        let line = line_of(&message::notification(method, params));
        let sent = self.shared.queue.send(line).await;
        sent.map_err(|_| McpError::Ended { end: self.how_it_ended(), sent: false })
    }

    /// What the server did instead of answering, for the message of a failure.
    pub(crate) fn hint(&self) -> String {
        let mut hint = match self.shared.calls.n_strays() {
            0 => String::new(),
            n => format!("; {n} of its messages answered no call in flight"),
        };
        if let Some(end) = self.shared.end.borrow().as_ref().filter(|end| !end.last_lines.is_empty()) {
            hint.push_str("; its last lines: ");
            hint.push_str(&end.last_lines.join(" | "));
        }
        hint
    }

    /// Waits until the process has ended.
    pub(crate) async fn ended(&self) -> ServerEnd {
        let mut end = self.shared.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or_default(),
            Err(_) => ServerEnd::default(),
        }
    }

    /// Ends the process in order, and waits for its end: its input is closed, calls in flight may be answered within
    /// `patience`, and then the whole group is terminated.
    pub(crate) async fn close(&self, patience: Duration) {
        let _ = self.shared.patience.set(patience);
        self.shared.closing.cancel();
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(driver) = driver
            && let Err(error) = driver.await
        {
            tracing::error!(error = %error, "the task of an MCP server failed");
        }
    }

    fn how_it_ended(&self) -> ServerEnd {
        self.shared.end.borrow().clone().unwrap_or_default()
    }
}

impl Drop for StdioLink {
    fn drop(&mut self) {
        // The driver ends the process in order, also if nobody awaits it.
        self.shared.closing.cancel();
    }
}

impl Shared {
    /// Sends a message unless the server does not read: what it does not read must not fill our memory.
    pub(super) fn try_send(&self, message: &Value) {
        if self.queue.try_send(line_of(message)).is_err() {
            tracing::debug!(server = %self.peer.server, "an MCP server reads nothing; a message to it was dropped");
        }
    }

    pub(super) fn end(&self, end: ServerEnd) {
        self.calls.end_all(&end);
        self.end.send_replace(Some(end));
    }

    /// How long the process may take to end once the link is closed.
    pub(super) fn patience(&self) -> Duration {
        self.patience.get().copied().unwrap_or(self.limits.shutdown)
    }

    pub(super) fn end_unless_ended(&self) {
        if self.end.borrow().is_none() {
            self.end(ServerEnd { how: "its task failed".to_owned(), last_lines: Vec::new() });
        }
    }
}

/// A request that was registered. Dropped before its outcome, it is cancelled.
struct InFlight<'a> {
    shared: &'a Shared,
    id: u64,
    method: &'a str,
    is_sent: bool,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        // The protocol forbids to cancel the handshake.
        if self.shared.calls.forget(self.id) && self.is_sent && self.method != "initialize" {
            let params = json!({"requestId": self.id, "reason": "the caller went away"});
            self.shared.try_send(&message::notification("notifications/cancelled", &params));
        }
    }
}

fn line_of(message: &Value) -> Vec<u8> {
    let mut line = message.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Asks for progress, under the id of the request: both are never used twice.
pub(crate) fn with_progress_token(params: &Value, id: u64) -> Value {
    let mut params = params.clone();
    params["_meta"]["progressToken"] = json!(id);
    params
}
