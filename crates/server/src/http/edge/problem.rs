//! Every error as `application/problem+json` (RFC 9457): one table from an error to the answer of the caller.
//!
//! The words are for the caller; the cause goes to the log, under the id of the request. An error without a row in the
//! table is a 500 that says nothing.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use gathering_auth::{AuthError, Denied};
use gathering_control::ControlError;
use gathering_dag_engine::{SourceMap, StoreError};
use gathering_domain::{Pointer, Problems};
use gathering_persistence::{DatabaseError, ProjectError, ProjectRefusal};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::edge::envelope;

/// The media type of every error.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// `Retry-After` in seconds while the database is unavailable.
const RETRY_AFTER_SECONDS: u32 = 2;

/// The kinds of errors. The words of their types are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Malformed,
    NotAuthenticated,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    PreconditionFailed,
    TooLarge,
    UnsupportedMediaType,
    RangeNotSatisfiable,
    Invalid,
    RateLimited,
    Overloaded,
    Draining,
    Unavailable,
    TimedOut,
    Internal,
    /// Refused by the HTTP layer itself.
    Other(StatusCode),
}

impl Kind {
    /// The table: status, the last part of the type, title.
    fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Kind::Malformed => (StatusCode::BAD_REQUEST, "malformed", "Malformed request"),
            Kind::NotAuthenticated => {
                (StatusCode::UNAUTHORIZED, "not-authenticated", "Authentication required")
            }
            Kind::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "Permission denied"),
            Kind::NotFound => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Kind::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed")
            }
            Kind::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "request-timeout", "Request timed out"),
            Kind::Conflict => (StatusCode::CONFLICT, "conflict", "Conflict"),
            Kind::PreconditionFailed => {
                (StatusCode::PRECONDITION_FAILED, "precondition-failed", "Precondition failed")
            }
            Kind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Request too large"),
            Kind::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type")
            }
            Kind::RangeNotSatisfiable => {
                (StatusCode::RANGE_NOT_SATISFIABLE, "range-not-satisfiable", "Range not satisfiable")
            }
            Kind::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "Invalid request"),
            Kind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate-limited", "Too many requests"),
            Kind::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Server overloaded"),
            Kind::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining", "Server shutting down"),
            Kind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Database unavailable"),
            Kind::TimedOut => (StatusCode::SERVICE_UNAVAILABLE, "timed-out", "The database took too long"),
            Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal server error"),
            Kind::Other(status) => {
                (status, "refused", status.canonical_reason().unwrap_or("Request refused"))
            }
        }
    }
}

/// An error on its way to the caller.
#[derive(Debug)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    /// Every problem of the input.
    pub(crate) errors: Vec<FieldError>,
    headers: Vec<(HeaderName, String)>,
    cause: Option<Box<dyn Error>>,
}

/// One problem of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// The place, as a JSON pointer; empty for the whole input.
    #[schema(example = "/nodes/3/config/expression")]
    pub(crate) pointer: String,
    /// What is wrong, and what is right.
    pub(crate) message: String,
    /// For input in YAML: the line of the place, or of what encloses it, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u64, required = false, minimum = 1, example = 12)]
    pub(crate) line: Option<u64>,
    /// For input in YAML: the column of the place, in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u64, required = false, minimum = 1, example = 17)]
    pub(crate) column: Option<u64>,
}

impl FieldError {
    fn new(pointer: String, message: String) -> Self {
        Self { pointer, message, line: None, column: None }
    }

    /// The same problem with its line and column.
    pub(crate) fn placed(self, source: &SourceMap) -> Self {
        let place = source.find(&Pointer::from(self.pointer.clone()));
        Self { line: place.map(|(line, _)| line), column: place.map(|(_, column)| column), ..self }
    }
}

