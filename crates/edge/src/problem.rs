//! Every error as `application/problem+json` (RFC 9457): one table from an error to the answer of the caller.
//!
//! The words are for the caller; the cause goes to the log, under the id of the request. An error without a row in the
//! table is a 500 that says nothing.

mod table;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use gathering_dag_engine::SourceMap;
use gathering_domain::{Pointer, Problems};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::envelope;

/// The media type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// `Retry-After` in seconds while the database is unavailable.
const RETRY_AFTER_SECONDS: u32 = 2;

/// The kinds of errors. The words of their types are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 400: the request cannot be read.
    Malformed,
    /// 401: the request has no valid credential.
    NotAuthenticated,
    /// 403: the caller may not do this.
    Forbidden,
    /// 404: no such resource, or the caller may not see it.
    NotFound,
    /// 405: the path has other methods.
    MethodNotAllowed,
    /// 408: the body arrived too slowly.
    RequestTimeout,
    /// 409: it conflicts with what is stored.
    Conflict,
    /// 412: the resource is not in the version that the request expects.
    PreconditionFailed,
    /// 413: the body is larger than the endpoint accepts.
    TooLarge,
    /// 415: the media type or the content encoding is not supported.
    UnsupportedMediaType,
    /// 416: the file has no bytes in this range.
    RangeNotSatisfiable,
    /// 422: the input is wrong, at the places that are named.
    Invalid,
    /// 424: the tool that the request calls has failed.
    ToolFailed,
    /// 424: the agent that the request is for has failed.
    AgentFailed,
    /// 429: the caller has used up a rate limit.
    RateLimited,
    /// 503: too much of this kind at the same time.
    Overloaded,
    /// 503: the server is shutting down.
    Draining,
    /// 503: the database cannot be reached.
    Unavailable,
    /// 503: the database took too long.
    TimedOut,
    /// 500: something went wrong that a person has to look at.
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
            Kind::AgentFailed => (StatusCode::FAILED_DEPENDENCY, "agent-failed", "The agent failed"),
            Kind::ToolFailed => (StatusCode::FAILED_DEPENDENCY, "tool-failed", "The tool failed"),
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
pub struct ProblemDetails {
    kind: Kind,
    detail: String,
    /// Every problem of the input.
    pub errors: Vec<FieldError>,
    headers: Vec<(HeaderName, String)>,
    /// What the answer has beside the members of every problem.
    members: Option<Box<Map<String, Value>>>,
    cause: Option<Box<dyn Error>>,
}

/// One problem of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The place, as a JSON pointer; empty for the whole input.
    #[schema(example = "/nodes/3/config/expression")]
    pub pointer: String,
    /// What is wrong, and what is right.
    pub message: String,
    /// For input in YAML: the line of the place, or of what encloses it, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u64, required = false, minimum = 1, example = 12)]
    pub line: Option<u64>,
    /// For input in YAML: the column of the place, in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u64, required = false, minimum = 1, example = 17)]
    pub column: Option<u64>,
}

impl FieldError {
    fn new(pointer: String, message: String) -> Self {
        Self { pointer, message, line: None, column: None }
    }

    /// The same problem with its line and column.
    pub fn placed(self, source: &SourceMap) -> Self {
        let place = source.find(&Pointer::from(self.pointer.clone()));
        Self { line: place.map(|(line, _)| line), column: place.map(|(_, column)| column), ..self }
    }
}

/// An error as it is answered (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemView {
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
    pub errors: Vec<FieldError>,
    /// What problems of this kind have beside the others.
    #[serde(flatten)]
    #[schema(ignore)]
    members: Map<String, Value>,
}

