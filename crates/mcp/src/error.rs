//! Why a server cannot be used, or a call failed.
//!
//! Owns what each failure says about the call: whether it may have taken effect, and whether a repeat may help.

use std::fmt;
use std::io;
use std::time::Duration;

use gathering_domain::{Problems, with_causes};
use gathering_tools::{OutboundError, ToolError, is_refusal};

use crate::catalogue::NotCallable;

/// Why a server cannot be used, or a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum McpError {
    /// The settings are invalid; nothing was started.
    #[error("invalid settings of the MCP server: {reason}")]
    Config {
        /// What is wrong.
        reason: String,
    },
    /// The program could not be started.
    #[error("cannot start `{command}`")]
    Start {
        /// The program.
        command: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The server is not connected; nothing was sent.
    #[error("the server is not available, and nothing was sent: {reason}")]
    NotReady {
        /// Why not.
        reason: String,
    },
    /// The two sides found no common protocol.
    #[error("no connection at a version of the protocol that both speak: {reason}")]
    Handshake {
        /// What the server said.
        reason: String,
    },
    /// The server's process ended.
    #[error("the server ended: {end}{}", call_may(*.sent))]
    Ended {
        /// How.
        end: ServerEnd,
        /// Whether the request had been sent.
        sent: bool,
    },
    /// No answer came in time.
    #[error("the server did not answer `{method}` within {} seconds{hint}{}", .after.as_secs_f64(), call_may(*.sent))]
    TimedOut {
        /// The method.
        method: String,
        /// The time limit.
        after: Duration,
        /// What the server sent instead, if that may be the cause.
        hint: String,
        /// Whether the request had been sent.
        sent: bool,
    },
    /// The answer exceeds a limit; the call was carried out.
    #[error("the answer is larger than {limit_bytes} bytes; the call may have taken effect")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// The answer is not one that the protocol knows.
    #[error("the answer is invalid: {reason}; the call may have taken effect")]
    InvalidAnswer {
        /// What is wrong.
        reason: String,
    },
    /// The server answered with an error of JSON-RPC.
    #[error("the server answered with error {code}: {message}")]
    Rpc {
        /// The code.
        code: i64,
        /// The server's words.
        message: String,
    },
    /// The server answered with a status of HTTP that is no success.
    #[error("the server answered with status {status}: {message}")]
    Status {
        /// The status.
        status: u16,
        /// The server's words.
        message: String,
    },
    /// The server does not accept the credentials, or gave no token for them.
    #[error("the server refused the credentials: {reason}; check the settings of its authentication")]
    Unauthorized {
        /// What the server said.
        reason: String,
    },
    /// The server has forgotten the session; the request was not accepted.
    #[error("the server has forgotten the session")]
    SessionLost,
    /// The request could not be sent, or its answer did not come.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// The server has no tool of this name; nothing was sent.
    #[error("the server has no tool `{name}`")]
    UnknownTool {
        /// The name.
        name: String,
    },
    /// The tool must not be called; nothing was sent.
    #[error("the tool `{tool}` is not callable: {reason}")]
    NotCallable {
        /// The tool, by the server's name.
        tool: String,
        /// Why not.
        reason: NotCallable,
    },
    /// The arguments do not fit the tool's schema; nothing was sent.
    #[error("invalid arguments: {0}")]
    InvalidArguments(Problems),
    /// The tool says that it failed.
    #[error("{message}")]
    Tool {
        /// The tool's words.
        message: String,
    },
    /// All places of a pool are in use; nothing was sent.
    #[error(
        "{limit} MCP servers are connected, which is the most, and all of them are in use; nothing was sent"
    )]
    Busy {
        /// The places.
        limit: usize,
    },
    /// The connection was stopped; nothing was sent.
    #[error("the connection to the server was stopped")]
    Stopped,
}

/// Codes of JSON-RPC and of the protocol that say that the request was not carried out.
const NOT_CARRIED_OUT: [i64; 6] = [-32700, -32600, -32601, -32602, -32020, -32022];

impl McpError {
    /// Whether the call may have had an effect nevertheless.
    pub fn may_have_taken_place(&self) -> bool {
        match self {
            McpError::Config { .. }
            | McpError::Start { .. }
            | McpError::NotReady { .. }
            | McpError::Handshake { .. }
            | McpError::Unauthorized { .. }
            | McpError::SessionLost
            | McpError::UnknownTool { .. }
            | McpError::NotCallable { .. }
            | McpError::InvalidArguments(_)
            | McpError::Busy { .. }
            | McpError::Stopped => false,
            McpError::Ended { sent, .. } | McpError::TimedOut { sent, .. } => *sent,
            McpError::TooLarge { .. } | McpError::InvalidAnswer { .. } | McpError::Tool { .. } => true,
            McpError::Rpc { code, .. } => !NOT_CARRIED_OUT.contains(code),
            McpError::Status { status, .. } => !is_refusal(*status),
            McpError::Outbound(error) => error.may_have_been_sent(),
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            McpError::NotReady { .. }
            | McpError::Ended { .. }
            | McpError::TimedOut { .. }
            | McpError::Busy { .. }
            | McpError::SessionLost => true,
            McpError::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            McpError::Outbound(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// Why there is no connection: no call was concerned.
    pub(crate) fn of_connection(mut self) -> Self {
        if let McpError::Ended { sent, .. } | McpError::TimedOut { sent, .. } = &mut self {
            *sent = false;
        }
        self
    }

    /// The failure of a tool of the server `server`.
    pub fn into_tool_error(self, server: &str) -> ToolError {
        let message = match &self {
            // These are the words that a model corrects its call by.
            McpError::Tool { message } => message.clone(),
            other => format!("MCP server `{server}`: {}", with_causes(other)),
        };
        match self {
            McpError::InvalidArguments(problems) => ToolError::InvalidParameters(problems),
            McpError::Outbound(error) => ToolError::Outbound(error),
            other if other.may_have_taken_place() => match other.is_retryable() {
                true => ToolError::Temporary { message },
                false => ToolError::Permanent { message },
            },
            other if other.is_retryable() => ToolError::Unavailable { message },
            McpError::Rpc { .. } | McpError::Status { .. } => ToolError::Permanent { message },
            _ => ToolError::NotConfigured { message },
        }
    }
}

const fn call_may(sent: bool) -> &'static str {
    if sent { "; the call may have taken effect" } else { "" }
}

/// How a server's process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerEnd {
    /// Such as `exit code 1`.
    pub how: String,
    /// The last lines of its standard error.
    pub last_lines: Vec<String>,
}

impl fmt::Display for ServerEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.how)?;
        if self.last_lines.is_empty() {
            return Ok(());
        }
        write!(f, "; its last lines: {}", self.last_lines.join(" | "))
    }
}
