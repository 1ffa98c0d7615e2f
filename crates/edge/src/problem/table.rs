//! The table from the errors of the other crates to answers.

use std::io;

use actix_web::http::StatusCode;
use gathering_auth::{AuthError, Denied, StoreError as AccountStoreError};
use gathering_control::{ControlError, OpenWorkspaceError};
use gathering_dag_engine::StoreError;
use gathering_tools::WorkspaceError;

use super::{Kind, ProblemDetails, RETRY_AFTER_SECONDS};

impl From<ControlError> for ProblemDetails {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NotFound => Self::not_found(),
            ControlError::Forbidden => Denied::Forbidden.into(),
            ControlError::NotApprover => Self::forbidden(error.to_string()),
            ControlError::Revoked => AuthError::Revoked.into(),
            ControlError::PipelineChanged(_) | ControlError::AgentChanged(_) => {
                Self::new(Kind::PreconditionFailed, error.to_string())
            }
            ControlError::Outdated => Self::conflict(error.to_string()),
            ControlError::Invalid(problems) => Self::invalid(problems),
            ControlError::Conflict(conflict) => Self::conflict(conflict.to_string()),
            unavailable @ ControlError::Unavailable(_) => Self::unavailable(unavailable),
            timed_out @ ControlError::TimedOut(_) => Self::timed_out(timed_out),
            other => Self::internal(other),
        }
    }
}

impl From<OpenWorkspaceError> for ProblemDetails {
    fn from(error: OpenWorkspaceError) -> Self {
        match error {
            OpenWorkspaceError::NoProject(_) => Self::not_found(),
            OpenWorkspaceError::Lookup(error) => error.into(),
            OpenWorkspaceError::Workspace { .. } => Self::internal(error),
        }
    }
}

impl From<StoreError> for ProblemDetails {
    fn from(error: StoreError) -> Self {
        match error {
            unavailable @ StoreError::Unavailable(_) => Self::unavailable(unavailable),
            timed_out @ StoreError::TimedOut(_) => Self::timed_out(timed_out),
            other => Self::internal(other),
        }
    }
}

impl From<Denied> for ProblemDetails {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Invisible => Self::not_found(),
            Denied::Forbidden => {
                Self::forbidden("your role, or the scopes of your API key, do not allow this")
            }
        }
    }
}

impl From<AuthError> for ProblemDetails {
    fn from(error: AuthError) -> Self {
        const INVALID_TOKEN: &str = r#"Bearer realm="gathering", error="invalid_token""#;
        const LOGIN: &str = r#"Bearer realm="gathering""#;
        match error {
            AuthError::Invalid(problems) => Self::invalid(problems),
            AuthError::RegistrationClosed => {
                Self::forbidden("registration is closed: ask the operator for an account")
            }
            AuthError::AccountExists => Self::conflict("this e-mail address already has an account"),
            AuthError::LoginRefused => {
                Self::not_authenticated("wrong e-mail or password, or the account is disabled", LOGIN)
            }
            AuthError::RefreshRefused => Self::not_authenticated(
                "the refresh token is invalid, expired or revoked: log in again",
                LOGIN,
            ),
            AuthError::NotAuthenticated(_) | AuthError::Revoked => Self::not_authenticated(
                "the access token or API key is invalid, expired or revoked: refresh it, or log in again",
                INVALID_TOKEN,
            ),
            AuthError::Throttled { retry_after } => {
                Self::rate_limited("too many password attempts: wait before the next one", retry_after)
            }
            AuthError::WrongPassword => Self::forbidden("the current password is incorrect"),
            AuthError::Denied(denied) => denied.into(),
            AuthError::SessionNeeded => {
                Self::forbidden("this operation requires a login session, not an API key")
            }
            AuthError::NoAccount | AuthError::NoApiKey => Self::not_found(),
            AuthError::LastAdmin => Self::conflict("one active admin is required: promote another first"),
            AuthError::TooManyKeys => {
                let most = gathering_auth::ApiKey::MAX_PER_ACCOUNT;
                Self::conflict(format!("an account may have at most {most} API keys: revoke one first"))
            }
            AuthError::KeyCreatedBefore(_) | AuthError::IdempotencyKeyReused => {
                Self::conflict(error.to_string())
            }
            AuthError::Overloaded => {
                Self::new(Kind::Overloaded, "too many logins at the same time: try again")
                    .retry_after(RETRY_AFTER_SECONDS)
            }
            AuthError::Store(unavailable @ AccountStoreError::Unavailable(_)) => {
                Self::unavailable(unavailable)
            }
            AuthError::Store(timed_out @ AccountStoreError::TimedOut(_)) => Self::timed_out(timed_out),
            other => Self::internal(other),
        }
    }
}

impl From<WorkspaceError> for ProblemDetails {
    fn from(error: WorkspaceError) -> Self {
        let detail = error.to_string();
        match error {
            WorkspaceError::Escape => Self::forbidden(detail),
            WorkspaceError::InvalidPath { reason } => Self::invalid_field("path", reason),
            WorkspaceError::NotFound { .. } => Self::new(Kind::NotFound, detail),
            WorkspaceError::NotAFile { .. }
            | WorkspaceError::NotADirectory { .. }
            | WorkspaceError::NotEmpty { .. } => Self::conflict(detail),
            WorkspaceError::PreconditionFailed { .. } => Self::new(Kind::PreconditionFailed, detail),
            WorkspaceError::TooLarge { .. } => Self::new(Kind::TooLarge, detail),
            WorkspaceError::Io { ref source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    Self::forbidden("the operating system does not let the server do this")
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::new(
                    Kind::Other(StatusCode::INSUFFICIENT_STORAGE),
                    "the server has no disk space left for this file",
                ),
                _ => Self::internal(error),
            },
            WorkspaceError::Panicked(_) => Self::internal(error),
        }
    }
}
