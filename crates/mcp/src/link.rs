//! The link to a server, whichever way it is reached.

use std::sync::Arc;
use std::time::Duration;

use gathering_tools::Outbound;
use serde_json::Value;

use crate::McpError;
use crate::calls::Answer;
use crate::config::{McpServerConfig, McpTransport};
use crate::http::HttpLink;
use crate::peer::Peer;
use crate::protocol::Dialect;
use crate::stdio::StdioLink;
use crate::tool_call::ToolCall;

/// A link.
pub(crate) enum Link {
    Stdio(StdioLink),
    Http(HttpLink),
}

impl Link {
    /// Starts the process, or makes a link that sends its first request when it is asked to.
    ///
    /// # Errors
    /// [`McpError::Start`].
    pub(crate) fn start(
        config: &McpServerConfig,
        outbound: &Outbound,
        peer: &Arc<Peer>,
    ) -> Result<Self, McpError> {
        let (limits, peer) = (&config.limits, Arc::clone(peer));
        Ok(match &config.transport {
            McpTransport::Stdio(command) => Self::Stdio(StdioLink::start(command, limits, peer)?),
            McpTransport::Http(endpoint) => {
                Self::Http(HttpLink::new(endpoint, limits, outbound.clone(), peer))
            }
        })
    }

    /// Whether a request to this link may decide how all later ones are understood.
    pub(crate) const fn is_stdio(&self) -> bool {
        matches!(self, Self::Stdio(_))
    }

    /// Sends a request and waits for its answer, however long that takes. Cancel: safe; the server is told.
    pub(crate) async fn request(
        &self,
        dialect: Dialect,
        method: &str,
        params: &Value,
        call: Option<&Arc<ToolCall>>,
    ) -> Result<Answer, McpError> {
        match self {
            Self::Stdio(link) => link.request(method, params, call).await,
            Self::Http(link) => link.request(dialect, method, params, call).await,
        }
    }

    pub(crate) async fn notify(
        &self,
        dialect: Dialect,
        method: &str,
        params: &Value,
    ) -> Result<(), McpError> {
        match self {
            Self::Stdio(link) => link.notify(method, params).await,
            Self::Http(link) => link.notify(dialect, method, params).await,
        }
    }

    /// Waits until the link is of no use any more, and says why.
    pub(crate) async fn ended(&self) -> McpError {
        match self {
            Self::Stdio(link) => McpError::Ended { end: link.ended().await, sent: false },
            Self::Http(link) => {
                link.lost().await;
                McpError::SessionLost
            }
        }
    }

    /// Ends the link in order, and waits for its end. A process gets `patience` to end by itself.
    pub(crate) async fn close(&self, patience: Duration) {
        match self {
            Self::Stdio(link) => link.close(patience).await,
            Self::Http(link) => link.close().await,
        }
    }

    /// What the server did instead of answering, for the message of a failure.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Stdio(link) => link.hint(),
            Self::Http(_) => String::new(),
        }
    }
}
