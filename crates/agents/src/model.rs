//! The port to a model provider, and how it fails.

use std::time::Duration;

use async_trait::async_trait;

use crate::chat::{ChatReply, ChatRequest};

/// A provider of chat models.
#[async_trait]
pub trait ChatModel: Send + Sync {
    /// The provider's name, which every reply carries.
    fn provider(&self) -> &str;

    /// Asks once; it retries nothing by itself.
    ///
    /// Cancel: safe; the provider may have been paid.
    ///
    /// # Errors
    /// [`ModelError`], which says whether asking again may help.
    async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError>;
}

/// Why a model did not answer. No variant holds a key.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The provider asks to come back later.
    #[error("provider `{provider}` is over its rate limit")]
    RateLimited {
        /// Who.
        provider: String,
        /// When to come back, if it said so.
        retry_after: Option<Duration>,
    },
    /// The provider failed.
    #[error("provider `{provider}` failed with status {status}: {message}")]
    Unavailable {
        /// Who.
        provider: String,
        /// The HTTP status.
        status: u16,
        /// What it said, cut short.
        message: String,
    },
    /// There was no connection, or it broke; the provider may have been paid.
    #[error("cannot reach provider `{provider}`")]
    Connection {
        /// Who.
        provider: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// No answer in time; the provider may have been paid.
    #[error("provider `{provider}` did not answer within {} seconds", .after.as_secs_f64())]
    TimedOut {
        /// Who.
        provider: String,
        /// How long we waited.
        after: Duration,
    },
    /// The provider does not accept the key, or wants one.
    #[error("provider `{provider}` refused the API key (status {status}): {hint}")]
    Unauthorized {
        /// Who.
        provider: String,
        /// The HTTP status.
        status: u16,
        /// What the operator can do.
        hint: String,
    },
    /// The provider does not accept the request.
    #[error("provider `{provider}` refused the request with status {status}: {message}")]
    Rejected {
        /// Who.
        provider: String,
        /// The HTTP status.
        status: u16,
        /// What it said, cut short.
        message: String,
    },
    /// The answer is not what the protocol says.
    #[error("provider `{provider}` gave an answer that cannot be read: {reason}")]
    Malformed {
        /// Who.
        provider: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A script has no reply left.
    #[error("the script has no reply for model call {call}")]
    ScriptEnded {
        /// Which call it was, counted from 1.
        call: usize,
    },
    /// The provider's client could not be set up.
    #[error("cannot set up provider `{provider}`: {reason}")]
    Setup {
        /// Who.
        provider: String,
        /// What is wrong.
        reason: String,
    },
}

impl ModelError {
    /// A short word for the cause that does not change between versions.
    pub const fn kind(&self) -> &'static str {
        match self {
            ModelError::RateLimited { .. } => "rate_limited",
            ModelError::Unavailable { .. } => "provider_unavailable",
            ModelError::Connection { .. } => "connection",
            ModelError::TimedOut { .. } => "timeout",
            ModelError::Unauthorized { .. } => "provider_unauthorized",
            ModelError::Rejected { .. } => "provider_rejected",
            ModelError::Malformed { .. } => "provider_malformed",
            ModelError::ScriptEnded { .. } => "script_ended",
            ModelError::Setup { .. } => "provider_setup",
        }
    }

    /// Whether the provider may have answered, and be paid for it, all the same.
    pub fn may_have_taken_place(&self) -> bool {
        match self {
            ModelError::Connection { source, .. } => !source.is_connect(),
            // It says that it does not take the call now.
            ModelError::Unavailable { status, .. } => *status != 503,
            ModelError::TimedOut { .. } | ModelError::Malformed { .. } => true,
            ModelError::RateLimited { .. }
            | ModelError::Unauthorized { .. }
            | ModelError::Rejected { .. }
            | ModelError::ScriptEnded { .. }
            | ModelError::Setup { .. } => false,
        }
    }

    /// Whether the same call may succeed later. A garbled answer counts: models and proxies stumble.
    pub const fn is_retryable(&self) -> bool {
        match self {
            ModelError::RateLimited { .. }
            | ModelError::Unavailable { .. }
            | ModelError::Connection { .. }
            | ModelError::TimedOut { .. }
            | ModelError::Malformed { .. } => true,
            ModelError::Unauthorized { .. }
            | ModelError::Rejected { .. }
            | ModelError::ScriptEnded { .. }
            | ModelError::Setup { .. } => false,
        }
    }
}
