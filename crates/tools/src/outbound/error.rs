//! How an outgoing request fails.

use std::time::Duration;

/// Why an outgoing request gave no answer.
///
/// No variant holds a path, a query, a header or a body, any of which may carry a secret.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The request cannot be made as it is; nothing was sent.
    #[error("cannot make the request: {reason}")]
    InvalidRequest {
        /// What would be right.
        reason: String,
    },
    /// The host has no address that may be reached; nothing was sent to it.
    #[error(
        "`{host}` is a private or reserved address, which requests may not reach; the operator can allow its network with GATHERING_OUTBOUND_ALLOW"
    )]
    Refused {
        /// The host as it was written.
        host: String,
    },
    /// There was no connection; nothing was sent.
    #[error("cannot connect to `{host}`")]
    Connect {
        /// Whom we wanted.
        host: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// The whole answer did not come in time; the request may have been carried out.
    #[error("`{host}` did not answer within {} seconds", .after.as_secs_f64())]
    TimedOut {
        /// Whom we asked.
        host: String,
        /// How long we waited.
        after: Duration,
    },
    /// The connection broke; the request may have been carried out.
    #[error("the exchange with `{host}` broke off")]
    BrokenOff {
        /// Whom we asked.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The answer leads on and on.
    #[error("`{host}` redirects more than {limit} times")]
    TooManyRedirects {
        /// The last one that redirected.
        host: String,
        /// How many hops are followed.
        limit: usize,
    },
    /// The answer is larger than the caller takes; the request was carried out.
    #[error("the answer of `{host}` is larger than {limit_bytes} bytes")]
    TooLarge {
        /// Who answered.
        host: String,
        /// How much is taken.
        limit_bytes: usize,
    },
    /// The client could not be set up.
    #[error("cannot set up the client for outgoing requests")]
    Setup(#[source] reqwest::Error),
}

impl OutboundError {
    /// A short word for the cause that does not change between versions.
    pub const fn kind(&self) -> &'static str {
        match self {
            OutboundError::InvalidRequest { .. } => "invalid_request",
            OutboundError::Refused { .. } => "forbidden",
            OutboundError::TimedOut { .. } => "timeout",
            OutboundError::TooLarge { .. } => "too_large",
            OutboundError::Connect { .. } | OutboundError::BrokenOff { .. } => "connection",
            OutboundError::TooManyRedirects { .. } => "http",
            OutboundError::Setup(_) => "internal",
        }
    }

    /// Whether something was sent, so that the other side may have acted on it.
    pub const fn may_have_been_sent(&self) -> bool {
        match self {
            OutboundError::InvalidRequest { .. }
            | OutboundError::Refused { .. }
            | OutboundError::Connect { .. }
            | OutboundError::Setup(_) => false,
            OutboundError::TimedOut { .. }
            | OutboundError::BrokenOff { .. }
            | OutboundError::TooManyRedirects { .. }
            | OutboundError::TooLarge { .. } => true,
        }
    }

    /// Whether the same request may succeed later.
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            OutboundError::Connect { .. } | OutboundError::TimedOut { .. } | OutboundError::BrokenOff { .. }
        )
    }
}