impl ProblemDetails {
    /// An answer of this kind; `detail` tells the caller what happened.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            headers: Vec::new(),
            members: None,
            cause: None,
        }
    }

    /// 404, for what is absent and for what the caller may not see.
    pub fn not_found() -> Self {
        Self::new(Kind::NotFound, "no such resource, or you have no access to it")
    }

    /// 403.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, detail)
    }

    /// 409.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, detail)
    }

    /// 401; `challenge` is the value of `WWW-Authenticate` (RFC 6750).
    pub fn not_authenticated(detail: &str, challenge: &str) -> Self {
        Self::new(Kind::NotAuthenticated, detail).with_header(WWW_AUTHENTICATE, challenge)
    }

    /// 405; `allowed` is the value of `Allow`.
    pub fn method_not_allowed(allowed: &str) -> Self {
        Self::new(Kind::MethodNotAllowed, format!("this resource allows only {allowed}"))
            .with_header(ALLOW, allowed)
    }

    /// A rate limit is used up. `retry_after` is rounded up to whole seconds, at least one.
    pub fn rate_limited(detail: impl Into<String>, retry_after: Duration) -> Self {
        let seconds = retry_after.as_nanos().div_ceil(1_000_000_000).max(1);
        Self::new(Kind::RateLimited, detail).retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// 500: the caller learns nothing, and the cause is logged.
    pub fn internal(cause: impl Into<Box<dyn Error>>) -> Self {
        let mut problem =
            Self::new(Kind::Internal, "unexpected error; the log has the cause under this request id");
        problem.cause = Some(cause.into());
        problem
    }

    /// 503 with `Retry-After`: the database cannot be reached.
    pub fn unavailable(cause: impl Into<Box<dyn Error>>) -> Self {
        let detail = "database unavailable; the request may have taken effect";
        let mut problem = Self::new(Kind::Unavailable, detail).retry_after(RETRY_AFTER_SECONDS);
        problem.cause = Some(cause.into());
        problem
    }

    /// A statement, or the wait for a connection or a lock, reached its limit.
    pub fn timed_out(cause: impl Into<Box<dyn Error>>) -> Self {
        let detail = "the database took too long; the request may have taken effect";
        let mut problem = Self::new(Kind::TimedOut, detail).retry_after(RETRY_AFTER_SECONDS);
        problem.cause = Some(cause.into());
        problem
    }

    /// Adds `Retry-After`, in seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        self.with_header(RETRY_AFTER, seconds.to_string())
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a member to the answer that problems of this kind have beside the others.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: Value) -> Self {
        self.members.get_or_insert_default().insert(name.to_owned(), value);
        self
    }

    /// An invalid input with all its problems.
    pub fn invalid(problems: Problems) -> Self {
        let mut problem = Self::new(Kind::Invalid, "");
        problem.errors = field_errors(problems);
        problem.detail = match problem.errors.as_slice() {
            [one] => format!("{}: {}", if one.pointer.is_empty() { "/" } else { &one.pointer }, one.message),
            many => format!("the request has {} errors", many.len()),
        };
        problem
    }

    /// 422 for one field of the input.
    pub fn invalid_field(name: &str, message: impl Into<String>) -> Self {
        Self::invalid(Problems::one(Pointer::root().join(name), message))
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.kind.row().0
    }

    /// The chain of causes, for the log.
    pub fn causes(&self) -> Option<String> {
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
pub fn field_errors(problems: Problems) -> Vec<FieldError> {
    let shown = |problem: gathering_domain::Problem| {
        FieldError::new(problem.pointer.as_str().to_owned(), problem.message)
    };
    problems.into_iter().map(shown).collect()
}

impl fmt::Display for ProblemDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl ResponseError for ProblemDetails {
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
            members: self.members.as_deref().cloned().unwrap_or_default(),
        };
        let mut response = HttpResponse::build(status);
        for (name, value) in &self.headers {
            response.insert_header((name.clone(), value.as_str()));
        }
        let body = serde_json::to_string(&view).unwrap_or_default();
        response.insert_header((CONTENT_TYPE, PROBLEM_JSON)).body(body)
    }
}

#[cfg(test)]
mod tests;
