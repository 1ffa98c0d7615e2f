//! The port to model providers, and its errors.

use std::time::Duration;

use async_trait::async_trait;
use gathering_domain::FailureKind;

use crate::chat::{ChatReply, ChatRequest};

/// A provider of chat models.
#[async_trait]
pub trait ChatModel: Send + Sync {
    /// The provider's name, which is in every reply.
    fn provider(&self) -> &str;

    /// Makes one call. It does not retry.
    ///
    /// Cancel: safe; the provider may bill the call.
    ///
    /// # Errors
    /// [`ModelError`], which says whether a retry may help.
    async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError>;
}

/// Why a model did not answer. No variant contains a key.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The provider asks to retry later.
    #[error("rate limit of provider `{provider}` exceeded{}", pause(*.retry_after))]
    RateLimited {
        /// The provider.
        provider: String,
        /// When to retry, if the provider said so.
        retry_after: Option<Duration>,
    },
    /// The provider failed.
    #[error("provider `{provider}` failed with status {status}: {message}{}", pause(*.retry_after))]
    Unavailable {
        /// The provider.
        provider: String,
        /// The HTTP status.
        status: u16,
        /// The provider's message, shortened.
        message: String,
        /// When to retry, if the provider said so.
        retry_after: Option<Duration>,
    },
    /// No connection was made, or it broke; the provider may bill the call.
    #[error("cannot reach provider `{provider}`")]
    Connection {
        /// The provider.
        provider: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// No answer came in time; the provider may bill the call.
    #[error("provider `{provider}` did not answer within {} seconds", .after.as_secs_f64())]
    TimedOut {
        /// The provider.
        provider: String,
        /// The time limit.
        after: Duration,
    },
    /// The provider rejects the key or requires one.
    #[error("provider `{provider}` rejected the API key (status {status}): {hint}")]
    Unauthorized {
        /// The provider.
        provider: String,
        /// The HTTP status.
        status: u16,
        /// What the operator can do.
        hint: String,
    },
    /// The provider rejects the request.
    #[error("provider `{provider}` rejected the request with status {status}: {message}")]
    Rejected {
        /// The provider.
        provider: String,
        /// The HTTP status.
        status: u16,
        /// The provider's message, shortened.
        message: String,
    },
    /// The answer violates the protocol.
    #[error("invalid answer of provider `{provider}`: {reason}")]
    Malformed {
        /// The provider.
        provider: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The script has no reply left.
    #[error("the script has no reply for model call {call}")]
    ScriptEnded {
        /// The number of the call, counted from 1.
        call: usize,
    },
    /// The provider's client could not be created.
    #[error("cannot set up provider `{provider}`: {reason}")]
    Setup {
        /// The provider.
        provider: String,
        /// What is wrong.
        reason: String,
    },
}

impl ModelError {
    /// A short name of the cause, which is the same in all versions.
    pub const fn kind(&self) -> FailureKind {
        match self {
            ModelError::RateLimited { .. } => FailureKind::RateLimited,
            ModelError::Unavailable { .. } => FailureKind::ProviderUnavailable,
            ModelError::Connection { .. } => FailureKind::Connection,
            ModelError::TimedOut { .. } => FailureKind::Unanswered,
            ModelError::Unauthorized { .. } => FailureKind::ProviderUnauthorized,
            ModelError::Rejected { .. } => FailureKind::ProviderRejected,
            ModelError::Malformed { .. } => FailureKind::ProviderMalformed,
            ModelError::ScriptEnded { .. } => FailureKind::ScriptEnded,
            ModelError::Setup { .. } => FailureKind::ProviderSetup,
        }
    }

    /// How long the provider wants no further request, if it said so.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            ModelError::RateLimited { retry_after, .. } | ModelError::Unavailable { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }

    /// Whether the provider may have answered, and may bill the call, nevertheless.
    pub fn may_have_taken_place(&self) -> bool {
        match self {
            ModelError::Connection { source, .. } => !source.is_connect(),
            // The provider says that it does not accept the call now.
            ModelError::Unavailable { status, .. } => *status != 503,
            ModelError::TimedOut { .. } | ModelError::Malformed { .. } => true,
            ModelError::RateLimited { .. }
            | ModelError::Unauthorized { .. }
            | ModelError::Rejected { .. }
            | ModelError::ScriptEnded { .. }
            | ModelError::Setup { .. } => false,
        }
    }

    /// Whether the same call may succeed later. That includes invalid answers, which models and proxies give at times.
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

fn pause(retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |pause| format!("; it wants no request for {} s", pause.as_secs()))
}
