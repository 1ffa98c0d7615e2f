//! The task that keeps a server connected.
//!
//! Owns when a connection is opened, checked, listed anew and closed. Invariant: one connection at a time; the task
//! ends only after the last one is closed.

use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use gathering_tools::Outbound;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::McpError;
use crate::catalogue::McpCatalogue;
use crate::connection::Connection;
use crate::list::list_tools;
use crate::notices::McpNoticeKind;
use crate::peer::Peer;
use crate::protocol::Dialect;
use crate::server::{Ready, Shared, State};

/// The longest delay before a restart.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// A connection that lasted this long was a good one: the next restart does not wait long.
const LASTED: Duration = Duration::from_secs(60);
/// How long changes of the tools are collected before they are read.
const COLLECT_CHANGES: Duration = Duration::from_millis(200);
/// The pause before listening again after the stream ended.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// How long a server may take to answer a ping after a call has timed out, unless calls have less.
const PING: Duration = Duration::from_secs(10);

/// What the task has.
pub(crate) struct Supervisor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) outbound: Outbound,
    pub(crate) peer: Arc<Peer>,
    pub(crate) stop: CancellationToken,
}

/// A connection that is over.
struct Over {
    /// What the server spoke; `None` if there was no connection.
    dialect: Option<Dialect>,
    /// Whether its tools were listed.
    was_ready: bool,
    error: McpError,
}

/// Keeps the server connected until it is stopped.
pub(crate) async fn supervise(supervisor: Supervisor) {
    let Supervisor { shared, peer, stop, .. } = &supervisor;
    let first_delay = shared.config.limits.restart;
    let (mut delay, mut known) = (first_delay, None);
    while !stop.is_cancelled() {
        let since = Instant::now();
        let Over { dialect, was_ready, error } = supervisor.connect_once(known).await;
        known = dialect;
        if stop.is_cancelled() {
            break;
        }
        let error = error.of_connection();
        let reason = peer.loggable(&error);
        tracing::warn!(server = %peer.server, %reason, "an MCP server is not connected");
        peer.tell(McpNoticeKind::Down { reason });
        // A session that was lost in use says nothing against the server: calls wait for the next one.
        if was_ready && matches!(error, McpError::SessionLost) {
            continue;
        }
        if since.elapsed() > LASTED {
            delay = first_delay;
        }
        shared.state.send_replace(State::Down(Arc::new(error)));
        tokio::select! {
            () = sleep(delay) => {}
            () = stop.cancelled() => break,
        }
        delay = (delay * 2).min(MAX_DELAY);
        shared.state.send_replace(State::Connecting);
    }
    shared.state.send_replace(State::Stopped);
}

impl Supervisor {
    /// Connects, and stays connected as long as it lasts.
    async fn connect_once(&self, known: Option<Dialect>) -> Over {
        self.shared.config.on_connect.act();
        let opened =
            Connection::open(&self.shared.config, &self.outbound, &self.peer, known, &self.stop).await;
        let connection = match opened {
            Ok(connection) => Arc::new(connection),
            // Perhaps the server was replaced by one of another generation.
            Err(error) => return Over { dialect: None, was_ready: false, error },
        };
        let error = tokio::select! {
            ended = self.attend(&connection) => ended,
            ended = connection.link.ended() => ended,
            () = self.stop.cancelled() => McpError::Stopped,
        };
        let next = if matches!(error, McpError::Stopped) { State::Stopped } else { State::Connecting };
        let before = self.shared.state.send_replace(next);
        connection.link.close(self.shared.config.limits.shutdown).await;
        let was_ready = matches!(before, State::Ready(_));
        Over { dialect: Some(connection.dialect), was_ready, error }
    }

    /// Lists the tools, and again when they change; returns when the connection is of no use.
    async fn attend(&self, connection: &Arc<Connection>) -> McpError {
        if let Err(error) = self.list(connection).await {
            return error;
        }
        self.peer.tell(McpNoticeKind::Connected);
        let mut told = pin!(listen(connection));
        let mut is_told = false;
        loop {
            tokio::select! {
                () = self.peer.tools_changed.notified() => {
                    sleep(COLLECT_CHANGES).await;
                    match self.list(connection).await {
                        Ok(()) => self.peer.tell(McpNoticeKind::ToolsChanged),
                        Err(error) => return error,
                    }
                }
                () = connection.doubt.notified() => {
                    if let Err(error) = ping(connection).await {
                        return error;
                    }
                }
                () = &mut told, if !is_told => is_told = true,
            }
        }
    }

    async fn list(&self, connection: &Arc<Connection>) -> Result<(), McpError> {
        let after = connection.limits.startup;
        let listed = timeout(after, list_tools(connection)).await;
        let listed = listed.unwrap_or_else(|_| Err(connection.timed_out("tools/list", after)))?;
        // Held until the catalogue is published, so that no change of the pins is missed.
        let pins = self.shared.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let catalogue = McpCatalogue::new(
            &self.shared.config,
            &pins,
            connection.info.clone(),
            listed.tools,
            listed.problems,
        );
        self.shared.state.send_replace(State::Ready(Ready {
            connection: Arc::clone(connection),
            catalogue: Arc::new(catalogue),
        }));
        Ok(())
    }
}

/// Since 2026-07-28 a server tells of changes only in the answer to this request, which lasts. Returns if there is
/// nothing to hear.
async fn listen(connection: &Connection) {
    if connection.dialect != Dialect::Modern || !connection.info.tells_changes {
        return;
    }
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    loop {
        match connection.ask_without_end("subscriptions/listen", wanted.clone()).await {
            Err(error @ (McpError::Rpc { .. } | McpError::Status { .. })) => {
                let error = connection.peer.loggable(&error);
                tracing::debug!(server = %connection.peer.server, error, "an MCP server does not tell of changes");
                return;
            }
            // The stream ended, as streams do. What changed meanwhile is not told.
            Ok(_) | Err(_) => sleep(LISTEN_AGAIN).await,
        }
        connection.peer.tools_changed.notify_one();
    }
}

/// Whether a server that did not answer a call still answers anything, be it with an error.
async fn ping(connection: &Connection) -> Result<(), McpError> {
    if !connection.link.is_stdio() {
        return Ok(());
    }
    match connection.request("ping", json!({}), PING.min(connection.limits.call)).await {
        Ok(_) | Err(McpError::Rpc { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
