//! Why an offer does not do what a client asks for.

use gathering_domain::Problems;

use crate::message::RpcError;

pub(super) const PARSE_ERROR: i64 = -32700;
pub(super) const INVALID_REQUEST: i64 = -32600;
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
pub(super) const INVALID_PARAMS: i64 = -32602;
pub(super) const INTERNAL_ERROR: i64 = -32603;
/// The headers of a request do not say what its body says.
pub(super) const HEADER_MISMATCH: i64 = -32020;

/// Why an offer does not do what a client asks for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// There is no such tool, task or resource, or the caller may not see it.
    #[error("{0}")]
    NotFound(String),
    /// The caller may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// The arguments are wrong, at these places; nothing was done.
    #[error("invalid arguments: {0}")]
    Invalid(Problems),
    /// It conflicts with the state of things.
    #[error("{0}")]
    Conflict(String),
    /// It may work later.
    #[error("{0}")]
    Unavailable(String),
    /// Something went wrong that a person has to look at. The client learns nothing more.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<OfferError> for RpcError {
    fn from(error: OfferError) -> Self {
        let code = match &error {
            OfferError::NotFound(_)
            | OfferError::Forbidden(_)
            | OfferError::Invalid(_)
            | OfferError::Conflict(_) => INVALID_PARAMS,
            OfferError::Unavailable(_) => INTERNAL_ERROR,
            OfferError::Internal(cause) => {
                tracing::error!(
                    error = &**cause as &dyn std::error::Error,
                    "a request of an MCP client failed: {cause}"
                );
                INTERNAL_ERROR
            }
        };
        RpcError::new(code, &error.to_string())
    }
}