/// An error as it is answered (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemView {
    /// The kind of the error; stable.
    #[schema(example = "/problems/invalid")]
    r#type: String,
    /// The kind of the error in words.
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 422)]
    status: u16,
    /// What happened in this request.
    detail: String,
    /// The id of the request, as in `x-request-id`.
    instance: String,
    /// Every problem of the input.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(crate) errors: Vec<FieldError>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), headers: Vec::new(), cause: None }
    }

    pub(crate) fn not_found() -> Self {
        Self::new(Kind::NotFound, "no such resource, or you have no access to it")
    }

    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, detail)
    }

    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, detail)
    }

    pub(crate) fn not_authenticated(detail: &str, challenge: &str) -> Self {
        Self::new(Kind::NotAuthenticated, detail).with_header(WWW_AUTHENTICATE, challenge)
    }

    pub(crate) fn method_not_allowed(allowed: &str) -> Self {
        Self::new(Kind::MethodNotAllowed, format!("this resource allows only {allowed}"))
            .with_header(ALLOW, allowed)
    }

    /// A rate limit is used up. `retry_after` is rounded up to whole seconds, at least one.
    pub(crate) fn rate_limited(detail: impl Into<String>, retry_after: Duration) -> Self {
        let seconds = retry_after.as_nanos().div_ceil(1_000_000_000).max(1);
        Self::new(Kind::RateLimited, detail).retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    pub(crate) fn internal(cause: impl Into<Box<dyn Error>>) -> Self {
        let mut problem =
            Self::new(Kind::Internal, "unexpected error; the log has the cause under this request id");
        problem.cause = Some(cause.into());
        problem
    }

    pub(crate) fn unavailable(cause: impl Into<Box<dyn Error>>) -> Self {
        let detail = "database unavailable; the request may have taken effect";
        let mut problem = Self::new(Kind::Unavailable, detail).retry_after(RETRY_AFTER_SECONDS);
        problem.cause = Some(cause.into());
        problem
    }

    /// A statement, or the wait for a connection or a lock, reached its limit.
    pub(crate) fn timed_out(cause: impl Into<Box<dyn Error>>) -> Self {
        let detail = "the database took too long; the request may have taken effect";
        let mut problem = Self::new(Kind::TimedOut, detail).retry_after(RETRY_AFTER_SECONDS);
        problem.cause = Some(cause.into());
        problem
    }

    /// A port's store that may answer later.
    fn transient(cause: Box<dyn Error + Send + Sync>) -> Self {
        match cause.downcast_ref() {
            Some(DatabaseError::TimedOut { .. }) => Self::timed_out(cause as Box<dyn Error>),
            _ => Self::unavailable(cause as Box<dyn Error>),
        }
    }

    /// Adds `Retry-After`, in seconds.
    #[must_use]
    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        self.with_header(RETRY_AFTER, seconds.to_string())
    }

    /// Adds a header to the answer.
    #[must_use]
    pub(crate) fn with_header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// An invalid input with all its problems.
    pub(crate) fn invalid(problems: Problems) -> Self {
        let mut problem = Self::new(Kind::Invalid, "");
        problem.errors = field_errors(problems);
        problem.detail = match problem.errors.as_slice() {
            [one] => format!("{}: {}", if one.pointer.is_empty() { "/" } else { &one.pointer }, one.message),
            many => format!("the request has {} errors", many.len()),
        };
        problem
    }

    pub(crate) fn invalid_field(name: &str, message: impl Into<String>) -> Self {
        Self::invalid(Problems::one(Pointer::root().join(name), message))
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        self.kind.row().0
    }

    /// The chain of causes, for the log.
    pub(crate) fn causes(&self) -> Option<String> {
        let mut error: &dyn Error = self.cause.as_deref()?;
        let mut chain = error.to_string();
        while let Some(source) = error.source() {
            chain.push_str(": ");
            chain.push_str(&source.to_string());
            error = source;
        }
        Some(chain)
    }
}

/// The problems as the answer shows them, in the order in which they were found.
pub(crate) fn field_errors(problems: Problems) -> Vec<FieldError> {
    let shown = |problem: gathering_domain::Problem| {
        FieldError::new(problem.pointer.as_str().to_owned(), problem.message)
    };
    problems.into_iter().map(shown).collect()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    fn error_response(&self) -> HttpResponse {
        let (status, name, title) = self.kind.row();
        let view = ProblemView {
            r#type: format!("/problems/{name}"),
            title,
            status: status.as_u16(),
            detail: self.detail.clone(),
            instance: envelope::current_request_id(),
            errors: self.errors.clone(),
        };
        let mut response = HttpResponse::build(status);
        for (name, value) in &self.headers {
            response.insert_header((name.clone(), value.as_str()));
        }
        let body = serde_json::to_string(&view).unwrap_or_default();
        response.insert_header((CONTENT_TYPE, PROBLEM_JSON)).body(body)
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Self {
        match error {
            unavailable @ DatabaseError::Unavailable { .. } => Self::unavailable(unavailable),
            timed_out @ DatabaseError::TimedOut { .. } => Self::timed_out(timed_out),
            DatabaseError::Missing { .. } => Self::not_found(),
            DatabaseError::Conflict { what } => {
                Self::conflict(format!("{what} is not what the request expects"))
            }
            other => Self::internal(other),
        }
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NotFound => Self::not_found(),
            ControlError::Forbidden => Denied::Forbidden.into(),
            ControlError::NotApprover => Self::forbidden(error.to_string()),
            ControlError::Revoked => AuthError::Revoked.into(),
            ControlError::Invalid(problems) => Self::invalid(problems),
            ControlError::Conflict(conflict) => Self::conflict(conflict.to_string()),
            unavailable @ ControlError::Unavailable(_) => Self::unavailable(unavailable),
            timed_out @ ControlError::TimedOut(_) => Self::timed_out(timed_out),
            other => Self::internal(other),
        }
    }
}

impl From<ProjectError> for Problem {
    fn from(error: ProjectError) -> Self {
        match error {
            ProjectError::Refused(refusal) => refusal.into(),
            ProjectError::Denied(denied) => denied.into(),
            ProjectError::Revoked => AuthError::Revoked.into(),
            ProjectError::Database(error) => error.into(),
        }
    }
}

impl From<ProjectRefusal> for Problem {
    fn from(refusal: ProjectRefusal) -> Self {
        Self::conflict(match refusal {
            ProjectRefusal::LastOwner => "a project needs an owner: add another, or delete the project",
            ProjectRefusal::DefaultProject => "an account's default project cannot be deleted",
            ProjectRefusal::RunsActive => {
                "the project has runs that have not ended: cancel them, or wait for them"
            }
        })
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => Self::transient(cause),
            other => Self::internal(other),
        }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Invisible => Self::not_found(),
            Denied::Forbidden => {
                Self::forbidden("your role, or the scopes of your API key, do not allow this")
            }
        }
    }
}

impl From<AuthError> for Problem {
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
            AuthError::Store(gathering_auth::StoreError::Unavailable(cause)) => Self::transient(cause),
            other => Self::internal(other),
        }
    }
}

#[cfg(test)]
mod tests;
