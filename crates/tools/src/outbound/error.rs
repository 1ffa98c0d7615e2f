//! Errors of outgoing requests.

use std::time::Duration;

use gathering_domain::FailureKind;

/// Whether an answer with this status says that the request was not carried out: RFC 9110, section 15.5, client errors.
///
/// Not 408, whose sender waited for a request that may have come after all, and not 409: the conflict may be with an
/// earlier request for the same.
pub const fn is_refusal(status: u16) -> bool {
    matches!(status, 400..=407 | 410..=499)
}

/// Why an outgoing request failed.
///
/// No variant contains a path, a query, a header or a body, because any of them may contain a secret.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The request is invalid; nothing was sent.
    #[error("invalid request: {reason}")]
    InvalidRequest {
        /// What is wrong.
        reason: String,
    },
    /// The policy permits no address of the host; nothing was sent to it.
    #[error(
        "`{host}` is a private or reserved address, which requests may not reach; the operator can allow its network with GATHERING_OUTBOUND_ALLOW"
    )]
    Refused {
        /// The host as the request names it.
        host: String,
    },
    /// The host has answered 429 or 503 with `Retry-After`; nothing was sent.
    #[error("`{host}` asked for a pause: try again in {} seconds", .pause.as_secs_f64().ceil())]
    Paused {
        /// The host.
        host: String,
        /// How long the pause still takes.
        pause: Duration,
    },
    /// The host has as many requests as one host may have at once; nothing was sent.
    #[error("`{host}` already answers {limit} requests, which is the limit for one host")]
    Busy {
        /// The host.
        host: String,
        /// The limit.
        limit: usize,
    },
    /// No connection was made; nothing was sent.
    #[error("cannot connect to `{host}`")]
    Connect {
        /// The host.
        host: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The response was not complete in time; the request may have been carried out.
    #[error("`{host}` did not answer within {} seconds", .after.as_secs_f64())]
    TimedOut {
        /// The host.
        host: String,
        /// The time limit.
        after: Duration,
    },
    /// The connection broke; the request may have been carried out.
    #[error("the connection to `{host}` broke")]
    BrokenOff {
        /// The host.
        host: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The response redirects too often.
    #[error("`{host}` redirects more than {limit} times")]
    TooManyRedirects {
        /// The host of the last redirect.
        host: String,
        /// The maximum number of redirects.
        limit: usize,
    },
    /// The response exceeds the limit; the request was carried out.
    #[error("the response of `{host}` is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The host.
        host: String,
        /// The limit.
        limit_bytes: usize,
    },
    /// The client could not be created.
    #[error("cannot create the client for outgoing requests")]
    Setup(#[source] reqwest::Error),
}

impl OutboundError {
    /// A short name of the cause, which is the same in all versions.
    pub const fn kind(&self) -> FailureKind {
        match self {
            OutboundError::InvalidRequest { .. } => FailureKind::InvalidRequest,
            OutboundError::Refused { .. } => FailureKind::Forbidden,
            OutboundError::Paused { .. } => FailureKind::RateLimited,
            OutboundError::Busy { .. } => FailureKind::Unavailable,
            OutboundError::TimedOut { .. } => FailureKind::Unanswered,
            OutboundError::TooLarge { .. } => FailureKind::TooLarge,
            OutboundError::Connect { .. } | OutboundError::BrokenOff { .. } => FailureKind::Connection,
            OutboundError::TooManyRedirects { .. } => FailureKind::Http,
            OutboundError::Setup(_) => FailureKind::Internal,
        }
    }

    /// How long the host wants no further request, if it said so.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            OutboundError::Paused { pause, .. } => Some(*pause),
            _ => None,
        }
    }

    /// Whether the request may have been sent, so that the other system may have acted on it.
    pub const fn may_have_been_sent(&self) -> bool {
        match self {
            OutboundError::InvalidRequest { .. }
            | OutboundError::Refused { .. }
            | OutboundError::Paused { .. }
            | OutboundError::Busy { .. }
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
            OutboundError::Paused { .. }
                | OutboundError::Busy { .. }
                | OutboundError::Connect { .. }
                | OutboundError::TimedOut { .. }
                | OutboundError::BrokenOff { .. }
        )
    }
}
